"""Numeric variants of problems whose solution carries calculator marks (GSM8K, Cobbe et al. 2021, arXiv:2110.14168).

A solution such as "48/2 = <<48/2=24>>24" is a chain of calculations: what each starts from is a number of the question, an
earlier result, or a number that words explain ("twice", "week"). With other numbers in the question the chain gives other
results, exactly; every number of the solution's text is then replaced by what its value has become. This is right only if
a value means one thing throughout, so a problem where 12 is both a result and the dozen, or where a number comes from
nowhere, has no variants. What other numbers would make absurd is left alone (see `data_gen.quantities`): integers stay
integers, the larger number stays the larger one, nothing that was positive becomes zero.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import msgspec

from configs.errors import ConfigError
from configs.keys import derive_seed
from configs.rows import Problem
from data_gen.arithmetic import MARK, PLAIN, equalities, outside_marks
from data_gen.problems import gsm8k_answer
from data_gen.quantities import Quantity, article_fits, constants, in_words, limits, quantities, variable, written
from rewards.arithmetic import exact_value
from rewards.exact import Budget, rational
from rewards.limits import LimitError, ParseError, Undefined
from rewards.nodes import Node
from rewards.parser import parse

TRIES = 200  # draws of new numbers for one variant; more of them give hardly any more variants
_MOST_LITERALS = 12  # in one calculation
_KEEP = 0.25  # chance of a number to stay as it is in one draw, so that some may vary where others cannot

Values = Mapping[Fraction, Fraction]


@dataclass(frozen=True)
class Calculation:
    """An expression in place of whose numbers, `literals`, others may be put (symbols x_0, x_1, ...), and its result."""

    node: Node
    literals: tuple[Fraction, ...]
    result: Fraction

    def value(self, new: Values) -> Fraction | None:
        """The result with other literals, None where there is none."""
        try:
            return rational(self.node, {f"x_{i}": new[v] for i, v in enumerate(self.literals)}, Budget())
        except (LimitError, Undefined):
            return None


@dataclass(frozen=True)
class Template:
    """A problem that may have variants: its chain, numbers of the question that may vary, values that stay (as a mapping to
    themselves)."""

    problem: Problem
    solution: str
    chain: tuple[Calculation, ...]
    varied: tuple[Quantity, ...]
    fixed: dict[Fraction, Fraction]
    order: tuple[tuple[Fraction, Fraction], ...]  # the first of a pair is to stay the smaller one
    percent: bool  # results up to 100 may be percentages
    words: frozenset[Fraction]  # values that the solution has in words


def variants(problem: Problem, count: int, first: int = 0) -> list[Problem]:
    """Up to `count` problems like this one with other numbers and the solution that follows, without the `first` ones; none
    where its solution has no calculator marks or leaves a doubt. A variant is the same in every run; its id is
    `ID/variant/K`, K from 0.

    Raises ConfigError for a negative count.
    """
    if count < 0 or first < 0:
        raise ConfigError(f"variants: count and first must be 0 or more, not {count} and {first}")
    template = template_of(problem) if count else None
    found: list[Problem] = []
    if template is None:
        return found
    seen = {problem.question}
    for k in range(first + count):
        rng = random.Random(derive_seed("variants", problem.id, problem.question, k))
        for _ in range(TRIES):
            made = _draw(template, rng, len(found))
            if made is not None and made.question not in seen:
                seen.add(made.question)
                found.append(made)
                break
        else:
            break  # what so many draws do not give, as many more will hardly give
    return found[first:]


def template_of(problem: Problem) -> Template | None:
    """What variants are made of; None where the problem should have none."""
    solution = problem.solution or ""
    chain = chain_of(solution)
    if not chain or exact_value(problem.answer.replace(",", "")) != chain[-1].result:
        return None
    results = {c.result for c in chain}
    used = {v for c in chain for v in c.literals}
    varied = [q for q in variable(problem.question) if q.value in used and q.value not in results]
    fixed = constants(problem.question, MARK.sub("", solution), frozenset(q.value for q in varied))
    known = fixed | {q.value for q in varied}
    told = known | results
    if not varied or not all(q.value in told for q in quantities(solution)):
        return None
    for calculation in chain:  # a number that only a later calculation gives comes from one that is not written
        if not all(v in known for v in calculation.literals):
            return None
        known.add(calculation.result)
    given = {q.value for q in quantities(problem.question)}
    order = [pair for group in (given, results) for pair in itertools.combinations(sorted(group), 2)]
    percent = bool(re.search(r"%|percent", problem.question))
    words = frozenset(Fraction(v) for v in in_words(solution))
    return Template(problem, solution, tuple(chain), tuple(varied), {v: v for v in fixed}, tuple(order), percent, words)


def chain_of(solution: str) -> list[Calculation] | None:
    """The calculations of a solution, marked and (where they are plain arithmetic) written out, in order of place. None
    where it has no marks, one is no plain arithmetic or does not hold exactly, or `####` is not the last marked result."""
    found: list[tuple[int, Calculation]] = []
    last: Fraction | None = None
    for mark in MARK.finditer(solution):
        left, equals, right = mark.group(1).partition("=")
        calculation = _calculation(left) if equals else None
        if calculation is None or exact_value(right.replace(",", "")) != calculation.result:
            return None
        found.append((mark.start(), calculation))
        last = calculation.result
    answer = gsm8k_answer(solution)
    if last is None or answer is None or exact_value(answer) != last:
        return None
    for equality in equalities(outside_marks(solution)):
        calculation = _calculation(equality.left.expression()) if equality.left.operators else None
        if equality.right.bare and calculation is not None and equality.right.value() == calculation.result:
            found.append((equality.left.start, calculation))
    return list(dict.fromkeys(c for _, c in sorted(found, key=lambda f: f[0])))  # the text repeats what is in the marks


def holds(problem: Problem) -> bool:
    """Whether all marks of a solution hold exactly, its answer is the last one's result, and no equality in its text is
    false. Looks at the text alone."""
    solution = problem.solution or ""
    last: Fraction | None = None
    for mark in MARK.finditer(solution):
        left, _, right = (side.replace(",", "") for side in mark.group(1).partition("="))
        last = exact_value(right)
        if last is None or exact_value(left) != last:
            return False
    right_answer = last is not None and exact_value(problem.answer) == last == exact_value(gsm8k_answer(solution) or "")
    return right_answer and all(e.status != "false" for e in equalities(solution))


def _calculation(expression: str) -> Calculation | None:
    """An expression of numbers, signs and brackets; None for anything else."""
    if not PLAIN.fullmatch(expression):
        return None
    literals = quantities(expression)
    if not 0 < len(literals) <= _MOST_LITERALS:
        return None
    pieces, end = [], 0
    for i, q in enumerate(literals):
        pieces += [expression[end : q.start], f"x_{{{i}}}"]
        end = q.end
    result = exact_value(expression.replace(",", ""))
    try:
        node = parse("".join([*pieces, expression[end:]]))
    except (LimitError, ParseError, Undefined):
        return None
    values = tuple(q.value for q in literals)
    calculation = Calculation(node, values, result) if result is not None else None
    # read in two ways ("2 3"), it would be another expression with symbols than with numbers
    return calculation if calculation and calculation.value({v: v for v in values}) == result else None


def _draw(template: Template, rng: random.Random, number: int) -> Problem | None:
    """One draw of new numbers; the variant where they fit."""
    new = {q.value: q.value if rng.random() < _KEEP else _near(int(q.value), rng) for q in template.varied}
    values = _follow(template, new)
    if values is None or not _plausible(template, values):
        return None
    problem, changed = template.problem, {q.start for q in template.varied}
    question = _replaced(problem.question, [q for q in quantities(problem.question) if q.start in changed], values)
    solution = _replaced(template.solution, quantities(template.solution), values)
    if question is None or solution is None:
        return None
    made = msgspec.structs.replace(
        problem, id=f"{problem.id}/variant/{number}", parents=[problem.id], stage="variants", question=question,
        solution=solution, answer=gsm8k_answer(solution) or "",
    )  # fmt: skip
    return made if holds(made) else None


def _near(old: int, rng: random.Random) -> Fraction:
    """A number from half to double the old one, at least 2, as round as it."""
    step = next((s for s in (1000, 100) if old % s == 0 and old >= 5 * s), 1)
    if step == 1:
        step = next((s for s in (50, 10, 5) if old % s == 0 and old >= (2 if s < 50 else 4) * s), 1)
    low, high = max(2, -(-old // 2)), 2 * old
    return Fraction(step * rng.randint(-(-low // step), high // step))


def _follow(template: Template, new: Values) -> dict[Fraction, Fraction] | None:
    """What each value of the problem becomes; None where one would become two, the answer stays, or a new number is not of
    the kind of the old one."""
    values = {**template.fixed, **new}
    if any(_unlike(old, value) for old, value in new.items()):
        return None
    for calculation in template.chain:
        old, result = calculation.result, calculation.value(values)
        if result is None or values.setdefault(old, result) != result or _unlike(old, result):
            return None
        if template.percent and (old <= 100) != (result <= 100):
            return None
    answer = template.chain[-1].result
    return values if values[answer] != answer else None


def _unlike(old: Fraction, new: Fraction) -> bool:
    """Whether one of the two is whole, positive, negative, 1 or below 1 and the other is not, or far larger."""
    if old == new:
        return False
    if old.denominator == 1 and new.denominator > 1:
        return True
    kinds = [(v > 0, v < 0, v == 1, abs(v) < 1) for v in (old, new)]
    return kinds[0] != kinds[1] or new > 10 * old > 0


def _plausible(template: Template, values: Values) -> bool:
    """Whether the order of size stays, of the question's numbers and of the results each among themselves, and nothing
    that the solution has in words is another number now."""
    kept = all(values.get(a, a) < values.get(b, b) for a, b in template.order)
    return kept and all(values.get(v, v) == v for v in template.words)


def _replaced(text: str, numbers: Sequence[Quantity], values: Values) -> str | None:
    """The text with `numbers` replaced by what they have become; None where one cannot be written or is out of place."""
    pieces, end = [], 0
    for q in numbers:
        value = values[q.value]
        if value == q.value:
            continue
        new = written(value, q)
        glued = text[q.end : q.end + 1].isalpha() or text[max(0, q.start - 1) : q.start].isalpha()
        if new is None or glued or not article_fits(text, q, new):
            return None
        if any((q.value <= limit) != (value <= limit) for limit in limits(text, q)):
            return None
        pieces += [text[end : q.start], new]
        end = q.end
    return "".join([*pieces, text[end:]])
