"""Evaluation to 50 digits with mpmath: complex values, magnitudes bounded before every operation."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from rewards import nodes as n
from rewards.exact import Budget, based_value, rational
from rewards.limits import MAGNITUDE_BITS, TERMS, LimitError, Undecided, Undefined
from rewards.nodes import Node
from rewards.wordsets import word_set

DIGITS = 50
_ARGUMENT_BITS = 1 << 12
"""Largest binary exponent of the argument of a periodic function, reduced at that many bits."""
_LOCAL = threading.local()
LOCK = threading.RLock()
"""Held while mpmath works: the contexts are ours, but its caches of constants are shared by all threads."""


def _fresh_lock() -> None:
    """A forked child must not wait for a lock that a thread of its parent held."""
    global LOCK
    LOCK = threading.RLock()


os.register_at_fork(after_in_child=_fresh_lock)


def context(digits: int = DIGITS) -> Any:
    """An mpmath context of this thread: mpmath's own context is global, and its precision with it."""
    contexts: dict[int, Any] | None = getattr(_LOCAL, "contexts", None)
    if contexts is None:
        contexts = _LOCAL.contexts = {}
    if digits not in contexts:
        from mpmath.ctx_mp import MPContext

        fresh = MPContext()
        fresh.dps = digits
        contexts[digits] = fresh
    return contexts[digits]


class Numeric:
    """Evaluates expressions at one point. `values` maps symbols to rationals."""

    def __init__(self, values: Mapping[str, Fraction], budget: Budget, digits: int = DIGITS) -> None:
        self.mp = context(digits)
        self.values = dict(values)
        self.budget = budget

    def fraction(self, value: Fraction) -> Any:
        return self.mp.mpf(value.numerator) / value.denominator

    def magnitude(self, value: Any) -> int:
        """Binary exponent of |value|; a large negative number for zero."""
        found = self.mp.mag(value)
        return -(1 << 60) if found == self.mp.ninf else int(found)

    def checked(self, value: Any) -> Any:
        if not self.mp.isfinite(value):
            raise Undefined("not finite")
        magnitude = self.magnitude(value)
        if magnitude > MAGNITUDE_BITS or (magnitude < -MAGNITUDE_BITS and value != 0):
            raise LimitError("magnitude")
        return value

    def value(self, node: Node) -> Any:
        """The value as an mpmath number. Raises Undefined, LimitError or Undecided."""
        self.budget.visit()
        mp = self.mp
        match node:
            case n.Num(value, _):
                return self.fraction(value)
            case n.Sym(name):
                if name not in self.values:
                    raise Undecided(name)
                return self.fraction(self.values[name])
            case n.Const("pi"):
                return +mp.pi
            case n.Const("e"):
                return +mp.e
            case n.Const("oo"):
                raise Undefined("infinity in an expression")
            case n.Const("i"):
                return mp.mpc(0, 1)
            case n.Add(terms):
                return self.checked(mp.fsum([self.value(term) for term in terms]))
            case n.Mul(factors):
                result = mp.mpf(1)
                for factor in factors:
                    result = self.checked(result * self.value(factor))
                return result
            case n.Pow(base, exponent):
                return self.power(base, exponent)
            case n.Func(name, args):
                return self.function(name, args)
            case n.Based(digits, base):
                return mp.mpf(based_value(digits, base))
            case n.Fold(kind, _, _, _, _) if kind in ("sum", "prod"):
                return self.fold(node)
        raise Undecided(type(node).__name__)

    def power(self, base: Node, exponent: Node) -> Any:
        bottom = self.value(base)
        exact = rational(exponent, {}, self.budget)
        power = self.value(exponent) if exact is None else self.fraction(exact)
        if bottom == 0:
            if self.mp.re(power) <= 0:
                raise Undefined("0 to a power that is not positive")
            return self.mp.mpf(0)
        return self.raise_to(bottom, power, exact)

    def raise_to(self, bottom: Any, power: Any, exact: Fraction | None) -> Any:
        mp = self.mp
        size = abs(self.magnitude(bottom)) + 1
        if self.magnitude(power) > 64 or size * (abs(power) + 1) > MAGNITUDE_BITS:
            raise LimitError("power")
        if exact is not None and exact.denominator == 1:
            return self.checked(mp.power(bottom, int(exact)))
        if exact == Fraction(1, 2):
            return mp.sqrt(bottom)
        if exact is not None and exact.denominator % 2 and mp.im(bottom) == 0 and mp.re(bottom) < 0:
            real = mp.power(-mp.re(bottom), power)
            return self.checked(real if exact.numerator % 2 == 0 else -real)
        return self.checked(mp.power(bottom, power))

    def function(self, name: str, args: tuple[Node, ...]) -> Any:
        values = [self.value(arg) for arg in args]
        if name.startswith("apply:"):
            return self.uninterpreted(name, values)
        if len(values) == 2 and name in ("log", "root", "binom"):
            return self.checked(self.binary(name, values[0], values[1]))
        if name in ("max", "min") and values and all(self.mp.im(v) == 0 for v in values):
            return (max if name == "max" else min)(self.mp.re(v) for v in values)
        if len(values) != 1:
            raise Undefined(name)
        try:
            return self.checked(self.unary(name, values[0]))
        except (ZeroDivisionError, ValueError, OverflowError) as error:
            raise Undefined(name) from error

    def unary(self, name: str, x: Any) -> Any:
        mp = self.mp
        if name in _PERIODIC and self.magnitude(x) > _ARGUMENT_BITS:
            raise LimitError("argument")
        if name in _EXPONENTIAL and self.magnitude(x) > 40:
            raise LimitError("argument")
        if name in _PERIODIC or name in _EXPONENTIAL or name in _PLAIN:
            return getattr(mp, _MPMATH.get(name, name))(x)
        match name:
            case "abs" | "norm":
                return abs(x)
            case "percent":
                return x / 100
            case "deg":
                return x * mp.pi / 180
            case "log":
                if x == 0:
                    raise Undefined("log of 0")
                return mp.log(x)
            case "floor" | "ceil":
                return self.rounded(name, x)
            case "factorial":
                if self.magnitude(x) > 34:
                    raise LimitError("factorial")
                return mp.factorial(x)
            case "factorial2":
                if self.magnitude(x) > 30:
                    raise LimitError("factorial")
                return mp.fac2(x)
            case "Re":
                return mp.re(x)
            case "Im":
                return mp.im(x)
            case "arg":
                return mp.arg(x)
            case "sign":
                return mp.sign(x)
        raise Undefined(name)

    def rounded(self, name: str, x: Any) -> Any:
        if self.mp.im(x) != 0:
            raise Undefined("floor of a complex number")
        if self.magnitude(x) > 128 or abs(x - self.mp.nint(x)) < self.mp.mpf(10) ** -30:
            raise Undecided("floor near an integer")
        return self.mp.floor(x) if name == "floor" else self.mp.ceil(x)

    def binary(self, name: str, x: Any, y: Any) -> Any:
        mp = self.mp
        if name == "log":
            if x == 0 or y in (0, 1):
                raise Undefined("log")
            return mp.log(x) / mp.log(y)
        if name == "root":
            if y == 0:
                raise Undefined("root")
            odd = mp.im(y) == 0 and mp.isint(y) and int(mp.re(y)) % 2 == 1
            if x == 0:
                return mp.mpf(0)
            if self.magnitude(y) > 32:
                raise LimitError("root")
            if odd and mp.im(x) == 0 and mp.re(x) < 0:
                return -mp.power(-mp.re(x), 1 / y)
            return mp.power(x, 1 / y)
        if max(self.magnitude(x), self.magnitude(y)) > 30:
            raise LimitError("binomial")
        return mp.binomial(x, y)

    def uninterpreted(self, name: str, values: list[Any]) -> Any:
        """A fixed pseudo-random value for an unknown function at these arguments."""
        key = name + "|" + ",".join(self.mp.nstr(v + 0, 25) for v in values)
        seed = zlib.crc32(key.encode()), zlib.crc32(key[::-1].encode())
        return self.mp.mpf(seed[0]) / (1 << 31) + self.mp.mpf(seed[1]) / (1 << 62) + self.mp.mpf("0.25")

    def fold(self, fold: n.Fold) -> Any:
        low = rational(fold.low, self.values, self.budget)
        high = rational(fold.high, self.values, self.budget)
        if low is None or high is None or low.denominator != 1 or high.denominator != 1:
            raise Undecided("bounds")
        if high - low >= TERMS:
            raise LimitError("terms")
        result = self.mp.mpf(0 if fold.kind == "sum" else 1)
        saved = self.values
        for index in range(int(low), int(high) + 1):
            self.values = {**saved, fold.variable: Fraction(index)}
            term = self.value(fold.body)
            result = self.checked(result + term if fold.kind == "sum" else result * term)
        self.values = saved
        return result


_PERIODIC = word_set("sin cos tan cot sec csc")
_EXPONENTIAL = word_set("sinh cosh tanh coth sech csch exp")
_PLAIN = word_set("arcsin arccos arctan arccot arcsec arccsc arcsinh arccosh arctanh")
_MPMATH = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec",
    "arccsc": "acsc", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
}  # fmt: skip
