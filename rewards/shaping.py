"""A reward from a verifier and a reward model together (Qwen2.5-Math, arXiv 2409.12122)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol


class Scorer(Protocol):
    """Something that scores completions: a reward model, or anything else that orders them."""

    def __call__(self, questions: Sequence[str], completions: Sequence[str]) -> list[float]:
        """A score (logit) for each question and completion."""
        ...


def shaped_reward(score: float, right: bool, alpha: float = 0.5) -> float:
    """sigmoid(alpha * score) + (r_v - 1) with r_v 1 for a right answer, else 0.

    Every right answer is above every wrong one: (0, 1) and (-1, 0); the score orders within both. Beyond |alpha *
    score| of about 30 neighbours round to the same value, so such scores are held there.
    """
    logit = max(-30.0, min(30.0, alpha * score))
    return 1.0 / (1.0 + math.exp(-logit)) + (0.0 if right else -1.0)
