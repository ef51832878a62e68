from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.arithmetic import equalities, numbers


def read(text: str) -> list[tuple[str, str]]:
    return [(e.text, e.status) for e in equalities(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so 3 + 4 = 7.", [("3 + 4 = 7", "holds")]),
        ("3*4=13", [("3*4=13", "false")]),
        ("$5 * 2 = $10", [("5 * 2 = $10", "holds")]),
        ("5 apples * $2 per apple = $10.", [("5 apples * $2 per apple = $10", "holds")]),
        ("3 \u00d7 4 \u00f7 2 = 6", [("3 \u00d7 4 \u00f7 2 = 6", "holds")]),
        ("3x4=12, so 3 x 4 = 11", [("3x4=12", "holds"), ("3 x 4 = 11", "false")]),
        ("1,000 * 3 = 3,000", [("1,000 * 3 = 3,000", "holds")]),
        ("20% of 50 = 10", [("20% of 50 = 10", "holds")]),
        ("1/4 = 25%", [("1/4 = 25%", "holds")]),
        ("1/2 of 48 = 24 apples", [("1/2 of 48 = 24", "holds")]),
        (r"\frac{3}{4} \cdot 8 = 6", [(r"\frac{3}{4} \cdot 8 = 6", "holds")]),
        (r"$14 \div 2 \times 3 = \boxed{21}$", [(r"14 \div 2 \times 3 = \boxed{21}", "holds")]),
        ("48/2 = <<48/2=24>>24 clips", [("48/2 = <<48/2=24>>24", "holds"), ("48/2=24", "holds")]),
        ("2 * 3 + 1 = 6 + 1 = 7", [("2 * 3 + 1 = 6 + 1", "holds"), ("6 + 1 = 7", "holds")]),
        ("n = 3 + 4 = 7", [("3 + 4 = 7", "holds")]),
        ("(2 + 3) * 4 = 20", [("(2 + 3) * 4 = 20", "holds")]),
        ("4(3) = 12", [("4(3) = 12", "holds")]),
        ("2^3 = 8", [("2^3 = 8", "holds")]),
        ("- 3 + 4 = 7", [("3 + 4 = 7", "holds")]),
        ("1. 3 + 4 = 7", [("3 + 4 = 7", "holds")]),
        ("5 - 8 = -3", [("5 - 8 = -3", "holds")]),
        ("**3 + 4 = 7**", [("3 + 4 = 7", "holds")]),
        # roundings
        ("10/3 = 3.33", [("10/3 = 3.33", "holds")]),
        ("2/3 = 0.67", [("2/3 = 0.67", "holds")]),
        ("2/3 = 0.66", [("2/3 = 0.66", "unclear")]),
        ("10 / 3 = 3", [("10 / 3 = 3", "unclear")]),
        ("10 / 3 = 5", [("10 / 3 = 5", "false")]),
        ("0.1 * 3 = 0.31", [("0.1 * 3 = 0.31", "false")]),
        ("3/0 = 1", [("3/0 = 1", "unclear")]),
        # units and percent signs that may explain a difference
        ("2 hours * 60 = 2 minutes", [("2 hours * 60 = 2", "unclear")]),
        ("50 + 20% = 60", [("50 + 20% = 60", "unclear")]),
        ("5 / 20 = 25%", [("5 / 20 = 25%", "holds")]),
        ("100 * 0.75 = $0.75", [("100 * 0.75 = $0.75", "unclear")]),
    ],
)
def test_equalities_are_found_and_judged(text: str, expected: list[tuple[str, str]]) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2x + 3 = 7", "x + 3 = 7", "x 3 + 4 = 8", "f(3) = 7", "3! = 6", "5! = 120", "half of 8 = 4", "twice 3 + 4 = 10",
        "1 hour = 60 minutes", "1 hour = 60 * 1 minutes", "450 / 60 = 7 hours and 30 minutes", "3 + 4 = 7 million",
        "3 1/2 + 1 = 4 1/2", "(3, 4) + (1, 2) = (4, 6)", "10_2 + 1 = 11", "3 + 4 = 7x", "3 + 4 = 7 + x", "3 + 4 = 7?",
        "x - 3 + 4 = 1", "2:30 + 45 = 75", "3 + 4 <= 7", "3 + 4 != 8", "3 + 4 => 7", "3 mod 2 = 1", r"\sqrt{16} + 1 = 5",
        r"7 + 5 = 2 \pmod{10}", "8/2(2+2) = 16", "3 * 4 = 12 R 1", "five and 3 + 4 = 12", "= 12", "3 + 4", "a = 5 * 3",
        r"27 \text{ ft}^3 = 1 \text{ yd}^3", "7 = 7", "Day 1 = 3 + 4", "3 + 4 = 7.5.1", "1,5 + 1,5 = 3",
    ],
)  # fmt: skip
def test_what_may_belong_to_something_unread_is_left_alone(text: str) -> None:
    assert read(text) == []


def test_positions_are_those_of_the_text() -> None:
    text = "She pays 3 pens * $2 = $6 and 1,200 / 4 = 300."
    for e in equalities(text):
        assert text[e.left.start : e.right.end] == e.text
        for n in (*e.left.numbers, *e.right.numbers):
            assert Fraction(text[n.start : n.end].replace(",", "")) == n.value
    assert [text[n.start : n.end] for n in numbers(text)] == ["3", "2", "6", "1,200", "4", "300"]


OPERATORS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b}


@given(
    first=st.integers(1, 9999), rest=st.lists(st.tuples(st.sampled_from("+-*/"), st.integers(1, 99)), min_size=1, max_size=4),
    off=st.sampled_from([0, 0, 1, -1, 10]), gap=st.sampled_from(["", " "]), commas=st.booleans(),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_values_are_exact_by_an_evaluator_of_its_own(
    first: int, rest: list[tuple[str, int]], off: int, gap: str, commas: bool
) -> None:
    """Products first, then sums from the left: computed here with fractions."""
    terms: list[Fraction] = [Fraction(first)]
    signs: list[str] = []
    for sign, n in rest:
        if sign in "*/":
            terms[-1] = OPERATORS[sign](terms[-1], Fraction(n))
        else:
            signs.append(sign)
            terms.append(Fraction(n))
    value = terms[0]
    for sign, term in zip(signs, terms[1:], strict=True):
        value = OPERATORS[sign](value, term)
    left = f"{first:,}" if commas else str(first)
    left += "".join(f"{gap}{s}{gap}{n}" for s, n in rest)
    found = equalities(f"So {left} = {int(value) + off}.")
    assert len(found) == 1
    assert found[0].left.value() == value
    exact = value.denominator == 1
    assert found[0].status == ("holds" if value == int(value) + off else "false" if exact or abs(value - int(value) - off) >= 1
                               else "unclear")  # fmt: skip


@given(st.text(alphabet="0123456789+-*/=()$%.,x \\{}^<>#abof\n", max_size=60))
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_without_error(text: str) -> None:
    for e in equalities(text):
        assert text[e.left.start : e.right.end] == e.text
        assert 0 <= e.left.start < e.left.end <= e.right.start < e.right.end <= len(text)
