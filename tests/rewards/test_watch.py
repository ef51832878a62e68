"""Agreement between scores and verdicts, by brute force, and the alarm."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.watch import agreement, auc, rise

SCORES = st.lists(st.integers(0, 5).map(float), max_size=8)


@given(SCORES, SCORES)
def test_auc_is_the_share_of_pairs(right: list[float], wrong: list[float]) -> None:
    pairs = [(r > w) + 0.5 * (r == w) for r in right for w in wrong]
    assert auc(right, wrong) == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


@given(st.lists(st.tuples(st.integers(0, 3).map(float), st.booleans()), min_size=1, max_size=7))
def test_agreement_is_the_mean_over_all_ways_to_break_ties(samples: list[tuple[float, bool]]) -> None:
    scores, correct = [s for s, _ in samples], [c for _, c in samples]
    n, c = len(samples), sum(correct)
    best = max(sum(scores[i] for i in chosen) for chosen in itertools.combinations(range(n), c))
    ways = [set(chosen) for chosen in itertools.combinations(range(n), c) if sum(scores[i] for i in chosen) == best]
    shares = [sum((i in way) == correct[i] for i in range(n)) / n for way in ways]
    assert agreement(scores, correct) == pytest.approx(sum(shares) / len(shares))


def test_a_rise_beyond_chance_alarms() -> None:
    before = [0.1, -0.2, 0.0, 0.3, -0.1, 0.05]
    assert rise(before, [x + 1.0 for x in before]) == (pytest.approx(1.0), True)
    assert rise(before, [x + 0.01 for x in before]) == (pytest.approx(0.01), False)
    assert rise(before, [x - 1.0 for x in before])[1] is False
    assert rise([], before) == (0.0, False) and rise([0.0], [9.0])[1] is False
