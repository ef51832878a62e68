"""Learning-rate schedules as a function of the step alone, so that nothing of them needs saving."""

from __future__ import annotations

import math


def learning_rate(step: int, total: int, peak: float, kind: str, warmup_ratio: float) -> float:
    """The rate of optimiser step `step` (from 0) of `total`.

    Linear warm-up over ceil(warmup_ratio * total) steps, then `constant`, `linear` to zero, or `cosine` to
    zero; the last step still has a positive rate.
    """
    warmup = math.ceil(warmup_ratio * total)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    if kind == "linear":
        return peak * (1.0 - progress)
    if kind == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
    return peak
