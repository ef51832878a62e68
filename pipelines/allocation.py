"""Sequential allocation of the dev sweep: temperatures that cannot win are given no more samples.

The grid draws every temperature on all Q dev queries. Here the queries come in rounds, in random order, and after each
round a temperature is dropped when the best point so far (the leader) beats all of its points for certain enough.

Rule. Let d be the difference of the two points' per-query values, over the n queries that both have seen. The queries
are a random sample without replacement of the Q, so the final difference lies below

    mean(d) + z * sd(d) * sqrt((1 - n / Q) / n)

with z the normal quantile of 1 - risk / comparisons. The true winner is dropped only if this bound fails against some
leader in some round: (temperatures - 1) * thresholds * (rounds - 1) comparisons (Bonferroni), so with probability
1 - risk the choice is the grid's, as far as means over n queries are normal. One query of difference +1 is added to
the d, in favour of the challenger: few queries that happen to agree cannot drop anything.

Budget. Two temperatures that are nearly equal cannot be told apart by any rule before both are drawn in full. `budget`
< 1 limits the whole sweep to that share of the grid's samples: when more survive than it can pay for, assuming that half
of them go in each later round, the worst so far go. These are marked "budget": here the choice may differ from the
grid's. With `budget` 1 only the rule above drops.

Not in the paper, whose script draws the whole grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.balance import Point, Pool, Responses, Rule, best, caps_of, per_query, points, surface


@dataclass(frozen=True)
class Dropped:
    """A temperature that gets no more samples; `bound` is the highest that its score may exceed the leader's by."""

    temperature: float
    reason: Literal["cannot win", "budget"]
    bound: float


@dataclass(frozen=True)
class Race:
    """What does not change between the rounds. `ends`: numbers of queries after each round, the last is all of them."""

    temperatures: tuple[float, ...]
    ends: tuple[int, ...]
    risk: float
    budget: float

    @property
    def queries(self) -> int:
        return self.ends[-1]


def round_ends(fractions: Sequence[float], queries: int) -> tuple[int, ...]:
    """Numbers of queries after each round: ceil(fraction * queries), at least one more each time.

    Raises ValueError when there are fewer queries than rounds.
    """
    rounds = len(fractions)
    if queries < rounds:
        raise ValueError(f"{queries} queries do not make {rounds} rounds")
    ends: list[int] = []
    for number, fraction in enumerate(fractions):
        least = (ends[-1] if ends else 0) + 1
        ends.append(min(max(least, math.ceil(fraction * queries)), queries - (rounds - 1 - number)))
    return (*ends[:-1], queries)


def drop(
    pools: Mapping[float, Pool], rule: Rule, responses: Responses, target: int, race: Race, used: int
) -> list[Dropped]:
    """Temperatures to drop after a round. `pools` holds those still in the race, all on the same queries; `used` is the
    number of (temperature, query) draws so far; `target` is the size wanted from these queries."""
    surfaces = {t: surface(pool, rule) for t, pool in pools.items()}
    places = {t: points(t, s, rule, responses, target) for t, s in surfaces.items()}
    leader = best([p for found in places.values() for p in found], responses)
    values = {t: influence(*per_query(pools[t], rule, caps_of(surfaces[t], responses, target)), rule) for t in pools}
    column = values[leader.temperature][:, rule.thresholds.index(leader.threshold)]
    seen = pools[leader.temperature].queries
    comparisons = max(1, (len(race.temperatures) - 1) * len(rule.thresholds) * (len(race.ends) - 1))
    z = NormalDist().inv_cdf(1 - race.risk / comparisons)
    bounds = {
        t: upper_bound(v - column[:, None], z, race.queries) for t, v in values.items() if t != leader.temperature
    }
    gone = [Dropped(t, "cannot win", b) for t, b in bounds.items() if b < 0]
    others = [t for t, b in bounds.items() if b >= 0]
    room = affordable(1 + len(others), race, used, seen)
    ranked = sorted(others, key=lambda t: _rank(best(places[t], responses)))
    return gone + [Dropped(t, "budget", bounds[t]) for t in ranked[room - 1 :]]


def influence(scores: NDArray[np.float64], kept: NDArray[np.bool_], rule: Rule) -> NDArray[np.float64]:
    """Per-query values whose mean is the surface's score [queries, thresholds], for the mean's variance.

    For the mean over all queries that is bs itself; for the mean over those that kept something, a ratio of means,
    its linearisation m + (bs - m * kept) / mean(kept).
    """
    if rule.average == "all":
        return scores
    share = kept.mean(axis=0)
    mean = scores.sum(axis=0) / np.maximum(kept.sum(axis=0), 1)
    return mean + (scores - mean * kept) / np.where(share > 0, share, 1.0)


def upper_bound(differences: NDArray[np.float64], z: float, population: int) -> float:
    """The highest of the columns' upper bounds (see the module) for the mean over the whole population."""
    n = len(differences)
    padded = np.vstack([differences, np.ones((1, differences.shape[1]))])
    spread = padded.std(axis=0, ddof=1) * math.sqrt(max(0.0, 1 - n / population) / n)
    return float((padded.mean(axis=0) + z * spread).max())


def affordable(alive: int, race: Race, used: int, seen: int) -> int:
    """How many of `alive` temperatures the budget can pay for, at least one. All draws are (temperature, query)s."""
    budget = race.budget * len(race.temperatures) * race.queries
    ahead = [e for e in race.ends if e > seen]
    sizes = [b - a for a, b in zip([seen, *ahead], ahead, strict=False)]
    for count in range(alive, 1, -1):
        if used + sum(max(1, count >> i) * size for i, size in enumerate(sizes)) <= budget:
            return count
    return 1


def _rank(point: Point) -> tuple[float, float]:
    return -point.score, point.temperature
