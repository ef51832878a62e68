"""Calculations written out in GSM8K's manner, and solved for one of their numbers by undoing one operation after the other."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from data_gen.quantities import quantities, written
from data_gen.variants import Calculation
from rewards.exact import Budget, rational
from rewards.limits import LimitError, Undefined
from rewards.nodes import MINUS_ONE, Add, Mul, Node, Num, Pow, Sym, symbols, walk

SHORT = quantities("1.5")[0]  # the form of a number of up to two decimals
_EXACT = quantities("1.000005")[0]  # ... six
_MOST_NUMBERS = 5  # in one line
_RESULT = Sym("result")  # what a calculation has given

Values = Mapping[str, Fraction]


def line_of(calculation: Calculation) -> str | None:
    """A calculation as it is ("48 / 2 = <<48/2=24>>24"); None where its result is negative or has more than two decimals."""
    line = _line(calculation.node, _values(calculation)) if _plain(calculation.node) else None
    return line and line[0]


def solved(calculation: Calculation, unknown: Fraction) -> list[str] | None:
    """A calculation solved for one of its numbers, from the outer operation to the inner ones: a line for each ("72 - 24 =
    <<72-24=48>>48"). None where a result is negative or not short, or a line has too many numbers."""
    if not _plain(calculation.node):
        return None
    values = _values(calculation)
    name = f"x_{calculation.literals.index(unknown)}"
    node, result, lines = calculation.node, calculation.result, list[str]()
    while node != Sym(name):
        peeled = _peeled(node, name, values)
        if peeled is None:
            return None
        expression, node = peeled
        if expression == _RESULT:
            continue
        line = _line(expression, {**values, _RESULT.name: result})
        if line is None or len([n for n in walk(expression) if isinstance(n, Sym)]) > _MOST_NUMBERS:
            return None
        lines.append(line[0])
        result = line[1]
    return lines if result == unknown else None


def _values(calculation: Calculation) -> dict[str, Fraction]:
    return {f"x_{i}": v for i, v in enumerate(calculation.literals)}


def _peeled(node: Node, name: str, values: Values) -> tuple[Node, Node] | None:
    """The outer operation undone: (what the part with the symbol `name` is, of the result and the other parts; that part)."""
    if isinstance(node, Add):
        others = [t for t in node.terms if name not in symbols(t)]
        (term,) = (t for t in node.terms if name in symbols(t))
        if (inner := _negated(term)) is not None:  # a - x = r
            return Add((*others, _minus(_RESULT))), inner
        return Add((_RESULT, *map(_minus, others))), term
    if not isinstance(node, Mul):
        return None
    tops, bottoms = _factors(node)
    if any(isinstance(part, Num) for part in (*tops, *bottoms)):
        return None  # a sign among factors
    (part,) = (p for p in (*tops, *bottoms) if name in symbols(p))
    under = part in bottoms
    ones = {other for other, value in values.items() if value == 1}
    tops, bottoms = ([p for p in side if p != part] for side in (tops, bottoms))
    if under:  # a / x = r
        return Mul((*tops, *(Pow(p, MINUS_ONE) for p in (_RESULT, *bottoms)))), part
    tops, bottoms = ([p for p in side if not (isinstance(p, Sym) and p.name in ones)] for side in (tops, bottoms))
    # times before by: what can be whole on the way is
    factors = (_RESULT, *bottoms, *(Pow(p, MINUS_ONE) for p in tops))
    return (Mul(factors) if len(factors) > 1 else _RESULT), part


def _factors(node: Node) -> tuple[list[Node], list[Node]]:
    """What a product multiplies, and what it divides by."""
    match node:
        case Mul(factors):
            parts = [_factors(f) for f in factors]
            return [t for tops, _ in parts for t in tops], [b for _, bottoms in parts for b in bottoms]
        case Pow(base, _):
            tops, bottoms = _factors(base)
            return bottoms, tops
    return [node], []


def _negated(node: Node) -> Node | None:
    """What a node is the negative of, None if it is not written so."""
    return node.factors[1] if isinstance(node, Mul) and len(node.factors) == 2 and node.factors[0] == MINUS_ONE else None


def _minus(node: Node) -> Node:
    inner = _negated(node)
    return Mul((MINUS_ONE, node)) if inner is None else inner


def _plain(node: Node) -> bool:
    """Whether a tree has nothing but sums, products, quotients and signs."""
    powers = all(n.exponent == MINUS_ONE for n in walk(node) if isinstance(n, Pow))
    numbers = all(n == MINUS_ONE for n in walk(node) if isinstance(n, Num))
    return powers and numbers and all(isinstance(n, Add | Mul | Pow | Num | Sym) for n in walk(node))


def _line(node: Node, values: Values) -> tuple[str, Fraction] | None:
    """An expression with its result, written and as a number; None where that is negative or not short."""
    try:
        result = rational(node, values, Budget())
    except (LimitError, Undefined):
        return None
    short = None if result is None else written(result, SHORT)
    texts = {name: written(value, _EXACT) for name, value in values.items()}
    if result is None or short is None or None in texts.values():
        return None
    text = _text(node, {name: text or "" for name, text in texts.items()})
    return f"{text} = <<{text.replace(' ', '')}={short}>>{short}", result


def _text(node: Node, texts: Mapping[str, str], within: int = 0) -> str:
    """An expression as it is written, in brackets where it stands `within` a sum (1) or a product (2) and needs them."""
    if isinstance(node, Sym):
        return texts[node.name]
    if (inner := _negated(node)) is not None:
        text, level = f"-{_text(inner, texts, 1)}", 0
    elif isinstance(node, Add):
        text, level = _text(node.terms[0], texts), 0
        for term in node.terms[1:]:
            inner = _negated(term)
            text += f" + {_text(term, texts, 1)}" if inner is None else f" - {_text(inner, texts, 1)}"
    else:
        assert isinstance(node, Mul)
        text, level = _text(node.factors[0], texts, 2), 1
        for factor in node.factors[1:]:
            over = isinstance(factor, Pow)
            text += f" / {_text(factor.base, texts, 2)}" if over else f" * {_text(factor, texts, 2)}"
    return f"({text})" if within > level else text
