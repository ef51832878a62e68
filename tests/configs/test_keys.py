from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.keys import canonical, content_key, derive_seed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def reversed_dicts(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: reversed_dicts(v) for k, v in reversed(value.items())}
    return [reversed_dicts(v) for v in value] if isinstance(value, list) else value


@given(JSON)
def test_a_key_does_not_depend_on_the_order_of_dict_keys(value: Any):
    assert content_key(value) == content_key(reversed_dicts(value))


@given(JSON, JSON)
def test_different_values_have_different_keys(a: Any, b: Any):
    assert (content_key(a) == content_key(b)) == (canonical(a) == canonical(b))


def test_keys_are_what_they_were():
    """Golden: if this changes, every artefact of every user is computed again."""
    assert content_key("sample", 1, {"n": 4, "t": 0.5}) == "4e28c0cf98aa91b41085c9abe48c9d1a"
    assert derive_seed(0, "key", "id", 3) == 932932097006536667


def test_where_a_part_ends_matters():
    assert content_key("ab", "c") != content_key("a", "bc")
    assert content_key([1], 2) != content_key([1, 2])
    assert content_key("1") != content_key(1)


@given(st.integers(), st.text(max_size=8), st.integers(0, 99))
def test_seeds_are_in_range_and_differ_by_sample(seed: int, row: str, index: int):
    one, other = derive_seed(seed, row, index), derive_seed(seed, row, index + 1)
    assert 0 <= one < 2**63
    assert one != other
    assert one == derive_seed(seed, row, index)


def test_seeds_do_not_collide_over_a_run():
    seeds = {derive_seed(0, f"p{row}", index) for row in range(500) for index in range(8)}
    assert len(seeds) == 4000


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_equal_nothing_have_no_key(value: float):
    with pytest.raises(ValueError):
        content_key(value)
