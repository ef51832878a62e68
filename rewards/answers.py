"""One answer text against another: string, number, structure, in this order, within fixed bounds."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from rewards import assignments, dates
from rewards import nodes as n
from rewards.canonical import canonical, has_signs, independent_signs, plain_words
from rewards.equality import safely
from rewards.limits import ANSWER_CHARS, LimitError, ParseError, Undefined
from rewards.nodes import Node
from rewards.parser import parse
from rewards.structure import Comparison
from rewards.unicode import OVERRIDES, to_latex

_SPACING = re.compile(
    r"\\(?:left|right|displaystyle|limits|bigl?|bigr|Bigl?|Bigr)(?![a-zA-Z])\s*|\\[!()\[\]]"
)
_THIN = re.compile(r"\\[,;: ]|~|\\q?quad(?![a-zA-Z])")
_GAPS = re.compile(r"(?<![A-Za-z0-9.])\s+|\s+(?![A-Za-z0-9.])")
_FRACTIONS = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_TEXT_COMMAND = re.compile(
    r"\\(?:text(?:bf|it|rm|normal)?|mbox|mathrm|mathbf|operatorname|textsf)\s?\{([^{}]*)\}"
)
_NOT_WORDS = re.compile(r"\$|\\(?:[,;:! ()\[\]]|left|right|quad)|[.,;:!?]+$")
_PLAIN_COMMA = re.compile(r"\d,\d{3}(?!\d)")
_DECIMAL_COMMA = re.compile(r"-?(\d+),(\d+)")
_CHOICE_GAP = r"(?:[\s.,:*~]|\\[,;:! ]){1,3}"
_CHOICE = re.compile(
    rf"\(?([A-Ja-j])\)?[.:,]?|\(([A-J])\)(?:{_CHOICE_GAP}|(?=[\d\\$]|[A-Za-z][a-z]))([^\s^_!'+*/=<>-].*)"
    rf"|\(([a-j])\){_CHOICE_GAP}([^\s^_!'+*/=<>-].*)|([A-J])[).:]\s?(\S.*)",
    re.DOTALL,
)
_LETTERS = re.compile(r"[a-z]+")
_POLAR = frozenset({"yes", "no", "true", "false"})
_CHOICE_WORD = re.compile(r"(?:option|choice)\s{0,3}:?\s{0,3}(?=\(?[A-Ja-j]\b)", re.IGNORECASE)
_REVERSED = re.compile(r"([\[\]])([^\[\]()\s,][^\[\]()]{0,200},[^\[\]()]{0,200}[^\[\]()\s,])([\[\]])")
_DOUBLED = re.compile(r"\\{2,4}(?=[a-zA-Z{}%$])")
_IMAGINARY = (n.Const("i"), n.Sym("j"))
_CACHED_CHARS = 256
_INTEGER = re.compile(r"[-+]?\d{1,30}")


@dataclass(frozen=True, slots=True)
class Answer:
    """A text and its readings: `key` for string comparison, `words` for text, `node` for mathematics."""

    text: str
    key: str
    words: str
    node: Node | None
    problem: str  # "" | "parse" | "limit" | "unreadable"


@dataclass(frozen=True, slots=True)
class Decision:
    equal: bool
    rule: str


def string_key(text: str) -> str:
    """`text` without what changes no meaning: spaces next to signs, \\left, \\dfrac, "$", a last "."."""
    text = _THIN.sub(" ", _SPACING.sub("", text)) if "\\" in text or "~" in text else text
    text = _FRACTIONS.sub(r"\\frac", text).replace("\\$", "").replace("$", "")
    text = _GAPS.sub("", text.strip())
    if text.endswith("...") or len(text) < 2:  # an ellipsis is no punctuation
        return text
    return text.rstrip(".,;:")


def word_key(text: str) -> str:
    text = _TEXT_COMMAND.sub(r" \1 ", text)
    text = _NOT_WORDS.sub("", " ".join(text.split())).strip(" .")
    if text[:1] == "(" and text[-1:] == ")" and text[1:-1].replace(" ", "").isalpha():
        text = text[1:-1]
    return plain_words(" ".join(text.split())) if text else ""


def read(text: str) -> Answer:
    """All readings of an answer text; only short texts are cached, which bounds the cache in bytes."""
    return _read_cached(text) if len(text) <= _CACHED_CHARS else _read(text)


def _read(text: str) -> Answer:
    if any(char in OVERRIDES for char in text) and not text.isascii():
        return Answer(text, text, "", None, "unreadable")
    if len(text) > ANSWER_CHARS:
        return Answer(text, text.strip(), "", None, "limit")
    latex = single_escaped(to_latex(text.strip()))
    if latex.startswith("**") and latex.endswith("**"):
        latex = latex.strip("* ")
    latex = _REVERSED.sub(outward, latex)
    key = string_key(latex)
    try:
        return Answer(latex, key, word_key(latex), parse(latex), "")
    except ParseError:
        return Answer(latex, key, word_key(latex), None, "parse")
    except (LimitError, RecursionError):
        return Answer(latex, key, word_key(latex), None, "limit")


def single_escaped(text: str) -> str:
    """Undo doubled backslashes, as text has that was escaped once too often: \\\\frac for \\frac."""
    if "\\\\" not in text:
        return text
    if "\\begin" in text.replace("\\\\", ""):
        return text  # rows of a matrix end in a double backslash
    if "\\\\begin" in text:
        return text.replace("\\\\", "\\")
    return _DOUBLED.sub(r"\\", text)


_read_cached = lru_cache(maxsize=2048)(_read)


def clear_cache() -> None:
    """Forget all readings, for measurements."""
    _read_cached.cache_clear()


def outward(match: re.Match[str]) -> str:
    """]a,b[ as (a,b): brackets that face away from an open end."""
    opener, inside, closer = match.groups()
    if opener == "[" and closer == "]":
        return match.group()
    return ("(" if opener == "]" else opener) + inside + (")" if closer == "[" else closer)


def as_integer(text: str) -> int | None:
    match = _INTEGER.fullmatch(text)
    return int(text) if match else None


def compare(gold: str, given: str, symbolic: Callable[[Node, Node], bool] | None = None) -> Decision:
    """Whether `given` says the same as `gold`. Raises Undecided where only `symbolic` could tell."""
    left, right = as_integer(gold), as_integer(given)
    if left is not None and right is not None:
        return Decision(left == right, "equal-number" if left == right else "different")
    a, b = read(gold), read(given)
    if "unreadable" in (a.problem, b.problem):
        return Decision(False, "unreadable")
    if a.key == b.key and a.key:
        return Decision(True, "equal-string")
    assigned = assignments.read_gold(gold)
    if assigned is not None:
        equal = assignments.same(assigned, given)
        return Decision(equal, "equal-assignment" if equal else "different")
    choice = same_choice(a, b)
    if choice is not None:
        return Decision(choice, "equal-choice" if choice else "different")
    if "limit" in (a.problem, b.problem):
        return Decision(False, "limit")
    if a.words in _POLAR:  # "Yes, it is." answers yes
        first, comma, rest = _TEXT_COMMAND.sub(r"\1", b.text).lower().partition(",")
        if comma and first.strip() == a.words and not (_POLAR | {"not"}) & set(_LETTERS.findall(rest)):
            return Decision(True, "equal-text")
    day = dates.read(a.text)
    if day is not None and (other := dates.read(b.text)) is not None:
        same = dates.same(day, other)
        return Decision(same, "equal-text" if same else "different")
    if a.words and a.words == b.words and (is_text(a) or is_text(b)):
        return Decision(True, "equal-text")
    if a.node is None or b.node is None:
        return Decision(False, "different" if a.words else "unreadable")
    return by_structure(a, b, a.node, b.node, symbolic)


def is_text(answer: Answer) -> bool:
    return answer.node is None or isinstance(answer.node, n.Text) or (
        isinstance(answer.node, n.Listing) and any(isinstance(item, n.Text) for item in answer.node.items)
    )  # fmt: skip


def by_structure(
    a: Answer, b: Answer, gold: Node, given: Node, symbolic: Callable[[Node, Node], bool] | None
) -> Decision:
    comparison = Comparison()
    comparison.expressions.symbolic = symbolic
    try:
        if comparison.equal(gold, given):
            return Decision(True, comparison.rule)
        rule = "different"
    except LimitError:
        rule = "limit"
    except Undefined:
        rule = "undefined"
    except (ParseError, RecursionError):
        rule = "different"
    for reading in alternatives(a, b, gold, given):
        if safely(lambda reading=reading: Comparison().equal(*reading)):
            return Decision(True, "equal-reading")
    for marked, other in ((a, b), (b, a)):
        content = choice_content(marked)
        if content and choice_content(other) is None and safely(lambda c=content, o=other.text: compare(c, o).equal):
            return Decision(True, "equal-reading")
    if same_decimal_comma(a, b) or same_decimal_comma(b, a):
        return Decision(True, "equal-reading")
    return Decision(False, rule)


def alternatives(a: Answer, b: Answer, gold: Node, given: Node) -> list[tuple[Node, Node]]:
    """Other readings of the same texts: the rounding a gold offers itself, lists that look like thousands."""
    found: list[tuple[Node, Node]] = []
    stated = gold.value if isinstance(gold, n.Measure) else gold
    if isinstance(stated, n.Relation) and "~" in stated.ops and "approx" not in b.text:
        last = stated.members[-1]
        found.append((canonical(last), given))
    if _PLAIN_COMMA.search(a.text):
        with suppress(ParseError, LimitError):
            found.append((parse(a.text, thousands=False), parse(b.text, thousands=False)))
    for signed, values in ((gold, given), (given, gold)):
        combined = independent_signs(signed)
        if combined is not None and not has_signs(values):
            found.append((combined, values))
    units = [
        {"i" if item == n.Const("i") else "j" for item in n.walk(side) if item in _IMAGINARY}
        for side in (gold, given)
    ]
    if units == [{"i"}, {"j"}]:
        found.append((gold, imaginary(given)))
    return found


def imaginary(node: Node) -> Node:
    """The tree with j, the engineers' imaginary unit, as i."""
    match node:
        case n.Sym("j"):
            return n.Const("i")
        case n.Add(terms):
            return n.Add(tuple(map(imaginary, terms)))
        case n.Mul(factors):
            return n.Mul(tuple(map(imaginary, factors)))
        case n.Listing(items, joiner):
            return n.Listing(tuple(map(imaginary, items)), joiner)
    return node


def same_decimal_comma(comma: Answer, point: Answer) -> bool:
    """1,22 against 1.22: a decimal comma where the other side writes the same digits with a point."""
    match = _DECIMAL_COMMA.fullmatch(comma.key)
    if not match or "." not in point.text:
        return False
    sign = -1 if comma.key.startswith("-") else 1
    whole, part = match.groups()
    value = point.node
    value = value.value if isinstance(value, n.Measure) else value
    return isinstance(value, n.Num) and value.value == sign * Fraction(int(whole + part), 10 ** len(part))


def choice_of(answer: Answer) -> tuple[str, str, bool] | None:
    """Letter, what follows it, and whether it is marked as a choice by brackets or \\text."""
    plain = _TEXT_COMMAND.sub(r"\1", answer.text).replace("$", "").replace("\\ ", " ").strip().rstrip(".")
    plain = _CHOICE_WORD.sub("", plain)
    match = _CHOICE.fullmatch(plain)
    if match is None:
        return None
    letter, rest, *_ = (*(group for group in match.groups() if group), "")
    return letter, rest.strip(), plain != letter or "\\" in answer.text


def choice_content(answer: Answer) -> str | None:
    """The "12" of "(B) 12", None where there is no choice."""
    choice = choice_of(answer)
    return choice[1] if choice and choice[0].isupper() else None


def same_choice(gold: Answer, given: Answer) -> bool | None:
    """Multiple choice: (B), B., \\text{B} and "B) 12" are one answer. None where this is no choice."""
    left, right = choice_of(gold), choice_of(given)
    if left is None or right is None:
        return None
    if left[1] and right[1] and (left[0].islower() or right[0].islower() or not (left[2] and right[2])):
        return None
    if not (left[2] or right[2] or left[0] == right[0]):
        return None
    if (
        left[0].islower() != right[0].islower()
        and not (left[2] and right[2])
        and not left[1]
        and not right[1]
    ):
        marked_lower = (left[2] and left[0].islower()) or (right[2] and right[0].islower())
        if not marked_lower and not (left[2] or right[2]):
            return None
    return left[0].upper() == right[0].upper()


def is_choice(gold: Answer, given: Answer) -> bool:
    """Whether `given` is the choice `gold`, with its mark or content."""
    return len(gold.words) == 1 and same_choice(gold, given) is True
