from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import InputError
from configs.rows import Example, Problem, ProblemScore, Rollout, Row, Sample, Step, VerdictRow, arrow_schema
from pipelines.store import Artefact, Store, read_rows, write_rows

ROWS: list[type[Row]] = [Problem, Sample, VerdictRow, Example, ProblemScore, Rollout, Step]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT, int: st.integers(0, 2**63 - 1), float: st.floats(allow_nan=False), bool: st.booleans()
}


def values(annotation: Any) -> st.SearchStrategy[Any]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return st.none() | values(arguments[0])
    if origin is list:
        item = st.integers(0, 2**31 - 1) if arguments[0] is int else values(arguments[0])
        return st.lists(item, max_size=4)
    return SCALARS[annotation]


def rows_of(kind: type[Row]) -> st.SearchStrategy[list[Row]]:
    return st.lists(st.builds(kind, **{n: values(a) for n, a in typing.get_type_hints(kind).items()}), max_size=4)


@pytest.mark.parametrize("kind", ROWS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_come_back_from_parquet_as_they_went_in(tmp_path: Path, kind: type[Row], data: st.DataObject):
    rows = data.draw(rows_of(kind))
    store = Store(tmp_path)
    artefact = store.artefact("test", kind.__name__)
    write_rows(artefact.part(0), rows, kind)
    store.finish(artefact, {})
    assert read_rows(artefact, kind) == rows


@pytest.mark.parametrize("kind", ROWS)
def test_the_schema_is_that_of_the_row(kind: type[Row]):
    schema = arrow_schema(kind)
    assert schema.names == list(kind.__struct_fields__)
    assert schema.names[:3] == ["id", "parents", "stage"]
    assert schema.metadata == {b"row": kind.__name__.encode()}
    optional = {n for n, a in typing.get_type_hints(kind).items() if types.NoneType in typing.get_args(a)}
    assert {f.name for f in schema if f.nullable} == optional


def test_a_seed_does_not_lose_bits(tmp_path: Path):
    assert str(arrow_schema(Sample).field("seed").type) == "int64"
    assert str(arrow_schema(Sample).field("token_ids").type) == "list<item: int32>"


def verdict(i: int) -> VerdictRow:
    return VerdictRow(
        id=f"{i}", parents=[f"s{i}"], stage="verify", sample=f"s{i}", problem="p", outcome="correct",
        extracted=None, detail="",
    )


def test_equal_rows_give_equal_bytes_and_other_rows_do_not(tmp_path: Path):
    rows = [verdict(i) for i in range(50)]
    for name, content in (("a", rows), ("b", list(rows)), ("c", rows[::-1])):
        write_rows(tmp_path / name, content, VerdictRow)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()


def test_shards_are_read_in_order_or_singly(tmp_path: Path):
    store = Store(tmp_path)
    artefact = store.artefact("verify", "k")
    for shard in (1, 0, 2):
        write_rows(artefact.part(shard), [verdict(shard)], VerdictRow)
    store.finish(artefact, {})
    assert [r.id for r in read_rows(artefact, VerdictRow)] == ["0", "1", "2"]
    assert [r.id for r in read_rows(artefact, VerdictRow, [2])] == ["2"]


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_part_is_named_and_not_used(tmp_path: Path, damage: str):
    store = Store(tmp_path)
    artefact: Artefact = store.artefact("verify", "k")
    write_rows(artefact.part(0), [verdict(0)], VerdictRow)
    store.finish(artefact, {})
    if damage == "missing":
        artefact.part(0).unlink()
    else:
        write_rows(artefact.part(0), [verdict(1)], VerdictRow)
    with pytest.raises(InputError) as caught:
        read_rows(artefact, VerdictRow)
    assert str(artefact.part(0)) in str(caught.value)
    assert f"delete the folder {artefact.path}" in str(caught.value)


def test_a_part_can_be_read_by_others(tmp_path: Path):
    write_rows(tmp_path / "x.parquet", [verdict(7)], VerdictRow)
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.to_pylist()[0]["sample"] == "s7"
