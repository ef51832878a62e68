"""Rejection sampling: which correct samples are learned from (Yuan et al. 2023, arXiv 2308.01825)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from configs.rows import Sample


def unique_correct(samples: Sequence[Sample], correct: set[str]) -> list[Sample]:
    """Samples whose id is in `correct`, that ended by themselves, one of each text (spaces aside)."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for sample in samples:
        text = (sample.problem, " ".join(sample.text.split()))
        if sample.id in correct and sample.finish_reason == "stop" and text not in seen:
            seen.add(text)
            kept.append(sample)
    return kept


def at_most(samples: Sequence[Sample], limit: int, rank: Callable[[Sample], tuple[float, str]]) -> list[Sample]:
    """At most `limit` samples of each problem, the lowest `rank` first; problems in order of appearance."""
    by_problem: dict[str, list[Sample]] = {}
    for sample in samples:
        by_problem.setdefault(sample.problem, []).append(sample)
    return [s for group in by_problem.values() for s in sorted(group, key=rank)[:limit]]
