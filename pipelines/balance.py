"""The balance score of B-STaR (Zeng et al. 2024, arXiv 2412.17256, section 3) and its whole surface in one pass.

For a query with n selected responses, n' of them correct and different,

    bs = min(n' / n*, 1) * n' / n                                                        (equation 3 of the paper)

A response is selected when its reward exceeds the threshold and it is among the query's first `cap` responses by reward
(ties: the earlier one first). The surface is the mean of bs over the queries for every (temperature, threshold, cap).

Along one query's responses in order of reward, bs after j responses does not depend on the threshold: a threshold and a
cap only say where to stop. So a response at place j adds bs_j - bs_(j-1) to every threshold below its reward and every
cap of at least j: one sort, one two-dimensional histogram of these differences, one cumulative sum along each axis.

Departures: the paper counts equal texts among n, its code removes them after the cap (`duplicates`); the paper averages
over all queries, its code over those that kept something (`average`). Both are options here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Responses = int | Literal["all", "target"]

_TIE = 1e-9  # scores this close are equal: sums in another order differ by less


def balance_score(unique_correct: int, selected: int, n_star: int) -> float:
    """bs of one query; 0 where nothing was selected."""
    return min(unique_correct / n_star, 1.0) * unique_correct / selected if selected else 0.0


def n_star_of(target: int, queries: int) -> int:
    """The paper's n* = ceil(N / M) for N wanted samples from M queries (its code has 8 whatever they are)."""
    return -(-target // queries)


@dataclass(frozen=True)
class Rule:
    """How the score is taken. `thresholds` ascend; caps run from 1 to `caps`."""

    n_star: int
    thresholds: tuple[float, ...]
    caps: int
    average: Literal["all", "kept"] = "all"
    duplicates: Literal["remove", "count"] = "remove"


@dataclass(frozen=True)
class Pool:
    """Responses of all queries at one temperature, flat [C] in the order in which they were drawn.

    `query` is in [0, queries); `text` is equal for equal texts of one query. What may never be selected (cut off,
    without an answer) is left out by the caller, which changes nothing else: n counts selected responses only.
    """

    query: Ints
    reward: Floats
    correct: NDArray[np.bool_]
    text: Ints
    queries: int


@dataclass(frozen=True)
class Surface:
    """Figures by [threshold, cap]: mean `score`, and sums over the queries: `selected` (n), `unique_correct` (n'),
    `wrong` (selected and not correct), `kept` (queries with something selected)."""

    score: Floats
    selected: Ints
    unique_correct: Ints
    wrong: Ints
    kept: Ints
    queries: int


@dataclass(frozen=True)
class Point:
    """A place on the surface. `cap`: at most so many responses a query; `reached`: the target size is there."""

    temperature: float
    threshold: float
    cap: int
    score: float
    selected: int
    unique_correct: int
    wrong: int
    kept: int
    reached: bool


@dataclass(frozen=True)
class _Prefixes:
    """The pool sorted by query and falling reward; counts and score of the query up to and with each response [C]."""

    query: Ints
    place: Ints  # from 0 in the query
    level: Ints  # number of thresholds below the reward
    selected: Ints
    unique_correct: Ints
    wrong: Ints
    score: Floats
    first: Ints  # [queries + 1]: where each query begins


def surface(pool: Pool, rule: Rule) -> Surface:
    """The surface of one temperature, in O(C log C + thresholds * caps)."""
    p = _prefixes(pool, rule)
    counted = p.place < rule.caps
    shape = (len(rule.thresholds) + 1, rule.caps)
    cell = (p.level * rule.caps + p.place)[counted]

    def summed(values: NDArray[np.float64] | Ints) -> Floats:
        steps = np.where(p.place == 0, values, values - np.concatenate([values[:1], values[:-1]]))
        grid = np.bincount(cell, weights=steps[counted], minlength=shape[0] * shape[1]).reshape(shape)
        return grid[::-1].cumsum(axis=0)[::-1][1:].cumsum(axis=1)  # levels above the threshold, places within the cap

    kept = _whole(summed((p.selected > 0).astype(np.int64)))
    total = np.maximum(kept, 1) if rule.average == "kept" else max(1, pool.queries)
    return Surface(
        score=np.round(summed(p.score) / total, 12), selected=_whole(summed(p.selected)),
        unique_correct=_whole(summed(p.unique_correct)), wrong=_whole(summed(p.wrong)), kept=kept, queries=pool.queries,
    )


def caps_of(s: Surface, responses: Responses, target: int) -> Ints:
    """The cap of each threshold: none ("all": the largest), a number, or the smallest that gives `target` responses
    ("target", as the paper's code does; the largest where none does)."""
    thresholds, caps = s.score.shape
    if responses == "target":
        enough = s.selected >= target
        return np.where(enough.any(axis=1), enough.argmax(axis=1) + 1, caps)
    return np.full(thresholds, caps if responses == "all" else min(responses, caps))


def points(temperature: float, s: Surface, rule: Rule, responses: Responses, target: int) -> list[Point]:
    """One point for each threshold, at its cap."""
    found = []
    for i, (threshold, cap) in enumerate(zip(rule.thresholds, caps_of(s, responses, target).tolist(), strict=True)):
        at = (i, cap - 1)
        found.append(Point(
            temperature, threshold, cap, float(s.score[at]), int(s.selected[at]), int(s.unique_correct[at]),
            int(s.wrong[at]), int(s.kept[at]), bool(s.selected[at] >= target),
        ))  # fmt: skip
    return found


def best(candidates: Sequence[Point], responses: Responses) -> Point:
    """The point of the highest score. Where the size was asked for ("target"), points that reach it come first.

    Ties go to the lower temperature, then to the threshold nearest to 0 (no offset), then to the stricter one.
    Raises ValueError without candidates.
    """
    if responses == "target" and any(p.reached for p in candidates):
        candidates = [p for p in candidates if p.reached]
    top = max(p.score for p in candidates)
    equal = [p for p in candidates if p.score >= top - _TIE]
    return min(equal, key=lambda p: (p.temperature, abs(p.threshold), -p.threshold))


def choose(surfaces: Mapping[float, Surface], rule: Rule, responses: Responses, target: int) -> Point:
    """The best point of all temperatures."""
    return best([p for t, s in surfaces.items() for p in points(t, s, rule, responses, target)], responses)


def per_query(pool: Pool, rule: Rule, caps: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    """bs of every query [queries, thresholds] at each threshold's cap, and whether it kept anything."""
    p = _prefixes(pool, rule)
    counts = np.zeros((pool.queries, len(rule.thresholds) + 1), dtype=np.int64)
    np.add.at(counts, (p.query, p.level), 1)
    above = counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]  # responses above each threshold
    place = np.minimum(above, caps[None, :])
    if not len(p.score):
        return np.zeros(place.shape), place > 0
    last = np.maximum(p.first[:-1, None] + place - 1, 0)
    return np.where(place > 0, p.score[np.minimum(last, len(p.score) - 1)], 0.0), place > 0


def taken(pool: Pool, rule: Rule, threshold: float, cap: int) -> NDArray[np.bool_]:
    """Which responses [C] a point selects, in the pool's own order."""
    order = np.lexsort((np.arange(len(pool.query)), -pool.reward, pool.query))
    first = np.searchsorted(pool.query[order], np.arange(pool.queries + 1))
    place = np.arange(len(order)) - first[pool.query[order]]
    keep = (pool.reward[order] > threshold) & (place < cap)
    if rule.duplicates == "remove":
        keep &= _is_new(pool.query[order], pool.text[order])
    result = np.zeros(len(order), dtype=bool)
    result[order] = keep
    return result


def _prefixes(pool: Pool, rule: Rule) -> _Prefixes:
    order = np.lexsort((np.arange(len(pool.query)), -pool.reward, pool.query))
    query, reward, correct = pool.query[order], pool.reward[order], pool.correct[order]
    new = _is_new(query, pool.text[order])
    counts = np.ones_like(new) if rule.duplicates == "count" else new
    first = np.searchsorted(query, np.arange(pool.queries + 1))

    def running(flags: NDArray[np.bool_]) -> Ints:
        total = flags.astype(np.int64).cumsum()
        before = np.concatenate([[0], total])[first[:-1]]
        return total - before[query]

    n, u = running(counts), running(new & correct)
    return _Prefixes(
        query=query, place=np.arange(len(query)) - first[query],
        level=np.searchsorted(np.asarray(rule.thresholds), reward, side="left"), selected=n, unique_correct=u,
        wrong=running(counts & ~correct), score=np.minimum(u / rule.n_star, 1.0) * u / np.maximum(n, 1), first=first,
    )


def _is_new(query: Ints, text: Ints) -> NDArray[np.bool_]:
    """Whether each response is the first of its text in its query."""
    order = np.lexsort((np.arange(len(query)), text, query))
    q, t = query[order], text[order]
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (q[1:] != q[:-1]) | (t[1:] != t[:-1])
    result = np.zeros(len(order), dtype=bool)
    result[order] = fresh
    return result


def _whole(values: Floats) -> Ints:
    return np.rint(values).astype(np.int64)
