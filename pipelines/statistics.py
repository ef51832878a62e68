"""Intervals for accuracies: 95 % unless said otherwise."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

Z95 = 1.959963984540054


def wilson(correct: int, count: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927): for one answer a problem."""
    if count == 0:
        raise ValueError("no problems: an interval needs at least one")
    p, z2 = correct / count, z * z
    centre = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = z / (1 + z2 / count) * math.sqrt(p * (1 - p) / count + z2 / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_mean(values: Sequence[float], seed: int, rounds: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over problems: for averages of several answers a problem."""
    if not values:
        raise ValueError("no problems: an interval needs at least one")
    rng = random.Random(seed)
    n = len(values)
    means = sorted(sum(rng.choices(values, k=n)) / n for _ in range(rounds))
    return means[int(0.025 * rounds)], means[min(rounds - 1, int(0.975 * rounds))]


def paired_difference(before: Sequence[float], after: Sequence[float], seed: int) -> tuple[float, float, float]:
    """Mean of after - before over the same problems, with its bootstrap interval."""
    if len(before) != len(after):
        raise ValueError(f"{len(before)} values before, {len(after)} after: the problems must be the same")
    differences = [b - a for a, b in zip(before, after, strict=True)]
    low, high = bootstrap_mean(differences, seed)
    return sum(differences) / len(differences), low, high


def mean_interval(values: Sequence[float], z: float = Z95) -> tuple[float, float, float]:
    """Mean with its normal interval over problems: for figures that are averages themselves, in large numbers."""
    if not values:
        raise ValueError("no problems: an interval needs at least one")
    n = len(values)
    mean = math.fsum(values) / n
    half = z * math.sqrt(math.fsum((v - mean) ** 2 for v in values) / max(1, n - 1) / n)
    return mean, mean - half, mean + half
