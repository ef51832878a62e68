"""Edits of one right solution: which steps get which error, and the rows that tell what came of it."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from configs.keys import derive_seed
from configs.rows import Edit, Problem, Sample
from configs.schema import ErrorType
from data_gen.certify import KEPT, UNDECIDED, Judgement, Place, certifiable, judge_edit, sound
from data_gen.edit_prompts import few_shot, instruction, parse_edit, rejoined
from data_gen.edits import edited_ids, eligible, programmatic_edits
from data_gen.steps import StepSpan, step_spans, tail_start

_ANSWER_ONLY = re.compile(r"\s*####[^\n]*\s*")
_CANDIDATES = 12  # programmatic edits of one step and error that are judged at most
_VARIANTS = 2  # ... and kept at most, with different lengths: a choice for the balance of surfaces
_CAPABLE_BYTES = 2e9  # weights from which on an instruction is followed: about a billion parameters


@dataclass(frozen=True, slots=True)
class Attempt:
    """One error to put into one step. `before` is the solution up to the step, `ids` the tokens of the solution."""

    problem: Problem
    sample: Sample
    ids: Sequence[int]
    span: StepSpan
    last: bool
    before: str
    error: ErrorType
    seed: int

    @property
    def id(self) -> str:
        return f"{self.sample.id}/s{self.span.index}/{self.error}"

    @property
    def tail(self) -> int:
        """Where the editable text of the step begins."""
        return tail_start(self.span.text)


class Counts(msgspec.Struct):
    """Steps of the solutions looked at, and why some were not edited."""

    steps: int = 0
    unsound: int = 0
    uncertifiable: int = 0
    answer_lines: int = 0


def plan_attempts(
    tokenizer: Any, problem: Problem, sample: Sample, ids: Sequence[int], *, errors: Sequence[ErrorType], limit: int,
    certify: str, seed: int,
) -> tuple[list[Attempt], Counts]:
    """At most `limit` attempts on one solution: each step once before any twice, errors drawn among the eligible.

    Left out are steps with an equality that does not hold or is unclear; with `certify` "arithmetic", steps that only
    rollouts could decide; and lines with nothing but the answer, where the solution has other steps to edit.
    """
    rng = random.Random(derive_seed(seed, "attempts", sample.id))
    spans = step_spans(tokenizer, ids)
    counts = Counts(steps=len(spans))
    usable: list[tuple[StepSpan, str, bool]] = []
    before = ""
    for span in spans:
        last = span is spans[-1]
        if not sound(span.text):
            counts.unsound += 1
        elif certify == "arithmetic" and not certifiable(span.text, last):
            counts.uncertifiable += 1
        else:
            usable.append((span, before, last))
        before += span.text
    if any(not _ANSWER_ONLY.fullmatch(s.text) for s, _, _ in usable):
        kept = [u for u in usable if not _ANSWER_ONLY.fullmatch(u[0].text)]
        counts.answer_lines = len(usable) - len(kept)
        usable = kept
    rng.shuffle(usable)
    allowed = set(errors) - ({"misread"} if certify == "arithmetic" else set())
    queues: list[list[ErrorType]] = [[e for e in eligible(span.text) if e in allowed] for span, _, _ in usable]
    for queue in queues:
        rng.shuffle(queue)
    rounds: list[tuple[tuple[StepSpan, str, bool], ErrorType]] = [
        (u, q[k]) for k in range(len(errors)) for u, q in zip(usable, queues, strict=True) if k < len(q)
    ]
    attempts = [
        Attempt(problem, sample, ids, span, last, text, error, derive_seed(seed, sample.id, span.index, error))
        for (span, text, last), error in rounds[:limit]
    ]
    return attempts, counts


def prompt_form(asked: str, base: Path) -> str:
    """`auto` is an instruction for weights of 2 GB and more, examples for smaller ones."""
    if asked != "auto":
        return asked
    return "instruction" if sum(p.stat().st_size for p in base.glob("*.safetensors")) >= _CAPABLE_BYTES else "few_shot"


def edit_request(attempt: Attempt, form: str) -> str:
    """What the model is asked for one attempt."""
    tail = attempt.span.text[attempt.tail :]
    if form == "few_shot":
        return few_shot(attempt.error, tail)
    return instruction(attempt.error, attempt.problem.question, attempt.before, tail)


def self_edit(tokenizer: Any, attempt: Attempt, completion: str, bound: float, certify: str) -> Edit:
    """The row of an edit that the model wrote."""
    tail = parse_edit(completion)
    if tail is None:
        return _row(attempt, "self", 0, "", [], Judgement("unparsed", None, 0))
    edited = rejoined(attempt.span.text, attempt.tail, tail)
    return judged(tokenizer, attempt, "self", 0, edited, bound, certify)


def programmatic_rows(tokenizer: Any, attempt: Attempt, bound: float, certify: str) -> list[Edit]:
    """The rows of the programmatic editor: its certified edits, or what came nearest to one."""
    context = f"{attempt.problem.question}\n{attempt.before}"
    kept: list[Edit] = []
    others: list[Edit] = []
    edits = programmatic_edits(attempt.span.text, attempt.error, context, attempt.seed, certify != "arithmetic")
    for number, edited in enumerate(_first(edits, _CANDIDATES)):
        row = judged(tokenizer, attempt, "programmatic", number, edited, bound, certify)
        lengths = {len(k.edited) for k in kept}
        if row.outcome == KEPT and len(row.edited) not in lengths:
            kept.append(row)
        elif row.outcome != KEPT:
            others.append(row)
        if len(kept) == _VARIANTS:
            break
    if kept:
        return kept
    undecided = [row for row in others if row.outcome == UNDECIDED]
    if undecided or others:
        return (undecided or others)[:1]
    return [_row(attempt, "programmatic", 0, "", [], Judgement("no_candidate", None, 0))]


def _first(texts: Iterator[str], count: int) -> list[str]:
    return [text for text, _ in zip(texts, range(count), strict=False)]


def judged(tokenizer: Any, attempt: Attempt, editor: str, number: int, edited: str, bound: float, certify: str) -> Edit:
    """The row of one edited step. With `certify` "rollouts", arithmetic decides nothing."""
    span = attempt.span
    judgement = judge_edit(span.text, edited, Place(attempt.before, attempt.last, attempt.problem.answer), bound)
    if certify == "rollouts" and judgement.outcome == KEPT:
        judgement = Judgement(UNDECIDED, None, judgement.distance)
    ids = edited_ids(tokenizer, attempt.ids[span.start : span.end], span.text, edited)
    return _row(attempt, editor, number, edited, ids, judgement)


def _row(attempt: Attempt, editor: str, number: int, edited: str, ids: list[int], judgement: Judgement) -> Edit:
    span = attempt.span
    return Edit(
        id=f"{attempt.id}/{editor}{number}", parents=[attempt.sample.id], stage="edit", problem=attempt.problem.id,
        sample=attempt.sample.id, step=span.index, start=span.start, end=span.end, last=attempt.last,
        error=attempt.error, editor=editor, original=span.text, edited=edited, token_ids=ids,
        outcome=judgement.outcome, certificate=judgement.certificate, distance=judgement.distance,
    )
