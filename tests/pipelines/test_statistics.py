from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.statistics import bootstrap_mean, paired_difference, wilson


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [
        (10, 100, 0.0552, 0.1744), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 1, 0.2065, 1.0),
        (15, 148, 0.0624, 0.1605),  # Newcombe 1998, table I
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
    ],
)
def test_wilson_golden(correct: int, count: int, low: float, high: float):
    assert wilson(correct, count) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_lies_within_the_unit_interval_and_holds_the_proportion(case: tuple[int, int]):
    low, high = wilson(*case)
    share = case[0] / case[1]
    assert 0.0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1.0
    mirrored = wilson(case[1] - case[0], case[1])
    assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]), abs=1e-12)


def test_the_bootstrap_is_deterministic_and_seeded():
    values = [i / 50 for i in range(50)]
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_the_bootstrap_covers_the_true_mean_about_95_times_in_100():
    rng = random.Random(3)
    hits = 0
    for trial in range(150):
        values = [rng.random() for _ in range(40)]
        low, high = bootstrap_mean(values, seed=trial, rounds=300)
        hits += low <= 0.5 <= high
    assert 0.88 <= hits / 150 <= 0.99


def test_the_bootstrap_agrees_with_the_normal_interval_on_many_problems():
    values = [float(i % 2) for i in range(400)]
    low, high = bootstrap_mean(values, seed=0)
    assert (low, high) == pytest.approx((0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025), abs=0.006)


def test_a_constant_has_no_spread():
    assert bootstrap_mean([0.25] * 9, seed=0) == (0.25, 0.25)


def test_the_paired_difference_sees_what_two_intervals_would_not():
    before = [float(i % 2) for i in range(200)]
    after = [1.0 if i % 10 == 0 else v for i, v in enumerate(before)]
    mean, low, high = paired_difference(before, after, seed=0)
    assert mean == pytest.approx(0.1)
    assert 0.05 < low < mean < high < 0.15
    swapped = paired_difference(after, before, seed=0)
    assert swapped[0] == -mean
    assert swapped[2] < 0


def test_no_problems_or_other_problems_are_an_error():
    for call in (lambda: wilson(0, 0), lambda: bootstrap_mean([], 0), lambda: paired_difference([1.0], [], 0)):
        with pytest.raises(ValueError, match="problems"):
            call()
