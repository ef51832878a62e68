"""Rejection sampling: which correct samples are learned from (Yuan et al. 2023, arXiv 2308.01825)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from configs.rows import Sample
from rewards.voting import group_equal, weighted_majority


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


def voted(
    extracted: Mapping[str, str | None], problems: Mapping[str, str], weight: Callable[[str], float]
) -> set[str]:
    """Ids of the samples that give their problem's winning answer, by weighted vote: labels for problems whose answers
    nobody knows (Qwen2.5-Math, arXiv 2409.12122, section 3.1). `extracted` and `problems` are by sample id."""
    by_problem: dict[str, list[str]] = {}
    for sample in extracted:
        by_problem.setdefault(problems[sample], []).append(sample)
    chosen: set[str] = set()
    for members in by_problem.values():
        groups = group_equal([extracted[s] for s in members])
        winner = weighted_majority(groups, [weight(s) for s in members])
        chosen |= {s for s, g in zip(members, groups, strict=True) if g is not None and g == winner}
    return chosen


def at_most(samples: Sequence[Sample], limit: int, rank: Callable[[Sample], tuple[float, str]]) -> list[Sample]:
    """At most `limit` samples of each problem, the lowest `rank` first; problems in order of appearance."""
    by_problem: dict[str, list[Sample]] = {}
    for sample in samples:
        by_problem.setdefault(sample.problem, []).append(sample)
    return [s for group in by_problem.values() for s in sorted(group, key=rank)[:limit]]
