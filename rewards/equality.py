"""Whether two expressions are the same: exact arithmetic first, then 50 digits at several points.

A difference at one safe point proves two expressions different. Agreement of rational functions at
three random rational points, or of anything else to 30 digits relative to its size, counts as equality.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from rewards import nodes as n
from rewards import numeric
from rewards.exact import Budget, rational
from rewards.limits import LimitError, ParseError, Undecided, Undefined
from rewards.modular import differ
from rewards.nodes import Node
from rewards.numeric import DIGITS, Numeric

_INTEGER_FUNCTIONS = frozenset({"factorial", "factorial2", "binom", "floor", "ceil", "gcd", "lcm"})
_AGREEMENT = 30
"""Decimal digits, relative to the larger side, to which evaluated sides must agree."""


def integer_symbols(node: Node) -> frozenset[str]:
    """Symbols that only make sense as integers: bounds of sums, subscripts, factorials, (-1)^n."""
    found: set[str] = set()
    for item in n.walk(node):
        match item:
            case n.Fold(_, variable, low, high, _):
                found |= (n.symbols(low) | n.symbols(high)) - {variable}
            case n.Func(name, args) if name in _INTEGER_FUNCTIONS or name.endswith("_"):
                for arg in args:
                    found |= n.symbols(arg)
            case n.Pow(n.Num(value, _), exponent) if value < 0:
                found |= n.symbols(exponent)
            case n.Pow(n.Mul((n.Num(value, _), *_)), exponent) if value < 0 and not isinstance(
                exponent, n.Num
            ):
                found |= n.symbols(exponent)
    return frozenset(found)


def sample(names: frozenset[str], integers: frozenset[str], index: int, exact: bool) -> dict[str, Fraction]:
    """The point number `index`: fixed pseudo-random values, the third and later ones negative."""
    values: dict[str, Fraction] = {}
    for name in sorted(names):
        seed = zlib.crc32(f"{name}#{index}".encode())
        if name in integers:
            values[name] = Fraction(3 + index * 2 + seed % 5)
        elif exact:
            values[name] = Fraction(seed % 99_991 + 17, 101) * (
                -1 if index == 2 or (index > 2 and seed & 4096) else 1
            )
        else:
            low = Fraction(3, 10) if index == 0 else Fraction(3, 2)
            value = low + Fraction(seed % 1_000_003, 1_000_003) * (1 if index == 0 else 2)
            values[name] = -value if index >= 2 else value
    return values


class Expressions:
    """Equality of expressions within one budget; `rule` names what decided last."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.rule = "different"
        self.symbolic: Callable[[Node, Node], bool] | None = None

    def constant(self, node: Node) -> Fraction | None:
        return rational(node, {}, self.budget)

    def equal(self, left: Node, right: Node) -> bool:
        """Raises Undecided where evaluation cannot tell, LimitError where it would cost too much."""
        if left == right:
            self.rule = "equal-tree"
            return True
        names = n.symbols(left) | n.symbols(right)
        integers = integer_symbols(left) | integer_symbols(right)
        verdict = self.exactly(left, right, names, integers)
        if verdict is not None:
            return verdict
        if differ(left, right, self.budget):
            self.rule = "different"
            return False
        try:
            with numeric.LOCK:
                verdict = self.evaluated(left, right, names, integers)
            self.rule = "equal-evaluated" if verdict else "different"
        except Undecided:
            if self.symbolic is None:
                raise
            verdict = self.symbolic(left, right)
            self.rule = "equal-symbolic" if verdict else "different"
        return verdict

    def exactly(
        self, left: Node, right: Node, names: frozenset[str], integers: frozenset[str]
    ) -> bool | None:
        agreed = 0
        for index in range(6 if names else 1):
            point = sample(names, integers, index, exact=True)
            try:
                a, b = rational(left, point, self.budget), rational(right, point, self.budget)
            except Undefined:
                if not names:
                    self.rule = "different"
                    return False
                continue
            if a is None or b is None:
                return None
            if a != b:
                self.rule = "different"
                return False
            agreed += 1
            if agreed == (4 if integers else 3) or not names:
                self.rule = "equal-symbolic" if names else "equal-number"
                return True
        return None

    def evaluated(self, left: Node, right: Node, names: frozenset[str], integers: frozenset[str]) -> bool:
        agreed = differed = 0
        for index in range(5 if names else 1):
            point = sample(names, integers, index, exact=False)
            verdict = self.agree_at(left, right, point, may_be_complex=bool(names))
            if verdict is None:
                continue
            if verdict:
                agreed += 1
            elif index < 2 or self.real_difference:
                if self.real_difference or not names:
                    return False
                differed += 1
            if agreed >= 3:
                return True
        if differed and not agreed:
            return False
        return agreed >= 2 or (agreed > 0 and not names)

    real_difference = False

    def agree_at(
        self, left: Node, right: Node, point: Mapping[str, Fraction], may_be_complex: bool
    ) -> bool | None:
        """Agreement at one point; None where a side has no value there."""
        self.real_difference = False
        values: list[Any] = []
        for side in (left, right):
            try:
                values.append(Numeric(point, self.budget).value(side))
            except Undefined:
                if not may_be_complex:
                    self.real_difference = True
                    return False
                return None
        mp = Numeric(point, self.budget).mp
        a, b = values
        gap, scale = abs(a - b), max(abs(a), abs(b))
        tolerance = mp.mpf(10) ** -_AGREEMENT
        if gap <= scale * tolerance:
            return True
        if scale < tolerance or gap < tolerance:
            # Both near zero, or nearly equal: a true zero shrinks with more digits, a small number does not.
            finer = [Numeric(point, self.budget, 2 * DIGITS).value(side) for side in (left, right)]
            fine_gap = abs(finer[0] - finer[1])
            if fine_gap < mp.mpf(10) ** (-DIGITS - 20) and fine_gap <= gap * mp.mpf(10) ** -15:
                return True
        self.real_difference = all(abs(mp.im(v)) <= abs(v) * tolerance for v in values)
        return False

    def number(self, node: Node) -> Any | None:
        """The real value of a closed expression to 50 digits, None if it has none."""
        if n.symbols(node) or not n.is_expression(node):
            return None
        try:
            with numeric.LOCK:
                value = Numeric({}, self.budget).value(node)
        except (Undefined, Undecided):
            return None
        mp = Numeric({}, self.budget).mp
        return mp.re(value) if abs(mp.im(value)) <= abs(value) * mp.mpf(10) ** -_AGREEMENT else None

    def factor(self, left: Node, right: Node) -> tuple[bool, int]:
        """Whether left = c * right for a constant c, and the sign of c (0 if it is not real).

        Both sides must not vanish identically.
        """
        names = n.symbols(left) | n.symbols(right)
        integers = integer_symbols(left) | integer_symbols(right)
        exact = self._exact_factor(left, right, names, integers)
        if exact is not None:
            self.rule = "equal-symbolic"
            return exact
        ratios: list[Any] = []
        for index in range(5 if names else 1):
            point = sample(names, integers, index, exact=False)
            try:
                with numeric.LOCK:
                    a, b = (Numeric(point, self.budget).value(side) for side in (left, right))
            except Undefined:
                continue
            if b == 0 or a == 0:
                return False, 0
            ratios.append(a / b)
        if len(ratios) < (2 if names else 1):
            raise Undecided("no safe points")
        mp = Numeric({}, self.budget).mp
        tolerance = mp.mpf(10) ** -_AGREEMENT
        first = ratios[0]
        if any(abs(r - first) > abs(first) * tolerance for r in ratios):
            return False, 0
        self.rule = "equal-evaluated"
        real = abs(mp.im(first)) <= abs(first) * tolerance
        return True, (1 if mp.re(first) > 0 else -1) if real else 0

    def same_zeros(self, left: Node, right: Node) -> bool:
        """Whether left = 0 and right = 0 are one curve, each linear in some symbol: y = 1/x, xy = 1."""
        names = n.symbols(left)
        if names != n.symbols(right) or len(names) < 2:
            return False
        return self._zeros_within(left, right, names) and self._zeros_within(right, left, names)

    def _zeros_within(self, inner: Node, outer: Node, names: frozenset[str]) -> bool:
        """Zeros of `inner`, found by solving for each symbol it is linear in, are zeros of `outer`."""
        found = 0
        for name in sorted(names):
            for index in range(2):
                point = sample(names, frozenset(), index, exact=True)
                try:
                    at = [rational(inner, {**point, name: Fraction(k)}, self.budget) for k in (1, 2, 3)]
                    if None in at or at[0] - 2 * at[1] + at[2] != 0 or at[1] == at[0]:  # type: ignore[operator]
                        break
                    zero = 1 - at[0] / (at[1] - at[0])  # type: ignore[operator]
                    if rational(outer, {**point, name: zero}, self.budget) != 0:
                        return False
                    found += 1
                except Undefined:
                    continue
        if found:
            self.rule = "equal-symbolic"
        return found >= 2

    def _exact_factor(
        self, left: Node, right: Node, names: frozenset[str], integers: frozenset[str]
    ) -> tuple[bool, int] | None:
        found: Fraction | None = None
        agreed = 0
        for index in range(6 if names else 1):
            point = sample(names, integers, index, exact=True)
            try:
                a, b = rational(left, point, self.budget), rational(right, point, self.budget)
            except Undefined:
                continue
            if a is None or b is None:
                return None
            if a == 0 or b == 0:
                return False, 0
            if found is not None and a / b != found:
                return False, 0
            found = a / b
            agreed += 1
            if agreed == 3 or not names:
                return True, 1 if found > 0 else -1
        return None


def safely(check: Callable[[], bool]) -> bool:
    """False where a check exceeds its limits: for alternatives that are tried beside the main reading."""
    try:
        return check()
    except (LimitError, ParseError, Undecided, Undefined):
        return False
