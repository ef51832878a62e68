from __future__ import annotations

import functools
import re
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.certify import Place, by_rollouts, certifiable, discloses, fisher_less, judge_edit, levenshtein, sound

MIDDLE = Place("", False, "7")


def outcome(original: str, edited: str, place: Place = MIDDLE, bound: float = 0.5) -> str:
    return judge_edit(original, edited, place, bound).outcome


@pytest.mark.parametrize(
    ("original", "edited", "expected"),
    [
        ("3 + 4 = 7\n", "3 + 4 = 8\n", "kept"),
        ("3 + 4 = 7\n", "3 + 4 = 7\n", "same"),
        ("3 + 4 = 7\n", "3 +  4 = 7 \n", "same"),
        ("5 + 8 = 13", "5 + 9 = 14", "undecided"),
        ("5 + 8 = 13", "8 + 5 = 13", "undecided"),
        ("10 / 3 = 3.33", "10 / 3 = 3.36", "kept"),
        ("10 / 3 = 3.33", "10 / 3 = 3.34", "undecided"),  # within a unit of the last place: rounded up, perhaps
        ("10 / 3 = 3.33", "10 / 3 = 3.3", "undecided"),
        ("10 / 4 = 2.5", "10 / 4 = 2", "undecided"),
        ("She has 3 + 4 = 7 pens.", "She has 3 + 4 = 7 books.", "undecided"),
        ("She has 3 + 4 = 7 pens.", "He sold 12 old bicycles for 3 + 4 = 8.", "far"),
        ("She has 3 + 4 = 7 pens in her red bag.", "She has 3 + 4 = 8 pens, a mistake, in bag.", "discloses"),
        ("She has 3 + 4 = 7 pens.", "She has 3 + 4 = 8 pens?", "discloses"),
        ("So it is \\boxed{3 + 4 = 7} now.", "So it is 3 + 4 = 8 now.", "form"),
        ("3 + 4 = 7\n", "3 + 4 = 8", "form"),
        ("3 + 4 = 7. And so.", "3 + 4 = 8.\nAnd so.", "form"),
        # other units than those that held: a conversion may make it true
        ("It takes 2 * 3 = 6 hours.", "It takes 2 * 3 = 9 weeks.", "undecided"),
        ("Of the 8 pens 5 are red.", "Of the 8 pens 6 are red.", "undecided"),
    ],
)
def test_outcomes_of_steps_in_the_middle(original: str, edited: str, expected: str) -> None:
    assert outcome(original, edited) == expected


def test_the_last_step_is_decided_by_its_answer() -> None:
    last = Place("3 + 4 = 7\n", True, "7")
    kept = judge_edit("#### 7", "#### 9", last, 0.5)
    assert (kept.outcome, kept.certificate) == ("kept", "answer: 9, not 7")
    assert outcome("#### 7", "#### 7.0", last) == "undecided"  # the same answer
    assert outcome("#### 7", "#### 9", Place("", True, "12")) == "undecided"  # the original was no right answer
    assert outcome("#### 7", "#### 9") == "undecided"  # not the last step
    assert outcome("So it is \\boxed{7}.", "So it is \\boxed{8}.", last) == "kept"
    assert outcome("so it is 7 now", "so it is 8 now", last) == "undecided"  # no strict answer on either side


def test_an_original_with_a_false_or_unclear_equality_proves_nothing() -> None:
    assert not sound("3 + 4 = 8") and not sound("2/3 = 0.66") and sound("no numbers") and sound("3 + 4 = 7")
    assert outcome("3 + 4 = 8, 1 + 1 = 2", "3 + 4 = 8, 1 + 1 = 3") == "undecided"
    assert certifiable("3 + 4 = 7", False) and not certifiable("3 pens", False) and certifiable("3 pens", True)


def test_certificates_say_what_is_wrong() -> None:
    assert judge_edit("3 * 4 = 12", "3 * 4 = 13", MIDDLE, 0.5).certificate == "arithmetic: 3 * 4 = 13, is 12"


TELLING = ["oops", "this is wrong", "should be 7", "not 8", "(edited)", "is it", "the original", "actually"]


@pytest.mark.parametrize("text", TELLING)
def test_telling_phrases_count_only_when_new(text: str) -> None:
    assert discloses("3 + 4 = 7", f"3 + 4 = 8 {text}") == (text != "is it")
    assert not discloses(f"{text} 3 + 4 = 7", f"{text} 3 + 4 = 8")


@functools.cache
def slow_levenshtein(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    same = slow_levenshtein(a[1:], b[1:]) + (a[0] != b[0])
    return min(same, 1 + slow_levenshtein(a[1:], b), 1 + slow_levenshtein(a, b[1:]))


@given(st.text("ab1", max_size=9), st.text("ab1", max_size=9))
def test_levenshtein_by_its_definition(a: str, b: str) -> None:
    assert levenshtein(a, b) == slow_levenshtein(a, b)


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_fisher_by_enumeration(n: int, m: int, data: st.DataObject) -> None:
    s, t = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    hits = s + t
    ways = [comb(hits, k) * comb(n + m - hits, m - k) for k in range(m + 1)]
    p = Fraction(sum(ways[: t + 1]), sum(ways))
    assert fisher_less(t, m, s, n) == pytest.approx(float(p))
    certificate = by_rollouts((s, n), (t, m), 0.05)
    assert (certificate is not None) == (Fraction(t, m) < Fraction(s, n) and p <= Fraction(1, 20))


def test_rollouts_must_succeed_less_often_by_more_than_chance() -> None:
    assert by_rollouts((8, 8), (2, 8), 0.05) == "rollouts: 2 of 8 against 8 of 8, p = 0.0035"
    assert by_rollouts((8, 8), (6, 8), 0.05) is None
    assert by_rollouts((0, 8), (0, 8), 0.05) is None


LINE = re.compile(r"(\d+) ([+*-]) (\d+) = (\d+)")


def false_line(text: str) -> bool:
    """Brute force: some `a op b = c` in the text is false."""
    found = LINE.findall(text)
    return any({"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[op] != int(c) for a, op, b, c in found)


@given(
    st.integers(0, 99), st.sampled_from("+-*"), st.integers(0, 99), st.integers(0, 99), st.sampled_from("+-*"),
    st.integers(0, 99), st.integers(0, 200),
)  # fmt: skip
@settings(max_examples=500, deadline=None)
def test_an_arithmetic_certificate_is_sound(a: int, op: str, b: int, c: int, op2: str, d: int, result: int) -> None:
    value = {"+": a + b, "-": a - b, "*": a * b}[op]
    original, edited = f"Now {a} {op} {b} = {value} pens.", f"Now {c} {op2} {d} = {result} pens."
    if outcome(original, edited, bound=1.0) == "kept":
        assert false_line(edited)
