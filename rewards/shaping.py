"""Rewards put together from a verifier's verdict and a reward model's scores.

Arithmetic in double precision; `single` gives what a float32 tensor will hold.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Protocol

_LIMIT = 30.0  # beyond it, sigmoid(x) - 1 is closer to 0 than float32 can tell from a right answer's reward


class Answer(Protocol):
    """A sample or completion, as a scorer reads it. `finish_reason`: "stop" or "length"."""

    @property
    def token_ids(self) -> list[int]: ...

    @property
    def text(self) -> str: ...

    @property
    def finish_reason(self) -> str: ...


class Scorer(Protocol):
    """Something that scores answers: a reward model, or anything else that orders them."""

    def __call__(self, questions: Sequence[str], answers: Sequence[Answer]) -> list[float]:
        """A score (logit) for each question and its answer."""
        ...


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0.0 else math.exp(x) / (1.0 + math.exp(x))


def aggregate(steps: Sequence[float], how: str) -> float:
    """One probability from the raw scores of a solution's steps: `minimum`, `product` or `last`."""
    if not steps:
        raise ValueError("a solution without steps has no process score")
    values = [sigmoid(s) for s in steps]
    if how == "minimum":
        return min(values)
    if how == "last":
        return values[-1]
    if how == "product":
        return math.prod(values)
    raise ValueError(f"aggregation must be minimum, product or last, not {how!r}")


def aggregated_logit(steps: Sequence[float], how: str) -> float:
    """The logit of `aggregate`, finite where that would round to 0 or 1."""
    if not steps:
        raise ValueError("a solution without steps has no process score")
    if how == "product":
        log = sum(math.log1p(math.exp(-abs(s))) + max(0.0, -s) for s in steps)  # minus the log of the product
        return -log - math.log(max(-math.expm1(-log), 1e-300))
    return {"minimum": min(steps), "last": steps[-1]}[how]


def shaped_reward(score: float, correct: bool, alpha: float = 0.5) -> float:
    """sigmoid(alpha * score) + (correct - 1): the RL reward of Qwen2.5-Math (arXiv 2409.12122, section 3.2).

    In (0, 1) for right and (-1, 0) for wrong answers, so that every right one outranks every wrong one; the reward
    model orders within each. Written as -sigmoid(-alpha * score) for wrong answers: the difference of two numbers
    near 1 would round to 0. Scores are clamped where |alpha * score| > 30, which keeps 0 < right and wrong < 0 in
    float32; without the clamp, scores beyond about 200 give 0 there.
    """
    x = max(-_LIMIT, min(_LIMIT, alpha * score))
    return sigmoid(x) if correct else -sigmoid(-x)


def combined_reward(correct: bool, steps: Sequence[float], scale: float = 5.0, clamp: bool = False) -> float:
    """B-STaR's reward (arXiv 2412.17256, section 3.2): 1[correct] + minimum step score, normalised to [-1, 1].

    `steps` are raw scores (logits) of a process reward model; a solution without steps (broken format) has the score
    -scale. The paper says normalised to [-1, 1]; the authors' code divides by 5 and clamps nothing, so that a wrong
    answer with a high score can pass a threshold. `clamp` does what the paper says.
    """
    process = min(steps, default=-scale) / scale
    if clamp:
        process = max(-1.0, min(1.0, process))
    return float(correct) + process


def single(x: float) -> float:
    """`x` rounded to float32."""
    return struct.unpack("f", struct.pack("f", x))[0]
