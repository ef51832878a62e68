"""The expression tree: the only form in which model text reaches arithmetic.

Nodes are frozen and hashable. There is no node for an attribute, an index, a call of a Python name or a
string that could be run; what the parser cannot express with these nodes stays text and is compared as
text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Num:
    """An exact rational. `places` counts the decimals written, None if the number was no decimal."""

    value: Fraction
    places: int | None = None


@dataclass(frozen=True, slots=True)
class Sym:
    name: str


@dataclass(frozen=True, slots=True)
class Const:
    """pi, e, i, oo (infinity), or a named set: R, Z, N, Q, C, empty."""

    name: str


@dataclass(frozen=True, slots=True)
class Add:
    terms: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mul:
    factors: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Pow:
    base: Node
    exponent: Node


@dataclass(frozen=True, slots=True)
class Func:
    """A named function of its arguments; unknown names are uninterpreted functions."""

    name: str
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class PlusMinus:
    """Both signs of the argument; `flipped` for the minus-plus sign."""

    arg: Node
    flipped: bool = False


@dataclass(frozen=True, slots=True)
class Fold:
    """A sum, product, integral or limit: kind in {"sum", "prod", "int", "lim"}."""

    kind: str
    variable: str
    low: Node
    high: Node
    body: Node


@dataclass(frozen=True, slots=True)
class Seq:
    """Bracketed members: a point, a vector or an interval; the brackets tell which it may be."""

    open: str
    items: tuple[Node, ...]
    close: str


@dataclass(frozen=True, slots=True)
class Braces:
    """A set written with its members."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """Members without brackets, joined by "," (also ";"), "and" or "or"."""

    items: tuple[Node, ...]
    joiner: str = ","


@dataclass(frozen=True, slots=True)
class SetOp:
    """union, intersection or difference of sets."""

    op: str
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """A chain: members[0] ops[0] members[1] ops[1] ... ; ops in = != < <= > >= ~ in."""

    members: tuple[Node, ...]
    ops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ratio:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Based:
    """Digits with a base written as subscript."""

    digits: str
    base: int


@dataclass(frozen=True, slots=True)
class Measure:
    """A value followed or preceded by words: a unit, a currency or a noun."""

    value: Node
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """Words in place of mathematics, already normalised."""

    words: str


Node = (
    Num
    | Sym
    | Const
    | Add
    | Mul
    | Pow
    | Func
    | PlusMinus
    | Fold
    | Seq
    | Braces
    | Listing
    | SetOp
    | Matrix
    | Relation
    | Ratio
    | Based
    | Measure
    | Text
)

ONE = Num(Fraction(1))
ZERO = Num(Fraction(0))
MINUS_ONE = Num(Fraction(-1))
HALF = Num(Fraction(1, 2))


def number(value: int | Fraction) -> Num:
    return Num(Fraction(value))


def negate(node: Node) -> Node:
    if isinstance(node, Num):
        return Num(-node.value, node.places)
    return Mul((MINUS_ONE, node))


def difference(left: Node, right: Node) -> Node:
    return Add((left, negate(right)))


def divide(top: Node, bottom: Node) -> Node:
    return Mul((top, Pow(bottom, MINUS_ONE)))


def children(node: Node) -> tuple[Node, ...]:
    match node:
        case Add(terms):
            return terms
        case Mul(factors):
            return factors
        case Pow(base, exponent):
            return (base, exponent)
        case Func(_, args):
            return args
        case PlusMinus(arg, _):
            return (arg,)
        case Fold(_, _, low, high, body):
            return (low, high, body)
        case Seq(_, items, _) | Braces(items) | SetOp(_, items) | Ratio(items):
            return items
        case Listing(items, _):
            return items
        case Matrix(rows):
            return tuple(entry for row in rows for entry in row)
        case Relation(members, _):
            return members
        case Measure(value, _):
            return (value,)
    return ()


def walk(node: Node) -> Iterator[Node]:
    """Every node of the tree, without recursion."""
    stack = [node]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(children(current))


def size(node: Node) -> int:
    return sum(1 for _ in walk(node))


def symbols(node: Node) -> frozenset[str]:
    return frozenset(n.name for n in walk(node) if isinstance(n, Sym))


EXPRESSIONS = (Num, Sym, Const, Add, Mul, Pow, Func, PlusMinus, Fold)


def is_expression(node: Node) -> bool:
    """True for what has one value (or two, with a plus-minus sign): no list, set, relation or text."""
    return all(isinstance(n, EXPRESSIONS) and not is_set_name(n) for n in walk(node))


def is_set_name(node: Node) -> bool:
    """R, Z, the empty set ...: constants that are no numbers."""
    return isinstance(node, Const) and node.name not in ("pi", "e", "i", "oo")
