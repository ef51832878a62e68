r"""Whether an edited step is a usable negative: different, near, silent about itself, alike in form, and shown wrong.

The published code of RISE (arXiv 2410.06638) accepts every edit without a tell-tale phrase, and takes the box off the
rejected side; an edit that changed nothing or is right by another route passes, and the missing box gives it away.
Here a kept edit carries a certificate:

- arithmetic: all equalities of the original step hold, and the edit has one that is false under every reading;
- answer: the step is the last one, and the verifier calls the edited solution wrong and the original one right;
- rollouts: continuations from the edited prefix succeed less often than from the original one (Fisher's exact test).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from data_gen.arithmetic import Equality, equalities
from rewards import verify

KEPT, UNDECIDED = "kept", "undecided"
REJECTIONS = ("unparsed", "no_candidate", "same", "far", "discloses", "form", "rollouts")
"""Reasons of rejection: no fenced text; nothing to edit; unchanged; beyond the distance; gives itself away; another
layout; rollouts do not succeed less often. What nothing decides stays "undecided"."""

_NEAR = 4  # characters that an edit may always differ by, as short steps are few characters
_TELLING = re.compile(
    r"\b(?:incorrect\w*|inaccura\w*|wrong\w*|mistake\w*|mistook|error\w*|erroneous\w*|false(?:ly)?|flaw\w*|fault\w*|slips?|invalid"
    r"|oops|actually|instead|rather than|supposed to|should (?:be|have)|correct(?:ed|ion|ly)?|right answer|original(?:ly)?"
    r"|edit(?:ed|ing|s)?|modif\w+|rewr\w+|revis\w+|alter(?:ed|ing|ation)|chang(?:ed|ing)|replac(?:ed|ing|es)|swapp\w+|misread\w*"
    r"|miscalculat\w*|misinterpret\w*|misunderst\w*|not|isn't|doesn't|don't|didn't|never|however|wait|note|if|suppose\w*|assum\w+"
    r"|pretend\w*)\b|[!≠]=|≠|\\neq?\b|\?",
    re.IGNORECASE,
)
_BOX = re.compile(r"\\(?:boxed|fbox)\b")
_ANSWER_LINE = re.compile(r"^[ \t]*####", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Judgement:
    """`outcome` is KEPT, UNDECIDED or one of REJECTIONS; a kept edit has a `certificate`. `distance` in characters."""

    outcome: str
    certificate: str | None
    distance: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a step stands: the solution's text before it, whether it is the last one, and the gold answer."""

    before: str
    last: bool
    gold: str


def levenshtein(a: str, b: str) -> int:
    """Insertions, deletions and substitutions of characters that turn `a` into `b`, in O(len(a) len(b))."""
    head = common_prefix(a, b)
    a, b = a[head:], b[head:]
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(diagonal + (x != y), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def common_prefix(a: Sequence[object], b: Sequence[object]) -> int:
    """Length of the longest common beginning."""
    limit = min(len(a), len(b))
    return next((i for i in range(limit) if a[i] != b[i]), limit)


def sound(step: str) -> bool:
    """Whether every equality that can be read in an original step holds: else its edits prove nothing."""
    return all(e.status == "holds" for e in equalities(step))


def certifiable(step: str, last: bool) -> bool:
    """Whether arithmetic or the answer could show an edit of this step wrong."""
    return last or any(e.status == "holds" for e in equalities(step))


def judge_edit(original: str, edited: str, place: Place, bound: float) -> Judgement:
    """The judgement on one edit of a sound step, rollouts aside. `bound`: distance per character of the original."""
    distance = levenshtein(original, edited)
    reason = rejection(original, edited, distance, bound)
    if reason is not None:
        return Judgement(reason, None, distance)
    certificate = by_arithmetic(original, edited) or by_answer(original, edited, place)
    return Judgement(KEPT if certificate else UNDECIDED, certificate, distance)


def rejection(original: str, edited: str, distance: int, bound: float) -> str | None:
    """Why an edit cannot be used whatever it says, or None."""
    if original.split() == edited.split():
        return "same"
    if distance > max(_NEAR, bound * len(original)):
        return "far"
    if discloses(original, edited):
        return "discloses"
    return None if form(original) == form(edited) else "form"


def discloses(original: str, edited: str) -> bool:
    """Whether the edit holds a telling word more often than the original."""
    before = [m.lower() for m in _TELLING.findall(original)]
    after = [m.lower() for m in _TELLING.findall(edited)]
    return any(after.count(word) > before.count(word) for word in after)


def form(step: str) -> tuple[object, ...]:
    """The layout that both sides must share: boxes, answer lines, fences, lines, and the blanks around the text."""
    inner = step.strip()
    at = step.find(inner)
    return (
        len(_BOX.findall(step)), len(_ANSWER_LINE.findall(step)), step.count("```"), step.count("<<"),
        inner.count("\n"), step[:at], step[at + len(inner) :],
    )


def by_arithmetic(original: str, edited: str) -> str | None:
    """The certificate of a false equality in `edited`, if there is one and all of the original hold.

    Its unit words must be those of an equality of the original, which held with them: so that a conversion of units
    cannot make it true.
    """
    before = equalities(original)
    if any(e.status != "holds" for e in before):
        return None
    units = {e.words for e in before}
    false = next((e for e in equalities(edited) if e.status == "false" and e.words in units), None)
    return f"arithmetic: {' '.join(false.text.split())}, is {_shown(false)}" if false else None


def _shown(equality: Equality) -> str:
    value = equality.left.value()
    assert value is not None, "a false equality has two values"
    return str(value) if value.denominator < 1000 else f"{float(value):.6g}"


def by_answer(original: str, edited: str, place: Place) -> str | None:
    """The certificate of a last step whose answer the strict verifier calls wrong, as it calls the original right."""
    if not place.last or verify(place.before + original, place.gold).outcome != "correct":
        return None
    verdict = verify(place.before + edited, place.gold)
    return f"answer: {verdict.extracted}, not {place.gold}" if verdict.outcome == "wrong" else None


def by_rollouts(original: tuple[int, int], edited: tuple[int, int], significance: float) -> str | None:
    """The certificate from (successes, rollouts) of the original and the edited prefix, if the latter are too few."""
    (s, n), (t, m) = original, edited
    p = fisher_less(t, m, s, n)
    return f"rollouts: {t} of {m} against {s} of {n}, p = {p:.4f}" if t * n < s * m and p <= significance else None


def fisher_less(successes: int, count: int, other_successes: int, other_count: int) -> float:
    """One-sided Fisher exact test: the chance of at most `successes` in `count` draws, given the totals of both rows."""
    total, hits = count + other_count, successes + other_successes
    misses = total - hits
    ways = sum(math.comb(hits, k) * math.comb(misses, count - k) for k in range(successes + 1))
    return float(Fraction(ways, math.comb(total, count)))
