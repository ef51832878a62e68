"""Votes and best-of-k against brute force over all subsets, and by hand."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.voting import (
    best_at_k,
    group_equal,
    majority_at_k,
    pass_at_k,
    powers,
    weighted_at_k,
    weighted_majority,
)


@st.composite
def samples(draw: st.DrawFn) -> tuple[list[float], list[int | None], list[float], int]:
    """Up to 8 samples with few answers and few distinct scores, so that ties are common; right by answer."""
    n = draw(st.integers(1, 8))
    groups = draw(st.lists(st.sampled_from([None, 0, 1, 2, 3]), min_size=n, max_size=n))
    right = draw(st.sets(st.integers(0, 3), max_size=2))
    scores = draw(st.lists(st.sampled_from([0.0, 0.5, 0.25, 2.0, 3.0]), min_size=n, max_size=n))
    return [float(g in right) for g in groups], groups, scores, draw(st.integers(1, n))


def mean_over_subsets(n: int, k: int, value) -> float:  # type: ignore[no-untyped-def]
    values = [value(s) for s in itertools.combinations(range(n), k)]
    return sum(values) / len(values)


def accuracy_of(correct: list[float], groups: list[int | None], answer: int) -> float:
    mine = [c for c, g in zip(correct, groups, strict=True) if g == answer]
    return sum(mine) / len(mine)


@settings(max_examples=300, deadline=None)
@given(samples())
def test_everything_equals_brute_force(drawn: tuple[list[float], list[int | None], list[float], int]) -> None:
    correct, groups, scores, k = drawn
    n = len(correct)

    def best(subset: tuple[int, ...]) -> float:
        tied = [i for i in subset if scores[i] == max(scores[j] for j in subset)]
        return sum(correct[i] for i in tied) / len(tied)

    def vote(weights: list[float]):  # type: ignore[no-untyped-def]
        def winner(subset: tuple[int, ...]) -> float:
            sums: dict[int, float] = {}
            for i in subset:
                if (g := groups[i]) is not None:
                    sums[g] = sums.get(g, 0.0) + weights[i]
            tied = [g for g in sums if sums[g] == max(sums.values())]
            return sum(accuracy_of(correct, groups, g) for g in tied) / len(tied) if tied else 0.0

        return winner

    assert pass_at_k(correct, k) == pytest.approx(mean_over_subsets(n, k, lambda s: float(any(correct[i] for i in s))))
    assert best_at_k(correct, scores, k) == pytest.approx(mean_over_subsets(n, k, best))
    assert majority_at_k(correct, groups, k) == pytest.approx(mean_over_subsets(n, k, vote([1.0] * n)))
    assert weighted_at_k(correct, groups, scores, k) == pytest.approx(mean_over_subsets(n, k, vote(scores)))
    assert weighted_at_k(correct, groups, [1.0] * n, k) == pytest.approx(majority_at_k(correct, groups, k))


def test_an_answer_with_mixed_verdicts_counts_with_their_mean() -> None:
    assert majority_at_k([1.0, 0.0, 0.0], [0, 0, 1], 3) == pytest.approx(0.5)
    assert weighted_at_k([1.0, 0.0, 0.0], [0, 0, 1], [1.0, 1.0, 1.0], 3) == pytest.approx(0.5)


def test_by_hand() -> None:
    correct, scores = [1.0, 0.0, 0.0, 1.0], [0.9, 0.8, 0.1, 0.1]
    assert pass_at_k(correct, 2) == pytest.approx(5 / 6)
    # subsets of two by their best: 0 in three of six, 1 in two, the tied last two once
    assert best_at_k(correct, scores, 2) == pytest.approx((3 * 1.0 + 2 * 0.0 + 1 * 0.5) / 6)
    assert majority_at_k(correct, [7, 5, 5, 7], 3) == pytest.approx(0.5)
    assert majority_at_k(correct, [7, 5, 6, 7], 4) == 1.0
    assert majority_at_k([0.0, 0.0], [None, None], 1) == 0.0


def test_k_of_one_is_the_mean_and_k_of_n_is_a_single_subset() -> None:
    correct, groups = [1.0, 0.0, 1.0, 0.0, 0.0], [0, 1, 0, 2, 3]
    for figure in (pass_at_k(correct, 1), best_at_k(correct, [3, 1, 4, 1, 5], 1), majority_at_k(correct, groups, 1)):
        assert figure == pytest.approx(0.4)
    assert best_at_k(correct, [3, 1, 4, 1, 5], 5) == 0.0
    assert majority_at_k(correct, groups, 5) == pytest.approx(1.0)


def test_many_samples_keep_their_precision() -> None:
    """1,000 samples: the exact answer for two answers is a hypergeometric tail."""
    n, right, k = 1000, 600, 101
    correct = [1.0] * right + [0.0] * (n - right)
    tail = sum(math.comb(right, i) * math.comb(n - right, k - i) for i in range(k // 2 + 1, k + 1))
    assert majority_at_k(correct, [0] * right + [1] * (n - right), k) == pytest.approx(tail / math.comb(n, k), rel=1e-9)


def test_too_many_subsets_for_a_weighted_vote_are_said_so() -> None:
    correct = [1.0, 0.0] * 20
    assert weighted_at_k(correct, [0, 1] * 20, [1.0] * 40, 20) is None
    assert weighted_at_k(correct, [0, 1] * 20, [2.0, 1.0] * 20, 40) == 1.0
    with pytest.raises(ValueError, match="negative"):
        weighted_at_k([1.0], [0], [-1.0], 1)


@pytest.mark.parametrize("k", [0, 4])
def test_k_out_of_range(k: int) -> None:
    with pytest.raises(ValueError, match="between 1 and the 3 samples"):
        pass_at_k([1.0, 0.0, 0.0], k)


def test_weighted_majority_prefers_weight_to_number() -> None:
    assert weighted_majority([0, 0, 1, None], [0.1, 0.2, 0.9, 5.0]) == 1
    assert weighted_majority([None], [1.0]) is None


def test_answers_of_equal_value_vote_together() -> None:
    answers = ["1/2", "0.5", None, "\\frac{1}{2}", "2", "2.0", "x+1", "1+x", "?"]
    assert group_equal(answers) == [0, 0, None, 0, 1, 1, 2, 2, 3]
    assert group_equal(["1/2", "0.5", " 1/2 "], "text") == [0, 1, 0]


def test_powers() -> None:
    assert powers(1) == [1] and powers(8) == [1, 2, 4, 8] and powers(6) == [1, 2, 4, 6]
