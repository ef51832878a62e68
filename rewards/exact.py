"""Exact rational evaluation of an expression, within bounds, and None where the value is not rational."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from rewards import nodes as n
from rewards.limits import EVALUATIONS, EXACT_BITS, TERMS, LimitError, Undefined
from rewards.nodes import Node

Values = Mapping[str, Fraction]
_WORK_BITS = 1 << 23
_ROOT_DEGREE = 64


class Budget:
    """Work allowed to one comparison: tree nodes visited and bits of exact arithmetic."""

    __slots__ = ("bits", "visits")

    def __init__(self, visits: int = EVALUATIONS, bits: int = _WORK_BITS) -> None:
        self.visits = visits
        self.bits = bits

    def visit(self) -> None:
        self.visits -= 1
        if self.visits < 0:
            raise LimitError("evaluations")

    def affordable(self, value: Fraction) -> bool:
        """Charge the size of a result; False if it is too large to go on exactly."""
        bits = value.numerator.bit_length() + value.denominator.bit_length()
        if bits > 64:
            self.bits -= bits
        return bits <= 2 * EXACT_BITS and self.bits > 0


def rational(node: Node, values: Values, budget: Budget) -> Fraction | None:
    """The exact value at `values`, None if it is irrational, unknown or too large.

    Raises Undefined where there is no value (1/0) and LimitError when the budget is used up.
    """
    budget.visit()
    result: Fraction | None
    match node:
        case n.Num(value, _):
            return value
        case n.Sym(name):
            return values.get(name)
        case n.Add(terms):
            result = Fraction(0)
            for term in terms:
                value = rational(term, values, budget)
                if value is None:
                    return None
                result += value
                if not budget.affordable(result):
                    return None
        case n.Mul(factors):
            result = Fraction(1)
            for factor in factors:
                value = rational(factor, values, budget)
                if value is None:
                    return None
                result *= value
                if not budget.affordable(result):
                    return None
        case n.Pow(base, exponent):
            bottom = rational(base, values, budget)
            power = rational(exponent, values, budget)
            result = None if bottom is None or power is None else rational_power(bottom, power)
        case n.Func(name, args):
            numbers = [rational(arg, values, budget) for arg in args]
            result = None
            if all(number is not None for number in numbers):
                result = rational_function(name, [x for x in numbers if x is not None])
        case n.Based(digits, base):
            return Fraction(based_value(digits, base))
        case n.Fold(kind, _, _, _, _) if kind in ("sum", "prod"):
            result = rational_fold(node, values, budget)
        case _:
            return None
    if result is None or not budget.affordable(result):
        return None
    return result


def based_value(digits: str, base: int) -> int:
    """The integer that `digits` write in `base`. Raises Undefined for a digit outside the base."""
    try:
        return int(digits, base)
    except ValueError:
        raise Undefined("digit") from None


def bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def rational_power(base: Fraction, power: Fraction) -> Fraction | None:
    if base == 0:
        if power < 0:
            raise Undefined("0 to a negative power")
        return Fraction(1) if power == 0 else Fraction(0)
    if base == 1:
        return base
    if power.denominator != 1:
        return rational_root(base, power)
    if base == -1:
        return Fraction(1 if power.numerator % 2 == 0 else -1)
    if abs(power.numerator) * bits(base) > EXACT_BITS:
        return None
    return base**power.numerator


def rational_root(base: Fraction, power: Fraction) -> Fraction | None:
    """base ** power where that is rational; odd roots of negative numbers are the real ones."""
    degree = power.denominator
    if degree > _ROOT_DEGREE or abs(power.numerator) * bits(base) > EXACT_BITS:
        return None
    sign = 1
    if base < 0:
        if degree % 2 == 0:
            return None
        sign, base = -1, -base
    top, bottom = integer_root(base.numerator, degree), integer_root(base.denominator, degree)
    if top is None or bottom is None:
        return None
    return (sign * Fraction(top, bottom)) ** power.numerator


def integer_root(value: int, degree: int) -> int | None:
    """The exact root, or None."""
    if value in (0, 1):
        return value
    if degree == 2:
        root = math.isqrt(value)
        return root if root * root == value else None
    if value.bit_length() > 4096:
        return None
    low, high = 1, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high) // 2
        if middle**degree < value:
            low = middle + 1
        else:
            high = middle
    return low if low**degree == value else None


def rational_function(name: str, args: list[Fraction]) -> Fraction | None:
    match name, args:
        case "abs", [x]:
            return abs(x)
        case "percent", [x]:
            return x / 100
        case "floor", [x]:
            return Fraction(math.floor(x))
        case "ceil", [x]:
            return Fraction(math.ceil(x))
        case "sign", [x]:
            return Fraction((x > 0) - (x < 0))
        case "factorial", [x]:
            return factorial(x, 1)
        case "factorial2", [x]:
            return factorial(x, 2)
        case "binom", [top, bottom]:
            return binomial(top, bottom)
        case "root", [x, degree]:
            return None if degree == 0 else rational_power(x, 1 / degree)
        case (("max" | "min"), [_, *_]):
            return max(args) if name == "max" else min(args)
        case (("gcd" | "lcm"), [_, *_]) if all(x.denominator == 1 for x in args):
            return Fraction((math.gcd if name == "gcd" else math.lcm)(*(int(x) for x in args)))
        case "log", [x, base] if x > 0 and base > 0 and base != 1:
            return rational_logarithm(x, base)
    return None


def rational_logarithm(x: Fraction, base: Fraction) -> Fraction | None:
    """log of x where it is an integer."""
    if bits(x) > 4096 or bits(base) > 4096:
        return None
    guess = round(
        (math.log(x.numerator) - math.log(x.denominator))
        / (math.log(base.numerator) - math.log(base.denominator))
    )
    return Fraction(guess) if rational_power(base, Fraction(guess)) == x else None


def factorial(x: Fraction, step: int) -> Fraction | None:
    if x.denominator != 1 or x < 0 or x > 3000:
        return None
    result = 1
    for k in range(int(x), 0, -step):
        result *= k
    return Fraction(result)


def binomial(top: Fraction, bottom: Fraction) -> Fraction | None:
    if top.denominator != 1 or bottom.denominator != 1 or top < 0 or bottom < 0:
        return None
    short = min(bottom, top - bottom)
    if short * top.numerator.bit_length() > EXACT_BITS:
        return None
    return Fraction(math.comb(int(top), int(bottom)))


def rational_fold(fold: n.Fold, values: Values, budget: Budget) -> Fraction | None:
    low, high = rational(fold.low, values, budget), rational(fold.high, values, budget)
    if low is None or high is None or low.denominator != 1 or high.denominator != 1:
        return None
    if high - low >= TERMS:
        raise LimitError("terms")
    result = Fraction(0 if fold.kind == "sum" else 1)
    for index in range(int(low), int(high) + 1):
        value = rational(fold.body, {**values, fold.variable: Fraction(index)}, budget)
        if value is None:
            return None
        result = result + value if fold.kind == "sum" else result * value
        if not budget.affordable(result):
            return None
    return result
