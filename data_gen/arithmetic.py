r"""Equalities between numbers in free text: found with their positions, evaluated exactly, and judged.

Read are `3 + 4 = 7`, `$5 * 2 = $10`, `3 \times 4`, `\frac{3}{4} \cdot 8`, `25% of 80`, `48/2 = <<48/2=24>>24`, units
(`3 boxes * 4 pens = 12 pens`) and chains (`2 * 3 + 1 = 6 + 1 = 7`). The reader is right rather than complete: it leaves
out whatever stands beside a letter, a sign or a word that might belong to it (`x + 3 = 7`, `half of 8 = 4`, `= 3 million`).

An equality "holds" when both sides are equal or the right one is the left one rounded as written. It is "false" only
when no customary reading makes it true; between the two it is "unclear": cut instead of rounded decimals, whole numbers
in place of fractions, sides that differ by the factor of a unit or a percent sign.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

from rewards.arithmetic import exact_value

Status = Literal["holds", "false", "unclear"]

_TOKEN = re.compile(
    r"""
    (?P<number>(?:(?<![\w.,:])|(?<=\d[xX]))(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:(?=[xX]\d)|(?!\w))(?!,\d|\.\d|:\d))
  | (?P<skip>[ \t]+|\\[,;:! ]|\\q?quad(?![A-Za-z])|~|&(?==)|(?<==)&
      |(?<![^\s(=])\*\*(?=[\d$(])|(?<=[\d%).])\*\*(?=[\s.,;:)]|$))
  | (?P<currency>\\?\$|[€£])
  | (?P<percent>\\?%)
  | (?P<equals>(?<![<>!:=~])=(?![=>]))
  | (?P<op>\\(?:times|cdot|div)(?![A-Za-z])|[-+*/^\u00d7\u00f7\u00b7\u2212\u2013]|(?<=\d)[xX](?=\d))
  | (?P<frac>\\[dt]?frac(?={))
  | (?P<box>\\boxed(?={)|\\fbox(?={))
  | (?P<open>\\left\(|[({])
  | (?P<close>\\right\)|[)}])
  | (?P<unit>\\(?:text|mbox|mathrm)\{[ a-zA-Z.]*\})
  | (?P<word>[A-Za-z]+(?:['-][A-Za-z]+)*)
  | (?P<break>\n|\\\\|\\[\[\]()])
  | (?P<point>[.,;](?=[\s$*)]|$)|:(?=\s|$)|[.,;](?=\\[\])])|≈|\\approx(?![A-Za-z]))
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
MARK = re.compile(r"<<([^<>\n]*)>>")  # a calculator mark of GSM8K
PLAIN = re.compile(r"[\d.,+\-*/() ]+")  # numbers, signs and brackets
_NUMBER_AT = re.compile(r"(?<![\d.,])(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
_SIGN = {r"\times": "*", r"\cdot": "*", "\u00d7": "*", "\u00b7": "*", "x": "*", "X": "*", r"\div": "/", "\u00f7": "/",
         "\u2212": "-", "\u2013": "-"}  # fmt: skip
_MINUS = "-\u2212\u2013"
_SIGN |= {r"\left(": "(", r"\right)": ")"}
_SPELLING = {"frac": r"\frac", "box": r"\boxed"}
_WORDS_OF_MATHS = frozenset(
    "of minus plus times by over per half twice double triple thrice square squared cube cubed root sqrt log ln sin cos "
    "tan exp mod modulo remainder negative percent dozen hundred thousand million billion trillion pair couple zero one "
    "two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty sixty seventy eighty ninety "
    "quarter quarters third thirds fourth fourths fifth fifths sixth sixths eighth tenth tenths halves score gross choose "
    "factorial divided multiplied added subtracted power than quadruple not isn't".split()
)
_FACTORS = frozenset(
    Fraction(n) for n in (10, 12, 14, 16, 20, 24, 25, 28, 30, 31, 36, 50, 52, 60, 100, 360, 365, 366, 1000, 1440, 1760, 2000,
                          3600, 5280, 86400, 2, 3, 4, 5, 6, 7, 8)
)  # fmt: skip
_MOST_UNIT_WORDS = 4


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text at [start, end). `kind` is a group of the token pattern."""

    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Number:
    """A number as written at [start, end): exact value, decimals, and whether it has thousands separators."""

    start: int
    end: int
    value: Fraction
    places: int
    grouped: bool = False


@dataclass(frozen=True)
class Member:
    """One side of an equality: [start, end) without the unit words after it. `tokens` are those that carry value."""

    start: int
    end: int
    tokens: tuple[Token, ...]
    words: tuple[str, ...]

    @cached_property
    def numbers(self) -> tuple[Number, ...]:
        return tuple(number_of(t.text, t.start) for t in self.tokens if t.kind == "number")

    @cached_property
    def operators(self) -> tuple[Token, ...]:
        return tuple(t for t in self.tokens if t.kind == "op")

    @property
    def bare(self) -> bool:
        """A single number, possibly signed."""
        return len(self.numbers) == 1 and not any(t.kind == "frac" for t in self.tokens) and len(self.operators) <= (
            self.tokens[0].kind == "op"
        )

    @property
    def percents(self) -> int:
        return sum(t.kind == "percent" for t in self.tokens)

    def expression(self, percent: bool = True) -> str:
        """The member for the exact evaluator; a percent sign divides by 100, or is left out."""
        parts = []
        for t in self.tokens:
            if t.kind == "number":
                parts.append(f"({t.text.replace(',', '')})")
            elif t.kind == "percent":
                parts.append("/100" if percent else "")
            else:
                parts.append(_SPELLING.get(t.kind) or _SIGN.get(t.text, t.text))
        return "".join(parts)

    def value(self, percent: bool = True) -> Fraction | None:
        """The exact value; None where the evaluator finds none, such as a division by zero."""
        return exact_value(self.expression(percent))


@dataclass(frozen=True)
class Equality:
    """Two neighbouring members of a chain and the judgement on them. `text` is what is judged."""

    left: Member
    right: Member
    status: Status
    text: str

    @property
    def words(self) -> tuple[str, ...]:
        """Unit words of both sides, in order."""
        return (*self.left.words, "=", *self.right.words)


def number_of(text: str, start: int) -> Number:
    """A number token as an exact value."""
    plain = text.replace(",", "")
    return Number(start, start + len(text), Fraction(plain if plain[0] != "." else f"0{plain}"),
                  len(plain.partition(".")[2]), "," in text)  # fmt: skip


def numbers(text: str) -> list[Number]:
    """Every number in the text, in whatever company."""
    return [number_of(m.group(), m.start()) for m in _NUMBER_AT.finditer(text)]


def equalities(text: str) -> list[Equality]:
    """The equalities of numbers in the text that can be read, with at least one operation each, in order of place."""
    found: list[Equality] = []
    for mark in MARK.finditer(text):
        found += _read(text, _tokens(mark.group(1), mark.start(1)))
    found += _read(text, _tokens(outside_marks(text), 0))
    return sorted(found, key=lambda e: e.left.start)


def outside_marks(text: str) -> str:
    """The text with spaces in place of its calculator marks: what is left stands where it stood."""
    return MARK.sub(lambda m: " " * len(m.group()), text)


def status_of(left: Member, right: Member) -> Status:
    """Whether the two sides are equal, exactly or as rounded; False only if no customary reading makes them so."""
    a, b = left.value(), right.value()
    if a is None or b is None:
        return "unclear"
    percents = left.percents + right.percents
    if _equal(a, b, right) or (percents and _equal(left.value(False), right.value(False), right)):
        return "holds"
    if percents and any(t.text in "+" + _MINUS for t in (*left.operators, *right.operators)):
        return "unclear"  # 50 + 20% = 60
    ratio = abs(max(a / b, b / a, key=abs)) if a and b else Fraction(0)
    if (left.words or right.words) and ratio in _FACTORS and left.words[-1:] != right.words[-1:]:
        return "unclear"
    if (percents or "$" in (left.words + right.words)) and ratio == 100:
        return "unclear"
    unit = Fraction(1, 10 ** _places(right))
    if not _written(a, right) and abs(a - b) < unit:
        return "unclear"  # cut off, or a whole number in place of a fraction
    return "false"


def _places(member: Member) -> int:
    """Decimals of the last number of a member."""
    return member.numbers[-1].places if member.bare else 0


def _written(value: Fraction, right: Member) -> bool:
    """Whether `value` can be written with the decimals of `right`, so that nothing had to be rounded."""
    return (value * 10 ** _places(right)).denominator == 1


def _equal(a: Fraction | None, b: Fraction | None, right: Member) -> bool:
    if a is None or b is None:
        return False
    rounded = right.bare and _places(right) > 0 and not _written(a, right)
    return a == b or (rounded and abs(a - b) <= Fraction(1, 2 * 10 ** _places(right)))


def _tokens(text: str, offset: int) -> list[Token]:
    out = []
    for m in _TOKEN.finditer(text):
        assert m.lastgroup is not None
        out.append(Token(m.lastgroup, m.group(), m.start() + offset, m.end() + offset))
    return out


def _read(text: str, tokens: Sequence[Token]) -> list[Equality]:
    reader = _Reader([t for t in tokens if t.kind != "skip"], text)
    members = reader.members()
    found = []
    for (left, at), (right, begin) in itertools.pairwise(members):
        if begin[0] != at[1] + 1 or reader.tokens[at[1]].kind != "equals":
            continue
        if (left.bare and right.bare) or (left.bare and not reader.may_lead(at[0], left)):
            continue
        found.append(Equality(left, right, status_of(left, right), text[left.start : right.end]))
    return found


class _Reader:
    """Members of equalities in a list of tokens without spaces."""

    def __init__(self, tokens: Sequence[Token], text: str) -> None:
        self.tokens, self.source = tokens, text

    def kind(self, at: int) -> str:
        return self.tokens[at].kind if 0 <= at < len(self.tokens) else "end"

    def text(self, at: int) -> str:
        return self.tokens[at].text if 0 <= at < len(self.tokens) else ""

    def word(self, at: int) -> str:
        return self.tokens[at].text.lower() if self.kind(at) == "word" else ""

    def members(self) -> list[tuple[Member, tuple[int, int]]]:
        """Members that are whole, each with its token range [first, after the units)."""
        found = []
        at = 0
        while at < len(self.tokens):
            end = self.operand_chain(at) if self.begins(at) else None
            if end is None:
                at += 1
                continue
            stop, words = self.units(end)
            if self.ends(stop):
                member = self.member(self.tokens[at:end], words or tuple(filter(None, [self.word(stop)])))
                if member.numbers:
                    found.append((member, (at, stop)))
            at = max(stop, at + 1)
        return found

    @staticmethod
    def member(tokens: Sequence[Token], after: tuple[str, ...]) -> Member:
        """The member that whole `tokens` are, with the unit words `after` them."""
        value: list[Token] = []
        words = ["$"] if any(t.kind == "currency" for t in tokens) else []
        for t in tokens:
            if t.kind in ("word", "unit"):
                times = t.kind == "word" and t.text.lower() in ("x", "of")
                value += [Token("op", "*", t.start, t.end)] if times else []
                words += [] if times else [t.text.lower()]
            elif t.kind != "currency":
                value.append(t)
        return Member(value[0].start, value[-1].end, tuple(value), (*words, *after))

    # -- what may stand before and after ---------------------------------------------------------------
    def begins(self, at: int) -> bool:
        """Whether a member may begin here: nothing before it could belong to it."""
        kind = self.kind(at)
        if kind not in ("number", "currency", "open", "frac", "box", "op"):
            return False
        if kind == "op" and not (self.tokens[at].text in _MINUS and self.touches_next(at) and self.kind(at - 1) in (
            "equals", "end", "break", "point"
        )):
            return False
        before = at - 1
        while self.kind(before) in ("currency", "open") or (kind != "op" and self.bullet(before)):
            before -= 1
        if self.kind(before) == "word":
            word = self.word(before)
            joined = word == "and" and (self.kind(before - 1) in ("number", "unit") or self.word(before - 1) in _WORDS_OF_MATHS)
            total = word == "of" and self.word(before - 1) in ("total", "sum")
            return (len(word) > 1 and word not in _WORDS_OF_MATHS and not joined) or total
        return self.kind(before) in ("end", "break", "equals", "point")

    def bullet(self, at: int) -> bool:
        """A dash at the beginning of a line, with a space after it."""
        return self.kind(at) == "op" and self.tokens[at].text in "*" + _MINUS and self.kind(at - 1) in ("end", "break") and (
            not self.touches_next(at)
        )

    def touches_next(self, at: int) -> bool:
        return at + 1 < len(self.tokens) and self.tokens[at].end == self.tokens[at + 1].start

    def ends(self, at: int) -> bool:
        """Whether a member may end before token `at`: nothing after it could belong to it."""
        after = at
        while self.kind(after) in ("currency", "close"):
            after += 1
        kind = self.kind(after)
        if kind == "word":
            word = self.word(after)
            glued = after == at and self.tokens[after - 1].end == self.tokens[after].start
            compound = self.compound(after)
            return not glued and not compound and word not in _WORDS_OF_MATHS and (len(word) > 1 or word in ("a", "i"))
        return kind in ("end", "break", "equals", "point")

    def compound(self, at: int) -> bool:
        """Words and then a number that may go on with the value: "7 hours and 30 minutes"."""
        for ahead in range(at, at + _MOST_UNIT_WORDS + 1):
            if self.kind(ahead) == "number":
                return ahead - at <= 1 or self.word(ahead - 1) == "and"
            if self.kind(ahead) != "word":
                return False
        return False

    def may_lead(self, at: int, member: Member) -> bool:
        """A single number on the left is a side of its own only after "=" or where a line begins, and without units."""
        if self.kind(at - 1) == "equals":
            return True
        alone = all(t.kind != "open" for t in member.tokens) and not member.words
        return alone and self.kind(at - 1) in ("end", "break")

    # -- the extent of a member ------------------------------------------------------------------------
    def units(self, at: int) -> tuple[int, tuple[str, ...]]:
        """Unit words between an operand and the next sign: the token after them, and the words."""
        stop, words = at, []
        while self.kind(stop) in ("word", "unit") and len(words) < _MOST_UNIT_WORDS:
            word = self.tokens[stop].text.lower()
            glued = self.tokens[stop - 1].end == self.tokens[stop].start and self.kind(stop) == "word"
            if glued or word in _WORDS_OF_MATHS - {"per"} or len(word) < 2:
                return at, ()
            words.append(word)
            stop += 1
            if self.text(stop) == "/" and self.kind(stop + 1) == "word" and self.touches_next(stop):
                stop += 1
        while self.kind(stop) == "currency" and self.kind(stop + 1) in ("equals", "op"):
            stop += 1
        return (stop, tuple(words)) if self.kind(stop) in ("equals", "op", "close") else (at, ())

    def operand_chain(self, at: int) -> int | None:
        """End of `operand (op operand)*` from token `at`; None where there is none or a sign is left over."""
        if self.kind(at) == "op":
            at += 1
        end = self.operand(at)
        while end is not None:
            after, _ = self.units(end)
            while self.kind(after) == "currency" and self.kind(after + 1) == "op":
                after += 1
            letter = self.word(after) == "x" and self.kind(after + 1) in ("number", "currency", "open", "frac")
            if self.kind(after) == "op" or letter:
                power = self.text(after) == "^"
                if power and after != end:
                    return None  # the power of a unit
                end = self.power(after + 1) if power else self.operand(after + 1)
            elif self.word(after) == "of" and (self.kind(after - 1) == "percent" or self.fraction_before(after)):
                end = self.operand(after + 1)
            elif self.kind(after) == "open" and self.tokens[after].text != "{" and after == end:
                divided = any(t.kind == "op" and t.text in "/\u00f7" for t in self.tokens[at:end])
                end = None if divided else self.operand(after)  # 8/2(3) is read either way
            else:
                return end
        return None

    def fraction_before(self, at: int) -> bool:
        """ "1/2 of 48", "\\frac{1}{2} of 48" """
        slash = self.kind(at - 1) == "number" and self.kind(at - 2) == "op" and self.tokens[at - 2].text == "/"
        return slash or (self.kind(at - 1) == "close" and self.tokens[at - 1].text == "}")

    def power(self, at: int) -> int | None:
        """An exponent: a number, or one in braces."""
        if self.kind(at) == "number":
            return at + 1
        return self.group(at) if self.kind(at) == "open" else None

    def operand(self, at: int) -> int | None:
        """End of one operand: a number with its currency and percent signs, a bracket, a fraction."""
        if self.kind(at) == "op" and self.tokens[at].text in _MINUS and self.touches_next(at):
            at += 1
        while self.kind(at) == "currency":
            at += 1
        if self.kind(at) == "number":
            return at + 2 if self.kind(at + 1) == "percent" else at + 1
        if self.kind(at) == "frac":
            top = self.group(at + 1)
            return self.group(top) if top is not None and self.kind(top) == "open" else None
        if self.kind(at) == "box":
            return self.group(at + 1)
        return self.group(at) if self.kind(at) == "open" and self.tokens[at].text != "{" else None

    def group(self, at: int) -> int | None:
        """End of a bracket that holds a chain of operands, matched by its kind."""
        if self.kind(at) != "open":
            return None
        inside = self.operand_chain(at + 1)
        if inside is None:
            return None
        inside, _ = self.units(inside)
        wanted = "}" if self.tokens[at].text == "{" else ")"
        return inside + 1 if self.kind(inside) == "close" and self.tokens[inside].text.endswith(wanted) else None
