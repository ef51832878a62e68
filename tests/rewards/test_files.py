"""Judging a file: order, counts, and refusals that leave nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.errors import InputError
from rewards import verify_file

ROWS = [
    {"id": "a", "gold": "1/2", "prediction": r"\boxed{0.5}"},
    {"id": "b", "gold": "3", "prediction": "The answer is 3."},
    {"id": "c", "gold": "3", "prediction": "The answer is 3.", "mode": "lenient"},
    {"id": 4, "gold": 5, "prediction": r"\boxed{6}"},
    {"id": "e", "gold": "", "prediction": r"\boxed{6}"},
]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_keep_their_order(tmp_path: Path, workers: int) -> None:
    source = write(tmp_path / "in.jsonl", ROWS)
    counts = verify_file(source, tmp_path / "out.jsonl", workers=workers)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["a", "b", "c", 4, "e"]
    assert [row["outcome"] for row in rows] == ["correct", "no_answer", "correct", "wrong", "bad_gold"]
    assert list(rows[0]) == ["id", "outcome", "extracted", "rule", "seconds"]
    assert counts == {"correct": 2, "wrong": 1, "no_answer": 1, "bad_gold": 1, "timeout": 0, "error": 0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "expected an object"),
        ('{"id": 1, "gold": "2"}', "missing prediction"),
        ('{"id": 1, "gold": ["2"], "prediction": "2"}', "gold must be text, not list"),
        ('{"id": 1, "gold": "2", "prediction": null}', "prediction must be text, not NoneType"),
        ('{"id": 1, "gold": "2", "prediction": "2", "mode": "loose"}', "mode must be strict or lenient"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(tmp_path: Path, line: str, message: str) -> None:
    source = write(tmp_path / "in.jsonl", ROWS)
    source.write_text(source.read_text() + line + "\n")
    with pytest.raises(InputError, match=message) as caught:
        verify_file(source, tmp_path / "out.jsonl")
    assert "in.jsonl:6" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_missing_and_undecodable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        verify_file(tmp_path / "none.jsonl", tmp_path / "out.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": 1, "gold": "\xe9", "prediction": "2"}\n')
    with pytest.raises(InputError, match="not UTF-8"):
        verify_file(tmp_path / "latin.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="mode must be"):
        verify_file(write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl", mode="x")  # type: ignore[arg-type]
    with pytest.raises(InputError):
        verify_file(tmp_path / "in.jsonl", tmp_path / "no" / "folder" / "out.jsonl")
