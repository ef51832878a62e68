"""The batch sizes that the vLLM engine captures graphs for."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from data_gen.engine_vllm import graph_sizes


def test_known_sizes() -> None:
    assert graph_sizes(1) == [1]
    assert graph_sizes(20) == [1, 2, 3, 4, 6, 8, 12, 16, 20]


@given(st.integers(1, 4096))
def test_a_batch_is_padded_by_half_at_most(batch: int) -> None:
    sizes = graph_sizes(batch)
    assert sizes == sorted(set(sizes)) and sizes[0] == 1 and sizes[-1] == batch
    assert all(larger <= max(1.5 * smaller, smaller + 1) for smaller, larger in itertools.pairwise(sizes))
