"""Sequential allocation: what it drops cannot win, what it costs stays in the budget."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.bstar import race, simulated
from pipelines.allocation import Race, affordable, drop, influence, round_ends, upper_bound
from pipelines.balance import Pool, Rule, caps_of, per_query, surface

RULE = Rule(4, (-0.1, 0.0, 0.1), 8)


def pool(correct: list[int], n: int = 8) -> Pool:
    """One query for each number of correct, different responses out of n."""
    queries = len(correct)
    flags = np.array([[i < c for i in range(n)] for c in correct])
    return Pool(
        np.repeat(np.arange(queries), n), flags.astype(float).ravel(), flags.ravel(), np.tile(np.arange(n), queries), queries
    )


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6, unique=True).map(sorted), st.integers(1, 700))
def test_rounds_grow_and_end_with_all_queries(fractions: list[float], queries: int):
    if queries < len(fractions):
        with pytest.raises(ValueError, match="do not make"):
            round_ends(fractions, queries)
        return
    ends = round_ends(fractions, queries)
    assert ends[-1] == queries and ends[0] > 0
    assert all(b > a for a, b in itertools.pairwise(ends))


@pytest.mark.parametrize("temperatures", [2, 3, 4, 8, 15])
@pytest.mark.parametrize("queries", [40, 600])
def test_the_budget_holds_when_nothing_is_ever_ruled_out(temperatures: int, queries: int):
    setting = Race(tuple(float(i) for i in range(temperatures)), round_ends((0.125, 0.25, 0.5, 1.0), queries), 0.05, 0.5)
    alive, used, before = temperatures, 0, 0
    for end in setting.ends:
        used += alive * (end - before)
        before = end
        alive = affordable(alive, setting, used, end)
    few = max(0.5, (1 + (temperatures - 1) / 8) / temperatures)  # the first round and one finalist
    assert used <= few * temperatures * queries + temperatures * 4
    if temperatures >= 4 and queries == 600:
        assert used <= 0.5 * temperatures * queries


def test_a_hopeless_temperature_goes_and_a_near_one_stays():
    setting = Race((0.5, 1.0, 1.5), (60, 120), 0.05, 1.0)
    rng = np.random.default_rng(0)
    good = rng.integers(2, 5, 60).tolist()
    pools = {0.5: pool(good), 1.0: pool([g + int(rng.integers(-1, 2)) for g in good]), 1.5: pool([0] * 60)}
    gone = drop(pools, RULE, "all", 1, setting, 180)
    assert [(g.temperature, g.reason) for g in gone] == [(1.5, "cannot win")]
    assert gone[0].bound < 0


def test_few_queries_that_agree_drop_nothing():
    setting = Race((0.5, 1.0), (3, 600), 0.05, 1.0)
    assert drop({0.5: pool([4, 4, 4]), 1.0: pool([0, 0, 0])}, RULE, "all", 1, setting, 6) == []


def test_the_bound_shrinks_to_the_mean_when_all_queries_are_drawn():
    d = np.full((100, 1), -0.5)
    assert upper_bound(d, 3.0, 100) == pytest.approx((-50 + 1) / 101)
    assert upper_bound(d, 3.0, 10_000) > upper_bound(d, 3.0, 200)


@given(st.lists(st.integers(0, 8), min_size=2, max_size=12), st.sampled_from(["all", "kept"]))
@settings(deadline=None)
def test_the_linearised_values_average_to_the_score(correct: list[int], average: str):
    rule = Rule(4, (0.0, 0.5), 8, average=average)  # type: ignore[arg-type]
    p = pool(correct)
    s = surface(p, rule)
    caps = caps_of(s, "all", 1)
    values = influence(*per_query(p, rule, caps), rule)
    assert values.mean(axis=0) == pytest.approx(s.score[:, -1], abs=1e-9)


@pytest.mark.parametrize("scored", [False, True])
def test_simulated_sweeps_choose_as_the_grid_does_for_half_its_samples(scored: bool):
    rule = Rule(6, (-0.1, 0.0, 0.1), 16)
    outcomes = [race(simulated(np.random.default_rng(1000 + w), 300, 16, scored), rule, 0.5) for w in range(20)]
    assert max(o.share for o in outcomes) <= 0.51
    assert sum(o.same_temperature for o in outcomes) >= 17
    assert max(o.loss for o in outcomes) < 0.02


def test_without_a_budget_only_what_cannot_win_goes():
    outcomes = [race(simulated(np.random.default_rng(w), 300, 16, False), Rule(6, (0.0,), 16), 1.0) for w in range(20)]
    assert all(o.same for o in outcomes) and not any(o.dropped_by_budget for o in outcomes)
    assert sum(o.share for o in outcomes) / 20 < 0.85
