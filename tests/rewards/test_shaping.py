"""Shaped and combined rewards."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.shaping import aggregate, aggregated_logit, combined_reward, shaped_reward, sigmoid, single

SCORES = [x / 10 for x in range(-500, 501)]


def test_every_right_answer_outranks_every_wrong_one_in_float32() -> None:
    right = [single(shaped_reward(s, True)) for s in SCORES]
    wrong = [single(shaped_reward(s, False)) for s in SCORES]
    assert min(right) > 0.0 > max(wrong)
    assert min(right) == pytest.approx(1.4e-11, rel=0.02)
    assert right == sorted(right) and wrong == sorted(wrong)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0.01, 10.0))
def test_the_order_holds_for_any_score(a: float, b: float, alpha: float) -> None:
    assert single(shaped_reward(a, True, alpha)) > single(shaped_reward(b, False, alpha))


def test_the_formula_where_nothing_is_lost() -> None:
    for score in (-3.0, -0.82, 0.0, 3.27):
        for correct in (True, False):
            assert shaped_reward(score, correct) == pytest.approx(sigmoid(0.5 * score) + (correct - 1), abs=1e-12)
    assert shaped_reward(3.27, True) == pytest.approx(0.84, abs=0.005)
    assert shaped_reward(-0.82, False) == pytest.approx(-0.60, abs=0.005)


def test_the_combined_reward_of_b_star() -> None:
    assert combined_reward(True, [2.0, -1.0, 4.0]) == pytest.approx(0.8)
    assert combined_reward(False, [2.0, -1.0, 4.0]) == pytest.approx(-0.2)
    assert combined_reward(False, []) == -1.0
    assert combined_reward(False, [8.0]) == pytest.approx(1.6)
    assert combined_reward(False, [8.0], clamp=True) == 1.0
    assert combined_reward(True, [-9.0], clamp=True) == 0.0


def test_steps_are_put_together() -> None:
    steps = [0.0, math.log(3.0), -math.log(3.0)]
    assert aggregate(steps, "minimum") == pytest.approx(0.25)
    assert aggregate(steps, "last") == pytest.approx(0.25)
    assert aggregate(steps, "product") == pytest.approx(0.5 * 0.75 * 0.25)
    with pytest.raises(ValueError, match="without steps"):
        aggregate([], "minimum")


@given(st.lists(st.floats(-20.0, 20.0), min_size=1, max_size=8), st.sampled_from(["minimum", "product", "last"]))
def test_the_logit_of_steps_put_together(steps: list[float], how: str) -> None:
    assert sigmoid(aggregated_logit(steps, how)) == pytest.approx(aggregate(steps, how), rel=1e-9)


def test_the_logit_is_finite_and_keeps_the_order_where_probabilities_round() -> None:
    found = [aggregated_logit([s, 800.0], "product") for s in (-900.0, -50.0, 0.0, 30.0, 36.0)]
    assert found == sorted(found) and len(set(found)) == 5 and all(map(math.isfinite, found))
    assert math.isfinite(aggregated_logit([800.0], "product"))
    with pytest.raises(ValueError, match="without steps"):
        aggregated_logit([], "product")
