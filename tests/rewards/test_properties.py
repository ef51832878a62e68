"""Properties that hold for every number and every small expression."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import verify

INTEGERS = st.integers(-(10**12), 10**12)
FRACTIONS = st.fractions(min_value=-1000, max_value=1000, max_denominator=997)
COEFFICIENTS = st.lists(st.integers(-20, 20), min_size=2, max_size=5).filter(any)
QUICK = settings(max_examples=200, deadline=None)


def latex(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def polynomial(coefficients: list[int], order: int = 1) -> str:
    terms = [f"{c:+d}x^{{{power}}}" for power, c in enumerate(coefficients) if c]
    return "".join(terms[::order]).lstrip("+") or "0"


def accepts(prediction: str, gold: str) -> bool:
    return verify(rf"\boxed{{{prediction}}}", gold).outcome == "correct"


@QUICK
@given(FRACTIONS)
def test_a_number_equals_itself_in_every_spelling(value: Fraction) -> None:
    gold = latex(value)
    spellings = [
        gold.replace(r"\frac", r"\dfrac"),
        f"{value.numerator}/{value.denominator}",
        rf"\frac{{{7 * value.numerator}}}{{{7 * value.denominator}}}",
        rf"\left( {gold} \right)",
        f"$ {gold} $",
        gold + r"\,",
    ]
    assert all(accepts(spelling, gold) for spelling in spellings)


@QUICK
@given(FRACTIONS, FRACTIONS)
def test_two_numbers_are_equal_only_if_they_are(left: Fraction, right: Fraction) -> None:
    assert accepts(latex(left), latex(right)) == (left == right)


@QUICK
@given(INTEGERS, st.sampled_from([1, -1, 10, 100, 1000]))
def test_no_tolerance_on_integers(value: int, step: int) -> None:
    assert accepts(f"{value:,}", str(value))
    assert not accepts(str(value + step), str(value))
    assert accepts(f"{value}.0", str(value))
    if value:
        assert not accepts(f"{value}0", str(value))
        assert not accepts(f"{value}.5", str(value))


@QUICK
@given(st.text(alphabet=r"0123456789xyabc+-*/^(){}[],.=<>|\$%&!_ \frac\sqrt\pi\text", max_size=60))
def test_any_text_gets_a_verdict_and_equals_itself(text: str) -> None:
    verdict = verify(rf"\boxed{{{text}}}", text)
    assert verdict.outcome not in ("error", "timeout"), verdict
    assert verdict.seconds < 1 or verify(rf"\boxed{{{text}}}", text).seconds < 1  # a busy machine may slow one of them
    assert verify(text, "x+1", "lenient").outcome != "error"
    assert verify(r"\boxed{x+1}", text).outcome != "error"


@QUICK
@given(COEFFICIENTS, COEFFICIENTS)
def test_polynomials_are_equal_only_if_they_are(left: list[int], right: list[int]) -> None:
    def trimmed(coefficients: list[int]) -> list[int]:
        while coefficients and coefficients[-1] == 0:
            coefficients = coefficients[:-1]
        return coefficients

    assert accepts(polynomial(left, -1), polynomial(left))
    assert accepts(polynomial(left), polynomial(right)) == (trimmed(left) == trimmed(right))


@QUICK
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=5, unique=True))
def test_order_matters_in_tuples_only(items: list[int]) -> None:
    shuffled = items[::-1]
    listed, other = ", ".join(map(str, items)), ", ".join(map(str, shuffled))
    assert accepts(other, listed)
    assert accepts(rf"\{{{other}\}}", rf"\{{{listed}\}}")
    assert not accepts(f"({other})", f"({listed})")


@QUICK
@given(FRACTIONS, FRACTIONS)
def test_symmetric_between_plain_values(left: Fraction, right: Fraction) -> None:
    surd = rf"{latex(left)}+\sqrt{{2}}"
    shifted = rf"\sqrt{{2}}+{latex(right)}" if right >= 0 else rf"\sqrt{{2}}{latex(right)}"
    assert accepts(surd, shifted) == accepts(shifted, surd) == (left == right)


@QUICK
@given(st.integers(-99, 98), st.integers(1, 100), st.sampled_from(["()", "[)", "(]", "[]"]))
def test_interval_ends(low: int, width: int, brackets: str) -> None:
    high = low + width
    gold = f"{brackets[0]}{low},{high}{brackets[1]}"
    left = r"\le" if brackets[0] == "[" else "<"
    right = r"\le" if brackets[1] == "]" else "<"
    assert accepts(f"{low} {left} x {right} {high}", gold)
    for other in {"()", "[)", "(]", "[]"} - {brackets}:
        assert not accepts(f"{other[0]}{low},{high}{other[1]}", gold)
