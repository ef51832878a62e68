"""Intervals for accuracies (95 % unless said otherwise), and tests of two models on the same problems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from configs.rows import ProblemScore

Z95 = 1.959963984540054


def wilson(correct: int, count: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927): for one answer a problem."""
    if count == 0:
        raise ValueError("no problems: an interval needs at least one")
    return _wilson(correct / count, count, z)


def _wilson(p: float, count: float, z: float) -> tuple[float, float]:
    z2 = z * z
    centre = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = z / (1 + z2 / count) * math.sqrt(p * (1 - p) / count + z2 / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered(shares: Sequence[float], answers: int, z: float = Z95) -> tuple[float, float]:
    """Interval of the mean of one value in [0, 1] for each problem, such as the share of its samples that are right.

    Samples of one problem are alike, so problems are what is counted: Wilson's interval at the effective number of
    answers p (1 - p) / v, where v = sum (x - p)^2 / (N (N - 1)) is the variance of the mean between the N problems
    (effective sizes: Korn and Graubard 1998; in Wilson's interval: Franco et al. 2019), but never fewer than N nor more
    than `answers`, the samples of all problems together. Equals `wilson` where each problem has one answer. Unlike a
    bootstrap, it has a width where no answer, or every one, is right.
    """
    n = len(shares)
    if not n:
        raise ValueError("no problems: an interval needs at least one")
    if answers < n:
        raise ValueError(f"{answers} answers to {n} problems: there must be one for each")
    p = min(1.0, max(0.0, math.fsum(shares) / n))
    between = math.fsum((x - p) ** 2 for x in shares) / (n * max(1, n - 1))
    spread = p * (1.0 - p)
    if spread < 1e-15 or n == 1:  # no spread to be seen between problems
        return _wilson(p, n, z)
    effective = answers if between * answers < spread else max(n, spread / between)
    return _wilson(p, effective, z)


def accuracy(rows: Sequence[ProblemScore]) -> dict[str, Any]:
    """Mean over problems with its 95 % interval: Wilson's for one answer a problem, else clustered by problem."""
    shares = [r.correct / r.samples for r in rows]
    samples = sum(r.samples for r in rows)
    low, high = clustered(shares, samples)
    kind = "wilson 95%" if samples == len(rows) else "clustered by problem 95%"
    mean = sum(shares) / len(shares)
    return {"accuracy": mean, "low": low, "high": high, "interval": kind, "problems": len(rows), "samples": samples}


def bootstrap_mean(values: Sequence[float], seed: int, rounds: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over problems."""
    means = sorted(_resampled(values, seed, rounds))
    return means[int(0.025 * rounds)], means[min(rounds - 1, int(0.975 * rounds))]


def paired_difference(before: Sequence[float], after: Sequence[float], seed: int) -> tuple[float, float, float]:
    """Mean of after - before over the same problems, with its bootstrap interval."""
    low, high = bootstrap_mean(differences := _differences(before, after), seed)
    return sum(differences) / len(differences), low, high


def paired_bootstrap(before: Sequence[float], after: Sequence[float], seed: int, rounds: int = 2000) -> float:
    """Two-sided p-value of "the mean of after - before over the same problems is 0".

    The bootstrap's means are moved to the null hypothesis: the share of them, the observed one included, that lie as far
    from the observed mean as that lies from 0 (Efron and Tibshirani 1993, chapter 16). At least 1 / (rounds + 1).
    """
    means = _resampled(differences := _differences(before, after), seed, rounds)
    observed = sum(differences) / len(differences)
    far = sum(abs(mean - observed) >= abs(observed) - 1e-12 for mean in means)  # 1e-12: sums in another order
    return (1 + far) / (1 + rounds)


def mcnemar(lost: int, won: int) -> float:
    """Two-sided exact p-value of McNemar's test: `lost` problems only the first solved, `won` only the second.

    If neither is better, `won` is binomial with lost + won trials and rate one half: twice the smaller tail, at most 1
    (McNemar 1947; exact: the sign test). Problems that both solve, or neither, say nothing.
    """
    if min(lost, won) < 0:
        raise ValueError(f"counts must not be negative: {lost} and {won}")
    trials = lost + won
    tail = ways = 1  # of no success; then C(trials, i) from C(trials, i - 1)
    for i in range(1, min(lost, won) + 1):
        ways = ways * (trials - i + 1) // i
        tail += ways
    return min(1.0, 2 * tail / 2**trials)


def _differences(before: Sequence[float], after: Sequence[float]) -> list[float]:
    if len(before) != len(after):
        raise ValueError(f"{len(before)} values before, {len(after)} after: the problems must be the same")
    return [b - a for a, b in zip(before, after, strict=True)]


def _resampled(values: Sequence[float], seed: int, rounds: int) -> list[float]:
    """Means of `rounds` draws of as many values, with replacement."""
    if not values:
        raise ValueError("no problems: an interval needs at least one")
    import numpy as np

    rng, each, n = np.random.default_rng(seed), np.asarray(values, float), len(values)
    return [float(each[rng.integers(n, size=n)].mean()) for _ in range(rounds)]


def mean_interval(values: Sequence[float], z: float = Z95) -> tuple[float, float, float]:
    """Mean with its normal interval over problems: for figures that are averages themselves, in large numbers."""
    if not values:
        raise ValueError("no problems: an interval needs at least one")
    n = len(values)
    mean = math.fsum(values) / n
    half = z * math.sqrt(math.fsum((v - mean) ** 2 for v in values) / max(1, n - 1) / n)
    return mean, mean - half, mean + half
