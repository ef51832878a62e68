"""How well a reward model's scores agree with the verifier, and whether they begin to be exploited.

A policy that is selected or trained by a reward model learns what the model likes. As long as that is being right,
wrong answers do not gain; when the scores of wrong answers rise from one iteration to the next, the model is being
exploited (Gao et al. 2022, arXiv 2210.10760, call it over-optimisation).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

Z95 = 1.959963984540054


def auc(right: Sequence[float], wrong: Sequence[float]) -> float | None:
    """Share of all pairs of a right and a wrong sample in which the right one has the higher score; ties are half."""
    if not right or not wrong:
        return None
    ordered = sorted(wrong)
    wins = sum(bisect_left(ordered, r) + bisect_right(ordered, r) for r in right)
    return wins / (2 * len(right) * len(wrong))


def agreement(scores: Sequence[float], correct: Sequence[bool]) -> float | None:
    """Share of samples on which verifier and model agree, when the model accepts as many as are right: the c samples
    of highest score. Samples that tie at that border are accepted in part."""
    n, c = len(scores), sum(correct)
    if not n:
        return None
    if not c:
        return 1.0
    border = sorted(scores, reverse=True)[c - 1]
    above = [ok for s, ok in zip(scores, correct, strict=True) if s > border]
    tied = [ok for s, ok in zip(scores, correct, strict=True) if s == border]
    accepted_right = sum(above) + sum(tied) * (c - len(above)) / len(tied)
    return 1.0 - 2.0 * (c - accepted_right) / n


def rise(before: Sequence[float], now: Sequence[float]) -> tuple[float, bool]:
    """How much the mean rose between two iterations, and whether by more than chance: its 95 % interval (Welch) lies
    above zero. The values are means over problems, whose samples are not independent."""
    if not before or not now:
        return 0.0, False
    difference = sum(now) / len(now) - sum(before) / len(before)
    error = math.sqrt(_squared_error(before) + _squared_error(now))
    return difference, difference > Z95 * error


def _squared_error(values: Sequence[float]) -> float:
    """Squared standard error of the mean; infinite for a single value."""
    n = len(values)
    if n < 2:
        return math.inf
    mean = sum(values) / n
    return sum((v - mean) ** 2 for v in values) / (n - 1) / n
