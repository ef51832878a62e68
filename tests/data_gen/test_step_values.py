"""Estimators against brute force and known truths, pits, advantages; the search for pits against fixed allocation."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_gen.allocation import Allocation, probe
from data_gen.step_curves import curve_sums, mean_curve, summary, svg
from data_gen.step_values import Tally, advantage_weights, best_of, curve, first_pit, step_advantages, steps_of, tally
from pipelines.statistics import wilson
from tests.data_gen.chains import ToyPolicy, toy_chain, wrong_curve


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n), st.integers(1, n))))
def test_best_of_k_is_the_share_of_subsets_with_a_success(numbers: tuple[int, int, int]) -> None:
    successes, count, k = numbers
    draws = [True] * successes + [False] * (count - successes)
    subsets = list(itertools.combinations(draws, k))
    assert best_of(successes, count, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


@given(st.floats(0.0, 1.0), st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_both_estimators_are_unbiased_exactly(p: float, sizes: tuple[int, int]) -> None:
    """The expectation over the binomial distribution, term by term."""
    n, k = sizes
    chance = [math.comb(n, s) * p**s * (1 - p) ** (n - s) for s in range(n + 1)]
    assert sum(c * best_of(s, n, k) for s, c in enumerate(chance)) == pytest.approx(1 - (1 - p) ** k, abs=1e-9)
    assert sum(c * (Tally(n, n, s).value or 0.0) for s, c in enumerate(chance)) == pytest.approx(p, abs=1e-9)


def test_best_of_needs_enough_draws() -> None:
    with pytest.raises(ValueError, match="best of 5 needs at least 5 draws, not 1 of 4"):
        best_of(1, 4, 5)


@pytest.mark.parametrize("n", [8, 32])
def test_intervals_cover_at_their_nominal_rate(n: int) -> None:
    """Averaged over success probabilities, exactly: Wilson's intervals cover 95 % of the time, at no p far less."""
    places = [0.02 * i for i in range(1, 50)]
    covered = []
    for p in places:
        chance = [math.comb(n, s) * p**s * (1 - p) ** (n - s) for s in range(n + 1)]
        covered.append(sum(c for s, c in enumerate(chance) if wilson(s, n)[0] <= p <= wilson(s, n)[1]))
    assert mean(covered) == pytest.approx(0.95, abs=0.01)
    assert min(covered) > 0.80


@pytest.mark.parametrize(
    ("values", "pit"),
    [([0.5, 0.2, 0.2, 0.4], 1), ([0.0, 0.0, 0.0], 0), ([0.9, 0.5, 0.0, 0.3, 0.0], 2), ([None, 0.3, None, 0.0], 3),
     ([1.0], 0), ([None, None], None), ([], None)],
)  # fmt: skip
def test_the_first_pit_is_the_first_argmin(values: list[float | None], pit: int | None) -> None:
    assert first_pit(values) == pit


@given(st.lists(st.integers(0, 8), min_size=1, max_size=12))
def test_the_pit_is_the_same_for_every_k_that_tells_values_apart(successes: list[int]) -> None:
    """Q is monotone in the success rate: the first argmin of best-of-k attains the lowest rate, and for k = 1 is it."""
    rates = [s / 8 for s in successes]
    assert first_pit([best_of(s, 8, 1) for s in successes]) == first_pit(rates)
    for k in range(2, 9):
        found = first_pit([best_of(s, 8, k) for s in successes])
        assert found is not None and best_of(successes[found], 8, k) == best_of(min(successes), 8, k)


def test_what_could_not_be_judged_counts_in_neither() -> None:
    assert tally(["correct", "wrong", "timeout", "no_answer", "error", "bad_gold"]) == Tally(6, 3, 1)
    assert Tally(3, 0, 0).value is None


def test_steps_of_a_wrong_sample() -> None:
    """Values, advantages under best of 2, the pit; the value after the last step is the verdict."""
    c = toy_chain("p#0", 4)
    tallies = {"p#0/0": Tally(4, 4, 3), "p#0/1": Tally(4, 4, 2), "p#0/2": Tally(4, 4, 0), "p#0/3": Tally(1, 1, 1)}
    found = curve(c, tallies, 4, 2, wilson)
    steps = steps_of(c, found, 4, {"p#0/2": Tally(16, 16, 1)}, wilson)
    assert [s.value for s in steps] == [0.5, 0.0, 1.0, 0.0] and [s.rollouts for s in steps] == [4, 4, 1, 0]
    assert [s.pit for s in steps] == [False, True, False, False] and found.pit == 1
    assert steps[0].advantage == pytest.approx(5 / 6 - 1.0) and steps[1].advantage == pytest.approx(-5 / 6)
    assert steps[2].advantage is None and steps[3].advantage is None  # one rollout says nothing of best of 2
    assert [s.stopped for s in steps] == [False, False, True, False] and [s.final for s in steps] == [False] * 3 + [True]
    assert (steps[1].check_successes, steps[1].check_rollouts) == (1, 16) and steps[0].check_rollouts is None
    assert (steps[0].low, steps[0].high) == wilson(2, 4) and (steps[3].low, steps[3].high) == (0.0, 0.0)


def test_a_probe_that_was_left_is_no_pit() -> None:
    c = toy_chain("p#0", 4)
    found = curve(c, {"p#0/1": Tally(2, 2, 0), "p#0/2": Tally(2, 2, 1), "p#0/3": Tally(8, 8, 0)}, 8, 5, wilson)
    assert found.pit == 2 and found.values[1] == 0.0


def test_steps_without_progress_in_right_samples_are_listed() -> None:
    """Values 2/8, 6/8, 6/8, 8/8, 8/8, right: the second step gains nothing; the fourth had nothing to gain."""
    c = toy_chain("p#0", 5, correct=True)
    tallies = {f"p#0/{i}": Tally(8, 8, s) for i, s in enumerate((2, 6, 6, 8, 8))}
    found = curve(c, tallies, 8, 5, wilson)
    steps = steps_of(c, found, 8, {}, wilson)
    assert found.pit is None and [s.index for s in steps if s.spurious] == [1]
    assert steps[-1].value == 1.0 and not any(s.pit for s in steps)
    weights = advantage_weights(steps, 6, 0.5)
    assert len(weights) == 6 and weights[4] == weights[5]  # the end token goes with the last step
    for s in steps:
        assert s.advantage is not None and weights[s.start] == pytest.approx(math.exp(s.advantage / 0.5))


def _errors(values: dict[str, list[float]], runs: int, allocation: Allocation) -> tuple[float, float]:
    """Share of wrong pits, and rollouts a sample, over samples with the given true values."""
    wrong = drawn = 0
    for seed in range(runs):
        chains = [toy_chain(name, len(v) - 1) for name, v in values.items()]
        policy = ToyPolicy({f"{name}/{i}": p for name, v in values.items() for i, p in enumerate(v)}, seed)
        tallies, _ = policy.run(chains, allocation)
        drawn += policy.drawn
        for c in chains:
            truth = values[c.sample.id].index(0.0) - 1
            wrong += curve(c, tallies, allocation.n, 1, wilson).pit != truth
    return wrong / (runs * len(values)), drawn / (runs * len(values))


def test_the_search_needs_at_most_half_of_the_rollouts_and_errs_no_more() -> None:
    rng = random.Random(5)
    values = {f"p{i}#0": wrong_curve(rng, rng.randint(3, 10)) for i in range(150)}
    fixed, all_drawn = _errors(values, 6, Allocation(8))
    search, drawn = _errors(values, 6, Allocation(8, sequential=True))
    assert search <= fixed and drawn <= 0.5 * all_drawn
    print(f"fixed {fixed:.3f} with {all_drawn:.1f}, sequential {search:.3f} with {drawn:.1f} rollouts a sample")


def test_pits_are_found_at_the_rate_that_follows_from_the_values() -> None:
    """Fixed allocation errs exactly when a state before the pit shows no success in n draws."""
    rng = random.Random(6)
    values = {f"p{i}#0": wrong_curve(rng, 6) for i in range(200)}
    expected = mean(1 - math.prod(1 - (1 - p) ** 8 for p in v[1 : v.index(0.0)]) for v in values.values())
    found, _ = _errors(values, 5, Allocation(8))
    assert found == pytest.approx(expected, abs=0.015)


@given(st.integers(0, 10**6), st.integers(1, 14), st.integers(1, 12), st.integers(1, 5))
def test_the_search_ends_at_a_state_that_is_dead_after_one_that_is_alive(seed: int, steps: int, n: int, batch: int) -> None:
    rng = random.Random(seed)
    values = [rng.choice([0.0, 0.1, 0.6, 1.0]) for _ in range(steps + 1)]  # not monotone
    c = toy_chain("p#0", steps)
    policy = ToyPolicy({f"p#0/{i}": v for i, v in enumerate(values)}, seed)
    tallies, rounds = policy.run([c], Allocation(n, True, batch))
    pit = curve(c, tallies, n, 1, wilson).pit
    assert pit is not None
    dead = tallies.get(c.states[pit + 1])
    assert pit == steps - 1 or (dead is not None and dead.drawn == n and not dead.successes)
    assert pit == 0 or tallies[c.states[pit]].successes  # the step pair's chosen side is there
    assert policy.drawn <= n * max(0, steps - 1) and rounds <= (n + 1) * steps


def test_states_are_shared_and_right_samples_are_drawn_in_full() -> None:
    a, b = toy_chain("p#0", 5), toy_chain("p#1", 6, shared=["p#0/0", "p#0/1", "p#0/2"])
    right = toy_chain("p#2", 4, correct=True, shared=["p#0/0", "p#0/1"])
    values = {s: 0.5 for c in (a, b, right) for s in c.states}
    for sequential in (False, True):
        policy = ToyPolicy(values, 1)
        tallies, rounds = policy.run([a, b, right], Allocation(8, sequential), roots=True)
        assert {tallies[s].drawn for s in right.states[:-1]} == {8}
        if not sequential:
            assert rounds == 1 and policy.drawn == 8 * len({s for c in (a, b, right) for s in c.states[:-1]})


def test_the_split_follows_the_costs() -> None:
    """Equal costs halve; the dearer a dead state, the nearer to the live end the probe."""
    assert Allocation(2).forward == pytest.approx(0.5)
    assert [round(Allocation(n).forward, 2) for n in (8, 32)] == [0.28, 0.12]
    states = [f"s{i}" for i in range(1, 20)]
    assert probe(states, {}, Allocation(8)) == "s5"
    assert probe(states, {"s5": Tally(1, 1, 1), "s7": Tally(8, 8, 0)}, Allocation(8)) == "s6"
    assert probe(states, {"s5": Tally(1, 1, 1), "s6": Tally(8, 8, 0)}, Allocation(8)) is None


def test_curves_for_the_report() -> None:
    c = toy_chain("p#0", 2)
    found = curve(c, {"p#0/0": Tally(8, 8, 4), "p#0/1": Tally(8, 8, 0)}, 8, 2, wilson)
    data = summary(c, found, 2, wilson)
    assert [p["value"] for p in data["points"]] == [0.5, 0.0, 0.0] and data["pit"] == 0
    low, high = wilson(4, 8)
    assert data["points"][0]["best_of_low"] == pytest.approx(1 - (1 - low) ** 2)
    assert data["points"][0]["high"] == high and data["points"][2]["low"] == 0.0
    sums = Counter(curve_sums([0.5, None, 0.0], "wrong")) + Counter(curve_sums([1.0, 0.25, 0.0], "wrong"))
    assert mean_curve(sums, "wrong")[:2] == [
        {"place": 0.0, "value": 0.75, "count": 2}, {"place": 0.5, "value": 0.25, "count": 1}
    ]  # fmt: skip
    assert mean_curve(sums, "right") == []
    drawn = svg([data])
    assert drawn.count("<polyline") == 2 and drawn.count("<circle") == 1  # the sample and its class's mean
    assert svg([]).count("<polyline") == 0


def test_step_advantages_by_hand() -> None:
    """Steps of 2, 1 and 3 tokens: values 0.5 -> 0.75 -> 0.25 -> 1."""
    assert step_advantages([2, 3, 6], [0.5, 0.75, 0.25, 1.0]) == [0.25, 0.25, -0.5, 0.75, 0.75, 0.75]
    # a value that nobody could tell joins the steps on its sides
    assert step_advantages([2, 3, 6], [0.5, None, 0.25, 1.0]) == [-0.25, -0.25, -0.25, 0.75, 0.75, 0.75]
    assert step_advantages([2, 3, 6], [0.5, None, None, 1.0]) == [0.5] * 6
    for values in ([None, 1.0], [1.0, None]):
        with pytest.raises(ValueError, match="must be known"):
            step_advantages([2], values)


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=8).flatmap(
        lambda sizes: st.tuples(
            st.just(sizes), st.lists(st.none() | st.floats(0, 1), min_size=len(sizes) - 1, max_size=len(sizes) - 1),
            st.floats(-1, 1), st.floats(-1, 1),
        )
    )
)  # fmt: skip
def test_step_advantages_add_up_to_the_reward_less_the_value_of_the_prompt(
    case: tuple[list[int], list[float | None], float, float],
) -> None:
    sizes, inner, prompt, reward = case
    found = step_advantages(list(itertools.accumulate(sizes)), [prompt, *inner, reward])
    starts = [0, *itertools.accumulate(sizes)][:-1]
    known = [0, *(start for start, v in zip(starts[1:], inner, strict=True) if v is not None)]
    assert len(found) == sum(sizes)
    assert sum(found[start] for start in known) == pytest.approx(reward - prompt, abs=1e-9)
