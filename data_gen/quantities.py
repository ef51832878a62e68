"""Numbers of a word problem: where they stand in its text, what they may stand for, and which of them may be others.

The rules are about English word problems. They are strict rather than complete: a number of which it is not plain that
another one would do as well stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from rewards.units import NUMBER_WORDS

_NUMBER = re.compile(r"(?<![\d.,])(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?|(?<![\d.,])\.\d+")
_WORDS = {word: value for word, value in NUMBER_WORDS.items() if value <= 1000}
_TENS, _DIGITS = ([w for w, v in _WORDS.items() if v in values] for values in (range(20, 100), range(1, 10)))
_WORDS |= {f"{t}{s}{u}": _WORDS[t] + _WORDS[u] for t in _TENS for u in _DIGITS for s in ("-", " ")}
_WORD = re.compile(rf"\b(?:{'|'.join(sorted(_WORDS, key=len, reverse=True))})\b", re.IGNORECASE)
# Words of a text that bring numbers of their own. The words of coins bring both dollars and cents.
_MEANT: tuple[tuple[str, str], ...] = (
    (r"twice|half|halv|doubl|two|both|pair|couple|twin|second|another|other|again|too\b|also|round[- ]?trip|ways?\b", "2"),
    (r"half|halv|mid", "1/2 3/2"),
    (r"(?s)\A(?=.*hal[fv])(?=.*(?:%|percent))", "50"),
    (r"thrice|tripl|three|third", "3 1/3 2/3 4/3"),
    (r"quadrupl|quarter|fourth|four", "4 1/4 3/4 5/4"),
    (r"fifth", "5 1/5 2/5 3/5 4/5 6/5"),
    (r"sixth", "6 1/6 5/6"),
    (r"seventh", "7 1/7"),
    (r"eighth", "8 1/8 3/8 5/8 7/8"),
    (r"ninth", "9 1/9"),
    (r"tenth", "10 1/10 3/10 7/10 9/10"),
    (r"dozen", "12"),
    (r"decade", "10"),
    (r"century|centuries", "100"),
    (r"fortnight", "14"),
    (r"%|percent", "100 1/100"),
    (r"cents?\b|meter|centi|\bcm\b", "100"),
    (r"quarter", "25"),
    (r"quarters|dime|nickel|penn(?:y|ies)", "1/4 1/10 1/20 1/100 5 10 25"),
    (r"kilo|\bkg\b|\bkm\b|gram|meter|lit(?:er|re)|milli|\bml\b", "1000"),
    (r"ounce|pound|\boz\b|pint", "16"),
    (r"\btons?\b", "2000"),
    (r"gallon|quarts?\b", "4"),
    (r"inch|feet|foot|\bft\b", "3 12 36"),
    (r"yard", "3"),
    (r"minute|hour|second", "60 3600"),
    (r"day|hour", "24"),
    (r"week|day|daily", "7"),
    (r"weekend", "2"),
    (r"weekday|school", "5"),
    (r"(?s)\A(?=.*week)(?=.*month)", "4"),
    (r"(?s)\A(?=.*week)(?=.*year)", "52"),
    (r"day|month|year", "30 31 365"),
    (r"year|month|annual", "12"),
    (r"half a year|half the year|six months", "6"),
    (r"season", "4"),
    (r"square|rectang", "4"),
    (r"square|area|perimeter|rectang", "2"),
    (r"triang|angle", "3 90 180"),
    (r"degrees|circle", "360"),
    (r"average", "2 3"),
    (r"\blegs?\b|\bpaws?\b|\bfeet\b|wheel|tires?\b", "2 4"),
)
_MEANING = [(re.compile(words, re.IGNORECASE), [Fraction(v) for v in values.split()]) for words, values in _MEANT]
_NEVER = frozenset((7, 12, 24, 30, 31, 52, 60, 100, 365, 1000))  # mostly a week, a dozen, a day, ... in other words


def _any_of(*patterns: str) -> str:
    return f"(?:{'|'.join(patterns)})"


_MONTHS = "january february march april may june july august september october november december".split()
_NUMBERED = "at age aged grades? room number page chapter size an route highway level step day".split()
# What a number is not free after: dates, ages, numbered things, ratios, ...
_BEFORE = re.compile(
    _any_of(
        rf"\b{_any_of(*_MONTHS, *_NUMBERED, 'no[.]', '[0-9]+ to', '[0-9]+ and', 'half past', 'ratio of', 'ratio is')}\s+",
        r"[#\w/:.\-\u2013]",
        r"[+*/=<>-]\s",
    )
    + "$",
    re.IGNORECASE,
)
_A_UNIT = r"(?:a|an|one|1|each|every)\s+" + _any_of(
    "pound", "cup", "foot", "yard", "mile", "gallon", "quart", "pint", "ton", "hour", "minute", "day", "week", "month", "year",
    "dozen", "inch", "meter", "kilometer", "dollar", "decade",
)  # fmt: skip
# ... or before: percentages, fractions, ranges, mixed numbers, what has as many by nature, definitions of units, coins.
_AFTER = re.compile(
    _any_of(
        r"[\w'\u2019\"]", r"[.,]\d", r"\s*(?:%|percent|per cent|o'clock|[ap]\.?m\b|[:/\u2013+*=\"\u00b0-])",
        r"\s+\d+/\d", r"\s+and\s+(?:a|an|one|1|half|three)\b[ -](?:half|third|quarter|fourth|\d)", r"\s+(?:and a )?half\b",
        r"\s+to\s+\d", r"\s+(?:hundred|thousand|million|billion|dozen|score)\b",
        r"\s+(?:legs?|sides?|fingers?|toes?|eyes?|wheels?|arms?|heads?|wings?|tires?|corners?|faces?|strings?|paws?|suits?)\b",
        r"\s+(?:feet|foot)\s+(?:and\s+)?\d",
        rf"\s+(?:\w+\s+){{1,2}}(?:in|to|per|equals?|makes?)\s+{_A_UNIT}\b",
        r"\s+(?:days?\s+(?:a|per|each|every|of the)\s+week|months?\s+(?:a|per|each|every)\s+year)\b",
        r"\s+(?:bills?|coins?|(?:dollar|cent)s?\s+(?:bills?|coins?|stamps?|pieces?))\b",
    ),
    re.IGNORECASE,
)  # fmt: skip
# A number on one side of such a limit stays there: nobody sleeps 26 hours a day.
_LIMITS = (
    (r"hours?|hrs?", (24,)), (r"minutes?|mins?|seconds?", (60,)), (r"days?", (7, 31, 366)), (r"months?", (12,)),
    (r"weeks?", (4, 52)), (r"years?", (18, 100)), (r"cents?|degrees?|points?|marks?", (100,)),
    (r"feet|foot|ft|inches|inch|pounds?|lbs?", (8, 100, 300)), (r"miles?|mph|kilometers?|km", (80, 1000)),
)  # fmt: skip
_MORE = r"\s?[- ]?(?:more |fewer |less |extra |additional |of )?"
_LIMIT = [(re.compile(rf"{_MORE}(?:{units})\b", re.IGNORECASE), values) for units, values in _LIMITS]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number as written at [start, end) of a text."""

    start: int
    end: int
    text: str
    value: Fraction

    @property
    def places(self) -> int:
        """Decimals as written."""
        return len(self.text.partition(".")[2])


def quantities(text: str) -> list[Quantity]:
    """Every number in digits, with or without thousands separators, in order of place."""
    return [Quantity(m.start(), m.end(), m.group(), Fraction(f"0{m.group().replace(',', '')}")) for m in _NUMBER.finditer(text)]


def in_words(text: str) -> list[int]:
    """Values of the numbers written as words ("seven", "twenty-five"), in order of place."""
    return [_WORDS[m.group().lower()] for m in _WORD.finditer(text)]


def constants(question: str, solution: str, varied: frozenset[Fraction]) -> set[Fraction]:
    """Values that the text of a problem explains without any of the numbers `varied`: the other numbers of the question in
    digits or words with their percentages and fractions, and what words such as "twice", "dozen" or "week" bring."""
    found = {Fraction(0), Fraction(1)} | {Fraction(v) for v in in_words(question)}
    given = quantities(question)
    for i, number in enumerate(given):
        value = number.value
        if value in varied:
            continue
        found.add(value)
        if re.match(r"\s*(?:%|percent|per cent|cents?\b|\u00a2)", question[number.end :]):
            share = value / 100
            found |= {share, 1 - share, 1 + share, 100 - value, 100 + value}
        after = given[i + 1] if i + 1 < len(given) else None
        if after and question[number.end : after.start].strip() == "/" and after.value:
            share = value / after.value
            found |= {share, 1 - share, 1 + share, after.value - value}
    text = f"{question}\n{solution}"
    for words, values in _MEANING:
        if words.search(text):
            found.update(values)
    return found - varied


def variable(question: str) -> list[Quantity]:
    """The numbers of a question that may be others as far as the question tells: integers from 3 written in digits, each the
    only one of its value in digits or words, and no year, time, date, fraction, percentage, ordinal or usual conversion."""
    given = quantities(question)
    values = [q.value for q in given] + [Fraction(v) for v in in_words(question)]
    return [q for q in given if values.count(q.value) == 1 and _may_vary(question, q)]


def _may_vary(question: str, number: Quantity) -> bool:
    value = number.value
    if "." in number.text or value < 3 or value in _NEVER or (1900 <= value <= 2100 and "," not in number.text):
        return False
    before = question[: number.start].removesuffix("$")
    return not _BEFORE.search(before) and not _AFTER.match(question, number.end)


def limits(text: str, number: Quantity) -> Iterator[int]:
    """Values that a number should not cross, by the unit that stands after it."""
    for pattern, values in _LIMIT:
        if pattern.match(text, number.end):
            yield from values


def article_fits(text: str, number: Quantity, new: str) -> bool:
    """Whether the word "a" or "an" before a number, if any, fits the new one."""
    article = re.search(r"\b(an?)\s+\$?$", text[: number.start], re.IGNORECASE)
    vowel = bool(re.match(r"8|(?:11|18)(?:\D|$)|(?:11|18),", new))
    return article is None or (article.group(1).lower() == "an") == vowel


def written(value: Fraction, like: Quantity) -> str | None:
    """`value` in the manner of an old number: its thousands separators, its decimals; None where that takes more decimals
    than two, or than the old number has."""
    old = like.text
    places = like.places if like.places and (old.endswith("0") or like.places == 2) else 0
    most = max(2, like.places) if like.value.denominator > 1 or like.places else 0
    while places < most and (value * 10**places).denominator != 1:
        places += 1
    scaled = value * 10**places
    if scaled.denominator != 1 or value < 0:
        return None
    whole, rest = divmod(int(scaled), 10**places)
    text = f"{whole:,}" if "," in old else str(whole)
    if places:
        text += f".{rest:0{places}d}"
    return text.removeprefix("0") if old.startswith(".") and text.startswith("0.") else text
