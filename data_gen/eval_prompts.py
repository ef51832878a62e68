"""Prompts of evaluations by name, and the worked examples that stand before a question.

The wordings are Ratchet's own. Worked examples are taken from the training split when the evaluation runs, or from a file
of one's own; no published set of examples (such as the eight of Wei et al. 2022 for GSM8K) is shipped.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from configs.errors import ConfigError, InputError
from configs.evaluation_section import PromptName, SourceSection
from configs.keys import derive_seed
from configs.rows import Problem
from configs.schema import PromptSection
from data_gen.decontaminate import decontaminate
from data_gen.problems import strip_calculator_marks

_ASK = {
    "number": "{question}\n\nWork it out step by step. Give the final number alone on the last line, after ####.",
    "boxed": "{question}\n\nShow the steps that lead to the answer, and write the final answer in \\boxed{}.",
    "given": "{question}\n\nWork it out step by step before that line.",  # the question says how to end
}
_FORM = {"gsm8k": "number", "procedural": "number", "knights": "given"}  # others may have answers that are no numbers
# worked examples of `few_shot`, where none are given
SHOTS = {"gsm8k": 8, "math": 4, "math500": 4, "procedural": 4, "knights": 4}
_TRAINING = {"gsm8k": "gsm8k", "math": "math", "math500": "math"}
_PUZZLES = 1_000_003  # seed of the puzzles that are shown: one that no run is likely to train on
_LONGEST = 120  # words of a worked example taken from a training split


class EvalPrompt(msgspec.Struct, frozen=True):
    """A named prompt for one source: its section, and the strings that end an answer."""

    section: PromptSection
    stop: list[str]


def eval_prompt(name: PromptName, source: str) -> EvalPrompt:
    """`chat`: the model's chat template, asked in words. `plain`: text to complete, for base models. `few_shot`: the same,
    with worked examples before it."""
    if name == "chat":
        return EvalPrompt(PromptSection(style="chat", template=_ASK[_FORM.get(source, "boxed")]), [])
    return EvalPrompt(PromptSection(style="plain", template="Problem: {question}\nSolution:"), ["\nProblem:"])


def shots_source(source: SourceSection) -> SourceSection:
    """Where worked examples for a source come from. Raises ConfigError where there is no training split."""
    if source.source == "procedural":
        return SourceSection(source="procedural", limit=64, levels=source.levels, max_number=source.max_number)
    if source.source == "knights":
        same = source.model_dump(include={"people", "depth", "width"})
        return SourceSection(source="knights", limit=16, seed=_PUZZLES, **same)
    if source.source not in _TRAINING:
        raise ConfigError(
            f"source {source.source} has no training split to take worked examples from: give them with "
            "evaluation.shots_file=FILE.jsonl (question, answer and solution in each line)"
        )
    return SourceSection.model_validate({"source": _TRAINING[source.source], "split": "train"})


def choose_shots(pool: Sequence[Problem], evaluation: Sequence[Problem], count: int) -> list[Problem]:
    """`count` problems of a training split to show: always the same ones, so that evaluations can be compared.

    Of those with a solution of at most 120 words (puzzles have no short ones: any), without a figure's program text, and not in
    `evaluation` by the rule of `data_gen.decontaminate`; from different subjects as far as there are any. Raises InputError
    where there are too few.
    """
    usable = [p for p in pool if p.solution and "[asy]" not in p.question + p.solution and _short(p)]
    random.Random(derive_seed("shots")).shuffle(usable)
    waiting = usable[: 50 * count]  # comparing all of a training split with the evaluation set is not needed
    kept, _ = decontaminate(waiting, evaluation)
    chosen: list[Problem] = []
    while kept and len(chosen) < count:
        subjects: set[str | None] = set()
        later: list[Problem] = []
        for problem in kept:
            fresh = problem.subject not in subjects or problem.subject is None
            (chosen if fresh else later).append(problem)
            subjects.add(problem.subject)
        kept = later
    if len(chosen) < count:
        raise InputError(f"evaluation.shots: {count} worked examples wanted, the training split has {len(chosen)} that fit")
    return chosen[:count]


def given_shots(rows: Sequence[Problem], evaluation: Sequence[Problem], count: int | None) -> list[Problem]:
    """The first `count` rows of one's own file (None: all), in order. Raises InputError for a row without a solution, too
    few rows, or one that is in `evaluation`."""
    chosen = list(rows if count is None else rows[:count])
    if count is not None and len(chosen) < count:
        raise InputError(f"evaluation.shots: {count} worked examples wanted, evaluation.shots_file has {len(chosen)}")
    for problem in chosen:
        if not problem.solution:
            raise InputError(f"evaluation.shots_file: {problem.id} has no solution to show")
    _, dropped = decontaminate(chosen, evaluation)
    if dropped:
        raise InputError(f"evaluation.shots_file: {dropped[0].problem} is in the evaluation set, as {dropped[0].evaluation}")
    return chosen


def shown(problem: Problem) -> tuple[str, str]:
    """A worked example as question and solution."""
    return problem.question, strip_calculator_marks(problem.solution or "").strip()


def _short(problem: Problem) -> bool:
    return problem.source == "knights" or len(f"{problem.question} {problem.solution}".split()) <= _LONGEST
