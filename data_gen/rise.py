"""RISE pairs (arXiv 2410.06638): whole solutions, and single steps against an edit of themselves that is shown wrong.

Per problem one full pair (a random right sample against a random wrong one) and N edited pairs of the same right
sample. Departures from the published code: an edit carries a certificate (`data_gen.certify`), is made by position,
and keeps its boxes; the end token closes both sides of full pairs and of last steps and none of the others; pairs
that are too long are dropped, not cut; and which of a problem's edits is taken keeps surface features balanced, so
that length or punctuation does not tell the sides apart.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs.rows import Edit, Pair, Problem, Sample
from data_gen.certify import common_prefix

DROPPED = ("no_correct", "no_wrong", "corrects_itself")
"""Why a problem gives no pair: no right sample that ended by itself; no wrong one; only right ones that correct themselves."""

_GOES_BACK = re.compile(
    r"\b(?:mistakes?|mistaken|oops|wait|hold on|apologi[sz]e|sorry|re-?(?:check|consider|evaluat|examin)\w*"
    r"|let(?:'s| us| me) (?:try again|correct|fix|redo|start over)|(?:was|is|were|that's) (?:wrong|incorrect)"
    r"|not correct|made an error|there (?:is|was|seems to be) an error|python|def \w+\()",
    re.IGNORECASE,
)
_QUESTION_SPEAKS_OF_IT = re.compile(r"wrong|correct|mistake|error", re.IGNORECASE)
_SWEEPS = 8
_LEFT_OUT = 0.1
_ERROR = "error "  # begins the names of features that count error types
_ERROR_WEIGHT = 0.3  # of an even mix of errors against the balance of one surface feature


@dataclass(frozen=True, slots=True)
class Choice:
    """What a problem contributes: a right sample and a wrong one, or the reason why none (see DROPPED)."""

    chosen: Sample | None
    rejected: Sample | None
    dropped: str | None


def choose(
    problem: Problem, samples: Sequence[Sample], outcomes: Mapping[str, str], seed: int, *, without_wrong: bool = False,
    truncated_negatives: bool = False,
) -> Choice:
    """A random right and a random wrong sample of one problem; `outcomes` are verdicts by sample id.

    Truncated samples are never chosen; they are rejected ones only with `truncated_negatives`, whatever was (not) found
    in them. With `without_wrong`, a problem without a wrong sample still gives its right one, for edits.
    """
    ended = [s for s in samples if s.finish_reason == "stop"]
    right = [s for s in ended if outcomes.get(s.id) == "correct"]
    wrong = [s for s in ended if outcomes.get(s.id) == "wrong"]
    if truncated_negatives:
        wrong += [s for s in samples if s.finish_reason != "stop" and outcomes.get(s.id) in ("wrong", "no_answer")]
    rng = random.Random(seed)
    if not right:
        return Choice(None, None, "no_correct")
    if not wrong and not without_wrong:
        return Choice(None, None, "no_wrong")
    if not _QUESTION_SPEAKS_OF_IT.search(problem.question):
        right = [s for s in right if not _GOES_BACK.search(s.text)]
        if not right:
            return Choice(None, None, "corrects_itself")
    return Choice(rng.choice(right), rng.choice(wrong) if wrong else None, None)


def full_pair(
    problem: Problem, choice: Choice, context: Sequence[int], chosen: Sequence[int], rejected: Sequence[int], end: int
) -> Pair:
    """The whole-solution pair: ids of both sides as training targets, after the prompt `context`."""
    good, bad = choice.chosen, choice.rejected
    assert good is not None and bad is not None
    return Pair(
        id=f"{problem.id}/full", parents=[good.id, bad.id, f"{good.id}/verdict", f"{bad.id}/verdict"], stage="pairs",
        problem=problem.id, context_ids=list(context), chosen_ids=list(chosen), rejected_ids=list(rejected),
        chosen=good.text, rejected=bad.text, kind="full", error=None, first_difference=common_prefix(chosen, rejected),
        chosen_eos=chosen[-1] == end, rejected_eos=rejected[-1] == end,
    )


def edited_pair(edit: Edit, prompt: Sequence[int], solution: Sequence[int], end: int) -> Pair:
    """A step against its edit, after the prompt and the solution's tokens before the step."""
    close = [end] if edit.last else []
    chosen = [*solution[edit.start : edit.end], *close]
    rejected = [*edit.token_ids, *close]
    return Pair(
        id=f"{edit.id}/pair", parents=[edit.sample, edit.id], stage="pairs", problem=edit.problem,
        context_ids=[*prompt, *solution[: edit.start]], chosen_ids=chosen, rejected_ids=rejected, chosen=edit.original,
        rejected=edit.edited, kind="edited", error=edit.error, first_difference=common_prefix(chosen, rejected),
        chosen_eos=edit.last, rejected_eos=edit.last,
    )


def surface(text: str, tokens: int) -> dict[str, float]:
    """What a shallow reader could tell the sides apart by: length in characters and tokens, counts of kinds of signs."""
    counts = Counter("digit" if c.isdigit() else "letter" if c.isalpha() else "blank" if c.isspace() else c for c in text)
    return {"characters": len(text), "tokens": tokens, "boxes": text.count("\\boxed"), **counts}


def difference(edit: Edit) -> dict[str, float]:
    """Surface of the edit minus surface of the original; features that do not differ are left out."""
    a, b = surface(edit.original, edit.end - edit.start), surface(edit.edited, len(edit.token_ids))
    return {k: d for k in (a | b) if (d := b.get(k, 0.0) - a.get(k, 0.0))}


def pick_edits(groups: Sequence[Sequence[Edit]], count: int, seed: int) -> list[list[Edit]]:
    """At most `count` edits of each group (a problem's kept edits), different steps first, with balanced surfaces.

    Starts from a random pick and exchanges one edit at a time for another of its group whenever that brings the sum of
    all surface differences nearer to zero (each feature in units of its spread), for a few sweeps. With a mean
    difference of zero a linear classifier of the differences has nothing to learn. A small weight keeps the error types
    mixed. What no exchange mends (few problems have a term to drop, none gains one) is mended by leaving out edits, at most
    one in ten.
    """
    rng = random.Random(seed)
    pools = [rng.sample(list(group), len(group)) for group in groups]
    picks = [_first(pool, count) for pool in pools]
    vectors = _vectors([e for pool in pools for e in pool])
    total: Counter[str] = Counter()
    for e in (e for pick in picks for e in pick):
        total.update(vectors[e.id])
    for _ in range(_SWEEPS):
        exchanged = [_exchange(pool, pick, total, vectors) for pool, pick in zip(pools, picks, strict=True)]
        if not any(exchanged):
            break
    _drop(picks, total, vectors)
    return picks


def _first(pool: Sequence[Edit], count: int) -> list[Edit]:
    """The first `count` of the pool, one of each step before a second one of any."""
    steps: Counter[int] = Counter()
    ranked = []
    for place, e in enumerate(pool):
        ranked.append((steps[e.step], place, e))
        steps[e.step] += 1
    return [e for _, _, e in sorted(ranked, key=lambda r: r[:2])[:count]]


def _vectors(edits: Sequence[Edit]) -> dict[str, dict[str, float]]:
    """By edit id, its surface difference in units of each feature's root mean square, and its error type."""
    raw = {e.id: difference(e) for e in edits}
    squares: Counter[str] = Counter()
    for vector in raw.values():
        squares.update({k: v * v for k, v in vector.items()})
    spread = {k: (v / len(edits)) ** 0.5 for k, v in squares.items()}
    errors = sorted({e.error for e in edits})
    mixes = {kind: {f"{_ERROR}{k}": _ERROR_WEIGHT * ((k == kind) - 1 / len(errors)) for k in errors} for kind in errors}
    return {e.id: {k: v / spread[k] for k, v in raw[e.id].items()} | mixes[e.error] for e in edits}


def _exchange(pool: Sequence[Edit], pick: list[Edit], total: Counter[str], vectors: Mapping[str, Mapping[str, float]]) -> bool:
    """Exchange picked edits of one problem for better ones; `total` follows. Whether anything changed."""
    changed = False
    for place, old in enumerate(pick):
        others = {e.step for e in pick} - {old.step}
        free = [e for e in pool if e not in pick and (e.step not in others or e.step == old.step)]
        best, gain = old, -1e-9
        for new in free:
            delta = _delta(vectors[old.id], vectors[new.id])
            # |total + delta|^2 - |total|^2
            change = sum(d * (2 * total[k] + d) for k, d in delta.items())
            if change < gain:
                best, gain = new, change
        if best is not old:
            total.update(_delta(vectors[old.id], vectors[best.id]))
            pick[place] = best
            changed = True
    return changed


def _drop(picks: Sequence[list[Edit]], total: Counter[str], vectors: Mapping[str, Mapping[str, float]]) -> None:
    """Leave out the edit that lies most along the sum of surface differences, again and again, until no feature's sum
    exceeds the chance sum of as many random signs (one standard deviation), or one edit in ten is gone."""
    count = sum(map(len, picks))
    for _ in range(int(_LEFT_OUT * count)):
        excess = {k: v for k, v in total.items() if not k.startswith(_ERROR) and abs(v) > count**0.5}
        if not excess:
            return
        gain, place, worst = max(
            ((sum(v * vectors[e.id].get(k, 0.0) for k, v in excess.items()), -i, e) for i, p in enumerate(picks) for e in p),
            key=lambda x: x[:2],
        )
        if gain <= 0.0:
            return
        picks[-place].remove(worst)
        total.subtract(vectors[worst.id])


def _delta(old: Mapping[str, float], new: Mapping[str, float]) -> dict[str, float]:
    return {k: new.get(k, 0.0) - old.get(k, 0.0) for k in (*old, *(k for k in new if k not in old))}
