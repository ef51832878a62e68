"""Trees to sympy, for what evaluation cannot decide: infinite sums, integrals, limits. Worker processes only.

sympy objects are built node by node from the allow-list below; no text is ever parsed by sympy.
"""

from __future__ import annotations

from typing import Any

import sympy

from rewards import nodes as n
from rewards.exact import based_value
from rewards.limits import Undecided
from rewards.nodes import Node

_FUNCTIONS: dict[str, Any] = {
    "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "cot": sympy.cot, "sec": sympy.sec,
    "csc": sympy.csc, "arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "arccot": sympy.acot,
    "sinh": sympy.sinh, "cosh": sympy.cosh, "tanh": sympy.tanh, "abs": sympy.Abs, "floor": sympy.floor,
    "ceil": sympy.ceiling,
    "factorial": sympy.factorial, "binom": sympy.binomial, "sign": sympy.sign, "Re": sympy.re, "Im": sympy.im,
    "max": sympy.Max, "min": sympy.Min,
}  # fmt: skip
_CONSTANTS: dict[str, Any] = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}


def build(node: Node) -> Any:
    """The sympy expression of a tree. Raises Undecided for a node without a counterpart."""
    match node:
        case n.Num(value, _):
            return sympy.Rational(value.numerator, value.denominator)
        case n.Sym(name):
            return sympy.Symbol(name)
        case n.Const(name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case n.Add(terms):
            return sympy.Add(*map(build, terms))
        case n.Mul(factors):
            return sympy.Mul(*map(build, factors))
        case n.Pow(base, exponent):
            return sympy.Pow(build(base), build(exponent))
        case n.Func("root", (radicand, degree)):
            return sympy.real_root(build(radicand), build(degree))
        case n.Func("log", args):
            return sympy.log(*map(build, args))
        case n.Func("deg", (arg,)):
            return build(arg) * sympy.pi / 180
        case n.Func("percent", (arg,)):
            return build(arg) / 100
        case n.Func(name, args) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*map(build, args))
        case n.Func(name, args) if name.startswith("apply:"):
            return sympy.Function(name[6:])(*map(build, args))
        case n.Based(digits, base):
            return sympy.Integer(based_value(digits, base))
        case n.Fold(kind, variable, low, high, body):
            return _fold(kind, sympy.Symbol(variable), build(low), build(high), build(body))
    raise Undecided(type(node).__name__)


def _fold(kind: str, variable: Any, low: Any, high: Any, body: Any) -> Any:
    match kind:
        case "sum":
            return sympy.Sum(body, (variable, low, high)).doit()
        case "prod":
            return sympy.Product(body, (variable, low, high)).doit()
        case "int":
            return sympy.Integral(body, (variable, low, high)).doit()
    return sympy.limit(body, variable, low)


def equal(gold: Node, given: Node) -> bool:
    """Whether the difference simplifies to zero, or is zero to 30 digits. Raises Undecided otherwise."""
    left, right = build(gold), build(given)
    gap = left - right
    if gap == 0 or sympy.simplify(gap) == 0:
        return True
    if not gap.free_symbols:
        value = sympy.N(gap, 30)
        scale = abs(sympy.N(left, 30)) + 1
        if value.is_number and value.is_finite and scale.is_finite:
            return bool(abs(value) < scale * sympy.Float(10) ** -25)
    equals = gap.equals(0)
    if equals is None:
        raise Undecided("sympy")
    return bool(equals)
