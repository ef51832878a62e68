from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.statistics import bootstrap_mean, clustered, mcnemar, paired_bootstrap, paired_difference, wilson


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
    calls = (
        lambda: wilson(0, 0), lambda: bootstrap_mean([], 0), lambda: paired_difference([1.0], [], 0),
        lambda: clustered([], 0), lambda: clustered([0.5, 0.5], 1), lambda: paired_bootstrap([], [], 0),
        lambda: paired_bootstrap([1.0], [], 0),
    )
    for call in calls:
        with pytest.raises(ValueError, match="problems"):
            call()


# --- several answers to a problem -----------------------------------------------------------------


def test_the_clustered_interval_golden():
    """Variance: OLS on a constant with standard errors clustered by problem (statsmodels 0.15, times N / (N - 1));
    the interval: its proportion_confint(method="wilson") at the effective number of answers, 13.7755."""
    shares = [right / 4 for right in (4, 0, 1, 2, 4, 0, 0, 3, 1, 0)]
    assert clustered(shares, 40) == pytest.approx((0.17455206618011934, 0.6299615509933523), abs=1e-12)


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_one_answer_a_problem_is_wilsons_interval(right: list[bool]):
    assert clustered([float(r) for r in right], len(right)) == pytest.approx(wilson(sum(right), len(right)), abs=1e-12)


@given(st.integers(1, 60).flatmap(lambda n: st.lists(st.integers(0, 8), min_size=n, max_size=n)))
def test_the_clustered_interval_lies_between_all_answers_counted_and_problems_counted(right: list[int]):
    shares, n = [r / 8 for r in right], len(right)
    low, high = clustered(shares, 8 * n)
    mean = sum(shares) / n
    assert 0.0 <= low <= mean + 1e-12 <= high + 2e-12 <= 1.0 + 3e-12
    assert (low, high) == pytest.approx(tuple(1 - x for x in reversed(clustered([1 - s for s in shares], 8 * n))), abs=1e-9)
    narrow, wide = wilson(sum(right), 8 * n), (clustered([mean] * n, n))
    assert narrow[1] - narrow[0] <= high - low + 1e-9 <= wide[1] - wide[0] + 2e-9


def test_no_right_answer_leaves_room_as_many_problems_would():
    assert clustered([0.0] * 10, 160) == pytest.approx((0.0, 0.2775), abs=5e-5)  # as wilson(0, 10), not (0, 160)
    assert clustered([1.0] * 10, 160) == pytest.approx((0.7225, 1.0), abs=5e-5)


def test_answers_to_one_problem_count_as_one():
    low, high = clustered([0.75], 4)
    assert (low, high) == clustered([0.75], 400)
    assert high - low > wilson(3, 4)[1] - wilson(3, 4)[0]


@pytest.mark.parametrize(("n", "m", "a", "b"), [(40, 1, 0.3, 0.7), (40, 8, 0.3, 0.7), (60, 4, 0.1, 1.5), (60, 16, 5.0, 1.0)])
def test_the_clustered_interval_covers_95_times_in_100_where_the_naive_one_does_not(n: int, m: int, a: float, b: float):
    """Problems with solve rates from a beta distribution, m samples each."""
    rng, trials = random.Random(11), 600
    hits = naive = 0
    for _ in range(trials):
        right = [sum(rng.random() < rate for _ in range(m)) for rate in (rng.betavariate(a, b) for _ in range(n))]
        low, high = clustered([r / m for r in right], n * m)
        hits += low <= a / (a + b) <= high
        low, high = wilson(sum(right), n * m)
        naive += low <= a / (a + b) <= high
    assert 0.92 <= hits / trials <= 0.985
    if m >= 8:
        assert naive / trials < 0.85


# --- two models on the same problems --------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [  # scipy 1.17, binomtest(min, n, 0.5).pvalue; the same from statsmodels 0.15, mcnemar(exact=True)
        (0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (2, 9, 0.0654296875), (9, 2, 0.0654296875), (10, 10, 1.0),
        (3, 17, 0.0025768280029296875), (0, 12, 0.00048828125), (43, 60, 0.11446824201255819),
        (120, 171, 0.0033087986331269033),
    ],
)  # fmt: skip
def test_mcnemar_golden(lost: int, won: int, p: float):
    assert mcnemar(lost, won) == pytest.approx(p, rel=1e-12)


@given(st.integers(0, 6), st.integers(0, 6))
def test_mcnemar_counts_the_outcomes_of_fair_coins_that_are_as_uneven(lost: int, won: int):
    n = lost + won
    uneven = sum(abs(2 * sum(flips) - n) >= abs(won - lost) for flips in itertools.product((0, 1), repeat=n))
    assert mcnemar(lost, won) == pytest.approx(uneven / 2**n, rel=1e-12)
    assert mcnemar(lost, won) == mcnemar(won, lost)
    assert 0.0 < mcnemar(lost, won) <= 1.0


def test_mcnemar_of_many_problems_and_of_bad_counts():
    assert mcnemar(3000, 3000) == 1.0
    assert 0.0 < mcnemar(2500, 3500) < 1e-36
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 3)


def test_the_paired_bootstrap_agrees_with_the_exact_test_and_is_symmetric():
    before = [float(i % 2) for i in range(300)]
    after = [1.0 if i < 36 else v for i, v in enumerate(before)]
    after[51] = after[53] = after[55] = after[57] = after[59] = after[61] = after[63] = after[65] = 0.0
    exact, p = mcnemar(8, 18), paired_bootstrap(before, after, seed=0)
    assert exact == pytest.approx(0.0755, abs=1e-3)
    assert p == pytest.approx(exact, abs=0.035)
    assert p == paired_bootstrap(before, after, seed=0)
    assert paired_bootstrap(after, before, seed=0) == pytest.approx(p, abs=0.02)


def test_the_paired_bootstrap_of_equals_and_of_a_sure_thing():
    values = [0.25, 0.5, 1.0, 0.0] * 10
    assert paired_bootstrap(values, values, seed=0) == 1.0
    assert paired_bootstrap([0.0] * 40, [0.0, 1.0] * 20, seed=0) == pytest.approx(1 / 2001)


def test_the_paired_bootstrap_errs_five_times_in_a_hundred_when_nothing_differs():
    rng, wrong = random.Random(5), 0
    for trial in range(200):
        rates = [rng.random() for _ in range(40)]
        before, after = ([sum(rng.random() < r for _ in range(4)) / 4 for r in rates] for _ in range(2))
        wrong += paired_bootstrap(before, after, seed=trial, rounds=400) < 0.05
    assert 2 <= wrong <= 20
