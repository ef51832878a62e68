r"""The catalogue of errors: which fit a step, the programmatic editor, and what an edit becomes in tokens.

Errors and the tests on a step's tail are those of RISE (arXiv 2410.06638); where its code changes a value only in
steps with one number, `change_value` is here allowed with several. The programmatic editor replaces by position what
`data_gen.arithmetic` has read, so nothing else moves and a number that occurs twice changes where it should.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, get_args

from configs.schema import ErrorType
from data_gen.arithmetic import Equality, Member, Number, Token, equalities, numbers
from data_gen.certify import common_prefix
from data_gen.steps import decode, tail_start
from rewards.arithmetic import exact_value

ERRORS: tuple[ErrorType, ...] = get_args(ErrorType)
_LATEX = {"*": r"\times", "/": r"\div"}
_OPERATION = {
    "+": "+", "-": "-", "\u2212": "-", "\u2013": "-", "*": "*", "x": "*", "X": "*", "\u00d7": "*", "\u00b7": "*",
    r"\times": "*", r"\cdot": "*", "/": "/", "\u00f7": "/", r"\div": "/",
}  # fmt: skip
_OPPOSITES = (
    ("more", "fewer"), ("before", "after"), ("first", "last"), ("each", "all"), ("gives", "gets"), ("buys", "sells"),
    ("bought", "sold"), ("total", "difference"), ("sum", "product"), ("increase", "decrease"), ("larger", "smaller"),
    ("greater", "less"), ("even", "odd"), ("positive", "negative"), ("half", "twice"), ("add", "subtract"),
    ("multiply", "divide"), ("most", "least"), ("maximum", "minimum"), ("area", "perimeter"), ("width", "length"),
)  # fmt: skip
_OPPOSITE = {**dict(_OPPOSITES), **{b: a for a, b in _OPPOSITES}}

Change = tuple[int, int, str]
"""Replace the characters at [start, end) by the text."""


def eligible(step: str) -> list[ErrorType]:
    """The errors that fit the tail of a step, by surface tests."""
    tail = step[tail_start(step) :]
    count, equation = len(numbers(tail)), "=" in tail
    found: list[ErrorType] = []
    if count:
        found.append("change_value")
    if count > 1:
        found.append("change_values")
    if equation:
        found.extend(("wrong_substitution", "drop_term", "change_operator", "swap_terms"))
    if not found:
        found.append("misread")
    return found


def splice(text: str, changes: Sequence[Change]) -> str:
    """`text` with non-overlapping changes made, all positions those of the text as given."""
    for start, end, new in sorted(changes, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def edited_ids(tokenizer: Any, step_ids: Sequence[int], original: str, edited: str) -> list[int]:
    """Token ids of an edited step: the sample's own up to the change, the rest encoded.

    The cut is the last token boundary at or before the first changed character from which encoding agrees with one
    that began a token earlier: so a digit that the tokenizer would have joined to the new text is encoded with it.
    Unchanged text gives the ids as they are.
    """
    if edited == original:
        return list(step_ids)
    head = common_prefix(original, edited)
    cut = len(step_ids)
    while cut and not edited[:head].startswith(decode(tokenizer, step_ids[:cut])):
        cut -= 1
    rest = _encoded_after(tokenizer, step_ids, edited, cut)
    while cut:
        earlier = _encoded_after(tokenizer, step_ids, edited, cut - 1)
        if earlier == [step_ids[cut - 1], *rest]:
            break
        cut, rest = cut - 1, earlier
    return [*step_ids[:cut], *rest]


def _encoded_after(tokenizer: Any, step_ids: Sequence[int], text: str, cut: int) -> list[int]:
    """Ids of `text` without what the first `cut` ids say."""
    return tokenizer(text[len(decode(tokenizer, step_ids[:cut])) :], add_special_tokens=False)["input_ids"]


# -- the programmatic editor ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """A step as the editor sees it: its text, where the editable tail begins, the equalities in it, numbers at hand."""

    text: str
    tail: int
    equalities: tuple[Equality, ...]
    others: tuple[Number, ...]
    rng: random.Random
    consistent: bool

    def after(self, end: int) -> list[Number]:
        """Numbers behind `end` that belong to no equality."""
        taken = {n.start for e in self.equalities for m in (e.left, e.right) for n in m.numbers}
        return [n for n in numbers(self.text) if n.start >= end and n.start not in taken]


def programmatic_edits(step: str, error: ErrorType, context: str, seed: int, consistent: bool = False) -> Iterator[str]:
    """Edited steps with an error of one type, in seeded order, without repetition; none where it cannot be made.

    `context` is the text before the step, question included: substituted numbers come from it. With `consistent`, edits
    follow whose own arithmetic is right, such as `5 + 8 = 13` made `5 - 8 = -3`: only rollouts can show them wrong.
    """
    if "<<" in step:
        return  # a calculator mark repeats its equality: editing one of the two would give the edit away
    rng = random.Random(seed)
    start = tail_start(step)
    found = tuple(e for e in equalities(step) if e.left.start >= start)
    pool = tuple(n for n in (*numbers(context), *numbers(step)))
    seen = {step}
    for follow in (False, True) if consistent else (False,):
        view = _Step(step, start, found, pool, rng, follow)
        changes = list(_EDITORS[error](view))
        rng.shuffle(changes)
        for change in changes:
            text = splice(step, change)
            if text not in seen:
                seen.add(text)
                yield text


def _change_value(s: _Step) -> Iterator[list[Change]]:
    """The result of an equality, with its mentions behind it; without an equality, any number of the tail."""
    for e in s.equalities:
        if e.right.bare:
            result = e.right.numbers[0]
            mentions = [n for n in s.after(result.end) if n.value == result.value]
            yield from ([(n.start, n.end, new) for n in (result, *mentions)] for new in plausible(result, e.left))
    if not s.equalities:
        for n in numbers(s.text):
            if n.start >= s.tail:
                yield from ([(n.start, n.end, new)] for new in plausible(n, None))


def _change_values(s: _Step) -> Iterator[list[Change]]:
    """A result and what is computed from it later in the step: the first equality is false, the others hold."""
    for index, e in enumerate(s.equalities[:-1]):
        for n in e.right.numbers:
            for new in plausible(n, e.left if e.right.bare else None):
                changes = _carried(s, index, n, new)
                if changes is not None and len(changes) > 1:
                    yield changes


def _carried(s: _Step, index: int, number: Number, new: str) -> list[Change] | None:
    """The changes that follow from writing `new` in place of a number of the right side of equality `index`.

    None where a result that follows cannot be written in the form of the old one.
    """
    changed = {number.start: (number.end, new)}
    values = {number.value: Fraction(new.replace(",", ""))} if s.equalities[index].right.bare else {}
    for e in s.equalities[index + 1 :]:
        for n in e.left.numbers:
            if n.start not in changed and n.start > number.start and n.value in values:
                text = written(values[n.value], n)
                if text is None:
                    return None
                changed[n.start] = (n.end, text)
        if any(n.start in changed for n in e.left.numbers):
            if not e.right.bare:
                return None
            result = e.right.numbers[0]
            value = _value_with(e.left, {start: text for start, (_, text) in changed.items()})
            text = written(value, result) if value is not None else None
            if text is None:
                return None
            changed[result.start] = (result.end, text)
            values[result.value] = Fraction(text.replace(",", ""))
    for n in s.after(number.end):
        if n.value in values and (text := written(values[n.value], n)) is not None:
            changed[n.start] = (n.end, text)
    return [(start, end, text) for start, (end, text) in changed.items()]


def _wrong_substitution(s: _Step) -> Iterator[list[Change]]:
    """Another number of the problem in place of an operand."""
    for e in s.equalities:
        for n in e.left.numbers if not e.left.bare else ():
            for other in {o.value: o for o in s.others if o.value not in (n.value, 0)}.values():
                text = written(other.value, Number(0, 0, other.value, other.places, n.grouped))
                if text is not None:
                    yield from _kept_or_followed(s, e, [(n.start, n.end, text)])


def _drop_term(s: _Step) -> Iterator[list[Change]]:
    """An operand and its sign, of sides with at least three."""
    for e in s.equalities:
        terms = e.left.numbers
        flat = all(t.kind in ("number", "op") for t in e.left.tokens) and not set(e.left.words) - {"$"}
        if flat and len(terms) > 2 and len(e.left.operators) == len(terms) - 1 and "^" not in e.left.expression():
            for i, n in enumerate(terms):
                span = (terms[i - 1].end, n.end, "") if i else (n.start, terms[1].start, "")
                yield from _kept_or_followed(s, e, [span])


def _change_operator(s: _Step) -> Iterator[list[Change]]:
    """Another operation in the spelling of the text around."""
    for e in s.equalities:
        for t in e.left.operators:
            # "of" and signs of negative numbers stay
            if t.start != e.left.start and s.text[t.start : t.end] in _OPERATION and _binary(e.left, t):
                for new in _other_operators(s.text, s.text[t.start : t.end]):
                    if new[0] == "\\" and s.text[t.end : t.end + 1].isalnum():
                        new += " "
                    yield from _kept_or_followed(s, e, [(t.start, t.end, new)])


def _swap_terms(s: _Step) -> Iterator[list[Change]]:
    """Two numbers of an equality in each other's place."""
    for e in s.equalities:
        terms = (*e.left.numbers, *(e.right.numbers if e.right.bare else ()))
        for i, a in enumerate(terms):
            for b in terms[i + 1 :]:
                if a.value != b.value:
                    yield [(a.start, a.end, s.text[b.start : b.end]), (b.start, b.end, s.text[a.start : a.end])]


def _misread(s: _Step) -> Iterator[list[Change]]:
    """A word turned into its opposite, where there is nothing to calculate."""
    for m in re.finditer(r"[A-Za-z]+", s.text):
        new = _OPPOSITE.get(m.group().lower())
        if new and m.start() >= s.tail:
            yield [(m.start(), m.end(), new.capitalize() if m.group()[0].isupper() else new)]


_EDITORS: dict[ErrorType, Callable[[_Step], Iterator[list[Change]]]] = {
    "change_value": _change_value, "change_values": _change_values, "wrong_substitution": _wrong_substitution,
    "drop_term": _drop_term, "change_operator": _change_operator, "swap_terms": _swap_terms, "misread": _misread,
}  # fmt: skip


def _kept_or_followed(s: _Step, e: Equality, changes: list[Change]) -> Iterator[list[Change]]:
    """Changes of a left side, the result kept (a false equality) or, for a consistent edit, computed anew."""
    if not s.consistent:
        yield changes
        return
    if not e.right.bare:
        return
    result = e.right.numbers[0]
    edited = next((x for x in equalities(splice(s.text, changes)) if x.left.start == e.left.start and x.right.bare), None)
    value = edited.left.value() if edited else None
    text = written(value, result) if value is not None else None
    if text is not None:
        yield [*changes, (result.start, result.end, text)]


def _binary(member: Member, operator: Token) -> bool:
    """Whether the operator stands between two operands (it is no sign)."""
    at = next(i for i, t in enumerate(member.tokens) if t.start == operator.start)
    return at > 0 and member.tokens[at - 1].kind in ("number", "close", "percent")


def _other_operators(text: str, old: str) -> list[str]:
    """The other three operations, spelled as the text spells them."""
    latex = "\\times" in text or "\\cdot" in text or "\\div" in text or "\\frac" in text
    unicode_ = "\u00d7" in text or "\u00f7" in text
    letter = re.search(r"\d ?x ?\$?\d", text) is not None
    spelled = {"+": "+", "-": "-", "*": "x" if letter else "*", "/": "/"}
    if latex:
        spelled |= _LATEX
    elif unicode_:
        spelled |= {"*": "\u00d7", "/": "\u00f7"}
    return [sign for operation, sign in spelled.items() if operation != _OPERATION[old]]


def _value_with(member: Member, replaced: dict[int, str]) -> Fraction | None:
    """The value of a member with some numbers (by start) written anew."""
    tokens = tuple(Token(t.kind, replaced.get(t.start, t.text), t.start, t.end) for t in member.tokens)
    return exact_value(Member(member.start, member.end, tokens, member.words).expression())


def written(value: Fraction, like: Number) -> str | None:
    """`value` in the form of a number: its decimals and separators. None if it is negative or does not fit the form."""
    scaled = value * 10**like.places
    if scaled.denominator != 1 or scaled < 0:
        return None
    comma = "," if like.grouped else ""
    whole, part = divmod(int(scaled), 10**like.places)
    return f"{whole:{comma}}" + (f".{part:0{like.places}}" if like.places else "")


def plausible(number: Number, left: Member | None) -> list[str]:
    """Wrong values that a slip would give, in the form of the number: never zero or below where it was above.

    One or two off in the last digit, ten off, two digits exchanged; of a sum or difference also a forgotten carry.
    """
    unit, value = Fraction(1, 10**number.places), number.value
    found = [value + k * unit for k in (1, -1, 2, -2)]
    scaled = str(int(value / unit))
    if len(scaled) > 1:
        found += [value + k * unit for k in (10, -10)]
        exchanged = [scaled[:i] + scaled[i + 1] + scaled[i] + scaled[i + 2 :] for i in range(len(scaled) - 1)]
        found += [int(digits) * unit for digits in exchanged if digits[0] != "0"]
    if left is not None and len(left.numbers) == 2 and [t.text for t in left.operators] in (["+"], ["-"]):
        forgotten = _without_carry(left, number)
        found += [forgotten] if forgotten is not None else []
    texts = (written(v, number) for v in dict.fromkeys(found) if v != value and (v > 0 or value <= 0))
    return [t for t in texts if t is not None]


def _without_carry(left: Member, number: Number) -> Fraction | None:
    """a + b or a - b digit by digit without carrying, for whole numbers."""
    a, b = left.numbers
    if a.places or b.places or number.places:
        return None
    sign = 1 if left.operators[0].text == "+" else -1
    x, y, out, power = int(a.value), int(b.value), 0, 1
    while x or y:
        out += (x % 10 + sign * (y % 10)) % 10 * power
        x, y, power = x // 10, y // 10, power * 10
    return Fraction(out)
