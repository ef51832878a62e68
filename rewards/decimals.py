"""Numbers written with decimals: when a rounding counts as the number it stands for."""

from __future__ import annotations

from fractions import Fraction

from rewards import nodes as n
from rewards.equality import Expressions
from rewards.nodes import Node
from rewards.numeric import context

_MIN_DIGITS = 8
"""Significant digits that a decimal must have to stand for an exact gold value."""


def read(node: Node) -> n.Num | None:
    """The decimal that `node` is, with its sign, or None."""
    match node:
        case n.Num(_, places) if places is not None:
            return node
        case n.Mul((n.Num(sign, None), n.Num(value, places))) if sign == -1 and places is not None:
            return n.Num(-value, places)
    return None


def significant(value: n.Num) -> int:
    scaled = abs(value.value) * 10 ** (value.places or 0)
    return len(str(int(scaled))) if scaled else 0


def terminates(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def equal(
    expressions: Expressions, gold: Node, given: Node, left: n.Num | None, right: n.Num | None
) -> bool | None:
    """The decision where a side is a decimal, None where the usual comparison should decide.

    `left` and `right` are the decimals that the sides are. The decimals of the gold set the tolerance,
    half a unit of its last place, and only for an answer that no decimal of that length could hit.
    """
    if n.symbols(gold) or n.symbols(given):
        return None
    a, b = expressions.constant(gold), expressions.constant(given)
    expressions.rule = "different"
    if a is not None and a == b:
        expressions.rule = "equal-number"
        return True
    if left is not None:
        half = Fraction(1, 2 * 10 ** (left.places or 0))
        rounded = significant(left) >= 2 and ((left.places or 0) >= 2 or significant(left) >= 3)
        if right is not None:
            longer = (right.places or 0) >= (left.places or 0) + 2 and (left.places or 0) >= 2
            near = longer and abs(right.value - left.value) <= half
            expressions.rule = "equal-rounded" if near else "different"
            return near
        if b is not None and (terminates(b) or not rounded):
            return False
        return near_decimal(expressions, left, given, half) if rounded else False
    assert right is not None
    if a is not None and terminates(a):
        return False
    if significant(right) < _MIN_DIGITS:
        return False
    return near_decimal(expressions, right, gold, Fraction(1, 10 ** (right.places or 0)))


def near_decimal(expressions: Expressions, decimal: n.Num, other: Node, tolerance: Fraction) -> bool | None:
    value = expressions.number(other)
    if value is None:
        return None
    mp = context()
    gap = abs(value - mp.mpf(decimal.value.numerator) / decimal.value.denominator)
    near = bool(gap <= mp.mpf(tolerance.numerator) / tolerance.denominator)
    expressions.rule = "equal-rounded" if near else "different"
    return near
