"""Inverse problems: the same story with one of its numbers unknown, and the answer told instead.

Backward questions are FOBAR's (Jiang et al. 2023, arXiv:2308.07758), which checks answers with them; MetaMath (Yu et al.
2023, arXiv:2309.12284) trains on such questions, with solutions that a model has written. Here the solution follows from
the calculator marks of the original one by exact arithmetic: where a number of the question goes into one calculation,
that one's result into one later calculation, and so on up to the answer, each calculation on this path is solved for what
came into it, from the answer back. Who has learned the story by heart has learned the other chain of calculations.

What a problem must be like so that its chain is known is said in `data_gen.variants`. Besides, no value on the path may
have a second meaning, and every result must be a number that one would write down: nothing negative, no more than two
decimals.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from fractions import Fraction

import msgspec

from configs.errors import ConfigError
from configs.keys import derive_seed
from configs.rows import Problem
from data_gen.arithmetic import MARK
from data_gen.quantities import Quantity, article_fits, constants, written
from data_gen.solving import SHORT, line_of, solved
from data_gen.variants import Calculation, Template, holds, template_of
from rewards.nodes import Pow, walk

_ASK = "If the answer to this question is {answer}, what is the value of x?"
# Of a difference, a choice or a rest it is not said which side is the larger one: two numbers may give the same answer. And
# "how many packs does she need" rounds up without saying so: with a few people more they are as many.
_EITHER = re.compile(r"\b(?:differences?|cheaper|unable|apart|sav(?:e|ed|ings?) by)\b", re.IGNORECASE)
_ROUNDED = re.compile(
    r"how many\b[^.?!]*\b(?:needs?|needed|can|could|must|has to|have to|had to|required?|able|times|trips|left over)\b",
    re.IGNORECASE,
)
_TAKEN = re.compile(r"(?<![a-z])x(?![a-z])", re.IGNORECASE)  # a question that has an x of its own ("2x as many")


def inverses(problem: Problem, count: int) -> list[Problem]:
    """Up to `count` problems that ask for a number of this one's question; none where its solution has no calculator marks
    or leaves a doubt. They are the same in every run, fewer are the first of more; ids are `ID/inverse/K`, K from 0.

    Raises ConfigError for a negative count.
    """
    if count < 0:
        raise ConfigError(f"inverses: count must be 0 or more, not {count}")
    doubtful = _TAKEN.search(problem.question) or _EITHER.search(problem.question)
    template = template_of(problem) if count and not doubtful else None
    found: list[Problem] = []
    if template is None:
        return found
    numbers = list(template.varied)
    random.Random(derive_seed("inverses", problem.id, problem.question)).shuffle(numbers)
    for number in numbers:
        made = _inverse(template, number, len(found)) if len(found) < count else None
        found += [made] if made else []
    return found


def _inverse(template: Template, number: Quantity, k: int) -> Problem | None:
    """The problem that asks for `number`, None where it would be doubtful."""
    problem, chain = template.problem, template.chain
    question = f"{problem.question[: number.start]}x{problem.question[number.end :]}"
    answer, told = written(number.value, SHORT), written(chain[-1].result, SHORT)
    # "x" is spoken with a vowel first, as 8 is; what words explain ("half": 2) need not be the number of the question
    if answer is None or told is None or not article_fits(problem.question, number, "8"):
        return None
    if number.value in constants(question, MARK.sub("", template.solution), frozenset()):
        return None
    path = _path(template, number.value)
    if path is None or (_ROUNDED.search(problem.question) and any(_divides(chain[i]) for i in path)):
        return None
    lines = _lines(chain, path, number.value)
    if not lines or not _decides(template, number.value, Fraction(answer)):
        return None
    made = msgspec.structs.replace(
        problem, id=f"{problem.id}/inverse/{k}", parents=[problem.id], stage="inverses", answer=answer,
        question=f"{question.rstrip()} {_ASK.format(answer=told)}", solution="\n".join([*lines, f"#### {answer}"]),
    )  # fmt: skip
    return made if holds(made) else None


def _divides(calculation: Calculation) -> bool:
    return any(isinstance(node, Pow) for node in walk(calculation.node))


def _path(template: Template, value: Fraction) -> list[int] | None:
    """Places of the calculations through which a value goes to the answer, None where it or what becomes of it is used
    more than once, or is a value of something else too."""
    chain = template.chain
    uses = Counter(v for c in chain for v in c.literals)
    results = Counter(c.result for c in chain)
    path: list[int] = []
    while uses[value] == 1 and len(path) < len(chain):
        path.append(next(i for i, c in enumerate(chain) if value in c.literals))
        value = chain[path[-1]].result
        if path[-1] == len(chain) - 1:
            return path
        if results[value] > 1 or value in template.fixed:
            return None
    return None


def _lines(chain: tuple[Calculation, ...], path: list[int], start: Fraction) -> list[str] | None:
    """The solution without its answer: what the path needs from beside it, then the path backwards."""
    lines: list[str] = []
    beside = _beside(chain, path)
    if beside is None:
        return None
    for i in beside:
        line = line_of(chain[i])
        if line is None:
            return None
        lines.append(line)
    for place in reversed(range(len(path))):
        undone = solved(chain[path[place]], chain[path[place - 1]].result if place else start)
        if undone is None:
            return None
        lines += undone
    return list(dict.fromkeys(lines))


def _beside(chain: tuple[Calculation, ...], path: list[int]) -> list[int] | None:
    """Calculations whose results the path needs, None where two of them give one value: it may mean two things. None of them
    depends on the unknown: what does is used on the path alone."""
    needed: list[int] = []
    wanted: set[Fraction] = set()
    for i in reversed(range(len(chain))):
        calculation = chain[i]
        if i in path:
            wanted.update(calculation.literals)
        elif calculation.result in wanted and calculation.result not in calculation.literals:  # "5=5" says nothing
            before = next((chain[n] for n in needed if chain[n].result == calculation.result), None)
            wanted.update(calculation.literals)
            if before is None:
                needed.append(i)
            elif sorted(before.literals) != sorted(calculation.literals):  # the text may have "5*2" and its mark "2*5"
                return None
    return needed[::-1]


def _decides(template: Template, old: Fraction, found: Fraction) -> bool:
    """Whether the original calculations lead from what was found in place of `old` to the told answer, and from the number
    beside it elsewhere."""
    answers: list[Fraction | None] = []
    for new in (found, found + 1):
        values = {**template.fixed, **{q.value: q.value for q in template.varied}, old: new}
        for calculation in template.chain:
            result = calculation.value(values)
            if result is None:
                return False
            values[calculation.result] = result
        answers.append(values[template.chain[-1].result])
    told = template.chain[-1].result
    return answers[0] == told != answers[1]
