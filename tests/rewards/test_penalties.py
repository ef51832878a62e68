"""Penalised patterns, and the reward that a verifier and a reward model give together."""

from __future__ import annotations

import pytest

from rewards.penalties import penalty
from rewards.shaping import shaped_reward

CALM = [-0.3] * 20
GOOD = "There are 4 * 12 = 48 rolls. After the sale 48 - 30 = 18 rolls are left. π = 3.14.\n#### 18"


@pytest.mark.parametrize(
    ("text", "logprobs", "truncated", "reason"),
    [
        (GOOD, CALM, False, None),
        (GOOD, CALM, True, "overlong"),
        ("So the answer is " + "7, and so it is " * 9, CALM, False, "repetition"),
        (" ".join(["so we add two and two and get four then"] * 6 + ["18"]), CALM, False, "repetition"),
        ("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16", CALM, False, None),
        ("0.3333333333333333", CALM, False, None),
        ("Answer \ufffd 18", CALM, False, "garbage"),
        ("The answer это восемнадцать 18", CALM, False, "garbage"),
        (GOOD, [-9.0] * 20, False, "garbage"),
        ("", CALM, False, None),
    ],
)
def test_patterns_are_found_with_their_reason(text: str, logprobs: list[float], truncated: bool, reason: str | None) -> None:
    assert penalty(text, "How many rolls are left?", logprobs, truncated) == reason


def test_the_script_of_the_question_is_no_garbage_and_unwanted_reasons_are_not_looked_for() -> None:
    assert penalty("Ответ восемнадцать", "Сколько будет?", CALM, False) is None
    assert penalty(GOOD, "?", CALM, True, ["repetition"]) is None


def test_shaped_rewards_put_every_right_answer_above_every_wrong_one() -> None:
    """Golden: 0.5 * 3.27 and 0.5 * -0.82 are typical logits of Qwen2.5-Math-RM."""
    assert shaped_reward(3.27, True) == pytest.approx(0.8369, abs=1e-4)
    assert shaped_reward(-0.82, False) == pytest.approx(-0.6011, abs=1e-4)
    scores = [x / 4 for x in range(-200, 201)]
    right, wrong = [[shaped_reward(s, r) for s in scores] for r in (True, False)]
    assert min(right) > 0.0 > max(wrong)
    assert right == sorted(right) and wrong == sorted(wrong)
