"""Learning-rate schedules as a function of the step alone, so that nothing of them needs saving."""

from __future__ import annotations

import math
from dataclasses import dataclass

from configs.schema import InfiniteSection, TrainingSection


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


def trunk_rate(step: int, total: int, peak: float, warmup_ratio: float, infinite: InfiniteSection) -> float:
    """The infinite schedule without its anneal (Ibrahim et al. 2024): linear warm-up to the peak, cosine cool-down to
    `constant` times the peak over ceil(cooldown_ratio * total) steps, then constant for as long as data comes."""
    warmup, cooldown = math.ceil(warmup_ratio * total), math.ceil(infinite.cooldown_ratio * total)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / cooldown) if cooldown else 1.0
    return peak * (infinite.constant + (1.0 - infinite.constant) * 0.5 * (1.0 + math.cos(math.pi * progress)))


@dataclass(frozen=True)
class Schedule:
    """The rates of one stage's `steps`, which follow `before` steps of earlier stages and are part of `total` planned."""

    settings: TrainingSection
    steps: int
    before: int = 0
    total: int = 0

    @property
    def planned(self) -> int:
        """Steps of the whole training; at least what is done by the end of this stage."""
        return max(self.total, self.before + self.steps)

    @property
    def trunk(self) -> int:
        """Steps of this stage that a later stage goes on from: all, or those before the anneal of each stage."""
        infinite = self.settings.infinite
        if self.settings.schedule != "infinite" or infinite.anneal == "last":
            return self.steps
        return self.steps - min(math.ceil(infinite.anneal_ratio * self.steps), self.steps - 1)

    def rate(self, step: int) -> float:
        """The rate of this stage's optimiser step `step` (from 0)."""
        s, now = self.settings, self.before + step
        if s.schedule != "infinite":
            return learning_rate(now, self.planned, s.learning_rate, s.schedule, s.warmup_ratio)
        last = s.infinite.anneal == "last"
        end = self.planned if last else self.before + self.steps
        start = end - math.ceil(s.infinite.anneal_ratio * end) if last else self.before + self.trunk
        trunk = trunk_rate(min(now, start), self.planned, s.learning_rate, s.warmup_ratio, s.infinite)
        if now < start or start == end:
            return trunk
        return trunk * (s.learning_rate * s.infinite.minimum / trunk) ** ((now - start) / (end - start))
