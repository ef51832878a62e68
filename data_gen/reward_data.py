"""Groups for reward models, from verified samples (outcome) or from step values (process).

Rules of the Qwen2.5-Math report (arXiv 2409.12122, section 3.1): problems whose samples are all right or all wrong
are dropped, samples may come from several models, and over all groups right and wrong ones are equal in number.
Of our own: near-duplicates go first, no bin of difficulty may crowd out the others (optional), and whether a problem
is for training or validation depends on the problem and the run's seed alone, so that it stays so in every iteration.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from configs.keys import derive_seed
from configs.rows import Group, Sample, Step

BINS = 4  # of difficulty: solve rates up to 1/4, 1/2, 3/4, and below 1


@dataclass(frozen=True)
class Judged:
    """A sample with the verifier's word; `token_ids` as the reward model reads them."""

    sample: Sample
    correct: bool
    token_ids: list[int]


@dataclass
class Choice:
    """What a group is made of: its solutions in order of preference, and how many of each class are taken."""

    problem: str
    right: list[Judged]
    wrong: list[Judged]
    solve_rate: float
    take_right: int = 0
    take_wrong: int = 0


def outcome_groups(
    judged: Mapping[str, Sequence[Judged]],
    prompts: Callable[[str], list[int]],
    *,
    samples: int,
    similarity: float | None,
    truncated_negatives: bool,
    balance_difficulty: bool,
    validation_fraction: float,
    seed: int,
) -> tuple[list[Group], dict[str, int]]:
    """One group of at most `samples` solutions for each problem of both kinds, and counts of what was dropped.

    `prompts` gives the prompt's ids of a problem. A solution that was cut off is never a right one; it is a wrong
    one with `truncated_negatives`, else it is left out. Without `similarity` a solution counts as often as it was drawn.
    """
    counts: Counter[str] = Counter(problems=len(judged))
    choices = []
    for problem, members in judged.items():
        rng = random.Random(derive_seed(seed, "reward-data", problem))
        usable = [j for j in members if _usable(j, truncated_negatives)]
        distinct = usable if similarity is None else without_near_duplicates(usable, similarity)
        counts.update(samples=len(members), unusable=len(members) - len(usable), duplicates=len(usable) - len(distinct))
        right, wrong = ([j for j in distinct if j.correct is side] for side in (True, False))
        if not right or not wrong:
            counts["all_right" if right else "all_wrong" if wrong else "without_samples"] += 1
            continue
        rng.shuffle(right)
        rng.shuffle(wrong)
        choices.append(Choice(problem, right, wrong, sum(j.correct for j in members) / len(members)))
    if balance_difficulty:
        choices = _balanced_difficulty(choices, seed, counts)
    held = {c.problem for c in choices if is_held_out(c.problem, validation_fraction, seed)}
    for part in ([c for c in choices if c.problem not in held], [c for c in choices if c.problem in held]):
        _balance_classes(part, samples)
    groups = [_group(c, prompts(c.problem), "validation" if c.problem in held else "train") for c in choices]
    counts.update(groups=len(groups), right=sum(c.take_right for c in choices), wrong=sum(c.take_wrong for c in choices))
    counts.update(f"difficulty{difficulty(c.solve_rate)}" for c in choices)
    return groups, dict(counts)


def process_groups(
    judged: Mapping[str, Sequence[Judged]],
    steps: Mapping[str, Sequence[Step]],
    prompts: Callable[[str], list[int]],
    *,
    samples: int,
    validation_fraction: float,
    seed: int,
) -> tuple[list[Group], dict[str, int]]:
    """One group of at most `samples` solutions for each problem with step values (by sample id): a mark at the last
    token of every step that has one, labelled with it."""
    counts: Counter[str] = Counter(problems=len(judged))
    groups = []
    for problem, members in judged.items():
        valued = {j.sample.id: [s for s in steps.get(j.sample.id, ()) if s.value is not None] for j in members}
        chosen = [j for j in members if valued[j.sample.id]]
        random.Random(derive_seed(seed, "reward-data", problem)).shuffle(chosen)
        if not chosen:
            counts["without_steps"] += 1
            continue
        chosen = chosen[:samples]
        mine = [valued[j.sample.id] for j in chosen]
        split = "validation" if is_held_out(problem, validation_fraction, seed) else "train"
        rate = sum(j.correct for j in members) / len(members)
        labels = [s.value for own in mine for s in own if s.value is not None]
        marks = [s.end - 1 for own in mine for s in own]
        groups.append(_row(problem, prompts(problem), split, chosen, marks, labels, [len(own) for own in mine], rate))
        counts.update(samples=len(chosen), steps=len(marks))
    counts["groups"] = len(groups)
    return groups, dict(counts)


def is_held_out(problem: str, fraction: float, seed: int) -> bool:
    """Whether a problem is for validation: a draw of its own, whatever other problems there are."""
    return derive_seed(seed, "validation", problem) < fraction * 2**63


def without_near_duplicates(judged: Sequence[Judged], similarity: float) -> list[Judged]:
    """The first of every set of solutions of one class that are nearly the same: whose sets of three words in a row
    have a Jaccard similarity of at least `similarity` (1: the same words in the same order, near enough)."""
    kept: list[tuple[Judged, frozenset[tuple[str, ...]]]] = []
    for j in judged:
        words = j.sample.text.lower().split()
        shingles = frozenset(tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2)))
        if not any(j.correct == k.correct and _jaccard(shingles, other) >= similarity for k, other in kept):
            kept.append((j, shingles))
    return [j for j, _ in kept]


def difficulty(solve_rate: float) -> int:
    """Bin of a solve rate strictly between 0 and 1: 0 is the hardest."""
    return min(BINS - 1, int(solve_rate * BINS))


def _usable(judged: Judged, truncated_negatives: bool) -> bool:
    return judged.sample.finish_reason == "stop" or (truncated_negatives and not judged.correct)


def _jaccard(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    return len(a & b) / len(a | b)


def _balanced_difficulty(choices: Sequence[Choice], seed: int, counts: Counter[str]) -> list[Choice]:
    """At most as many problems of each bin as the median of the bins that are not empty."""
    sizes = sorted(Counter(difficulty(c.solve_rate) for c in choices).values())
    limit = sizes[len(sizes) // 2] if sizes else 0
    room: Counter[int] = Counter(dict.fromkeys(range(BINS), limit))
    kept = set()
    for c in sorted(choices, key=lambda c: derive_seed(seed, "difficulty", c.problem)):
        if room[difficulty(c.solve_rate)] > 0:
            room[difficulty(c.solve_rate)] -= 1
            kept.add(c.problem)
    counts["too_many_alike"] += len(choices) - len(kept)
    return [c for c in choices if c.problem in kept]


def _balance_classes(choices: Sequence[Choice], samples: int) -> None:
    """Decide how many right and wrong solutions each group takes: halves of `samples`, filled up from the other class
    where one is short; then solutions of the class that there are more of leave the most lopsided groups, until both
    are equal in number over all groups."""
    for c in choices:
        c.take_right = min(len(c.right), samples // 2)
        c.take_wrong = min(len(c.wrong), samples - c.take_right)
        c.take_right = min(len(c.right), samples - c.take_wrong)
    surplus = sum(c.take_right - c.take_wrong for c in choices)
    sign = 1 if surplus > 0 else -1
    heap = [(-sign * (c.take_right - c.take_wrong), i) for i, c in enumerate(choices)]
    heapq.heapify(heap)
    for _ in range(abs(surplus)):
        lopsided, i = heap[0]
        if sign > 0:
            choices[i].take_right -= 1
        else:
            choices[i].take_wrong -= 1
        heapq.heapreplace(heap, (lopsided + 1, i))


def _group(c: Choice, prompt_ids: list[int], split: str) -> Group:
    chosen = c.right[: c.take_right] + c.wrong[: c.take_wrong]
    marks = [len(j.token_ids) - 1 for j in chosen]
    return _row(
        c.problem, prompt_ids, split, chosen, marks, [float(j.correct) for j in chosen], [1] * len(chosen), c.solve_rate
    )


def _row(
    problem: str, prompt_ids: list[int], split: str, chosen: Sequence[Judged], marks: list[int], labels: list[float],
    counts: list[int], rate: float,
) -> Group:
    return Group(
        id=f"{problem}/group", parents=[problem, *dict.fromkeys(j.sample.id for j in chosen)], stage="reward_data",
        problem=problem, split=split, prompt_ids=prompt_ids, samples=[j.sample.id for j in chosen],
        models=[j.sample.model for j in chosen], token_ids=[t for j in chosen for t in j.token_ids],
        lengths=[len(j.token_ids) for j in chosen], marks=marks, labels=labels, counts=counts, solve_rate=rate,
    )


