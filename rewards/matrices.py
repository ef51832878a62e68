"""Matrix arithmetic on trees: sums, products, small powers, transposes, determinants."""

from __future__ import annotations

from rewards import nodes as n
from rewards.limits import LimitError, ParseError
from rewards.nodes import Node

_SIDE = 8
Rows = tuple[tuple[Node, ...], ...]


def has_matrix(node: Node) -> bool:
    return any(isinstance(item, n.Matrix) for item in n.walk(node))


def resolve(node: Node) -> Node:
    """The tree with matrix operations carried out. Raises ParseError where shapes do not fit."""
    if not has_matrix(node):
        return node
    match node:
        case n.Matrix(rows):
            return n.Matrix(tuple(tuple(resolve(entry) for entry in row) for row in rows))
        case n.Add(terms):
            return _sum([resolve(term) for term in terms])
        case n.Mul(factors):
            return _product([resolve(factor) for factor in factors])
        case n.Pow(base, n.Num(power, None)) if power.denominator == 1 and 1 <= power <= 8:
            return _product([resolve(base)] * int(power))
        case n.Func("transpose", (arg,)):
            inner = resolve(arg)
            if isinstance(inner, n.Matrix):
                return n.Matrix(tuple(zip(*inner.rows, strict=True)))
        case n.Func("det", (arg,)):
            inner = resolve(arg)
            if isinstance(inner, n.Matrix):
                return determinant(inner.rows)
        case n.Func(name, args):
            return n.Func(name, tuple(resolve(arg) for arg in args))
        case n.Seq(opener, items, closer):
            return n.Seq(opener, tuple(resolve(item) for item in items), closer)
        case n.Braces(items):
            return n.Braces(tuple(resolve(item) for item in items))
        case n.Listing(items, joiner):
            return n.Listing(tuple(resolve(item) for item in items), joiner)
        case n.Relation(members, ops):
            return n.Relation(tuple(resolve(member) for member in members), ops)
    return node


def _sum(terms: list[Node]) -> Node:
    if not all(isinstance(term, n.Matrix) for term in terms):
        raise ParseError("matrix plus number")
    first = terms[0]
    assert isinstance(first, n.Matrix)
    rows: Rows = first.rows
    for term in terms[1:]:
        assert isinstance(term, n.Matrix)
        if [len(row) for row in term.rows] != [len(row) for row in rows]:
            raise ParseError("matrix shapes")
        rows = tuple(
            tuple(n.Add((a, b)) for a, b in zip(left, right, strict=True))
            for left, right in zip(rows, term.rows, strict=True)
        )
    return n.Matrix(rows)


def _product(factors: list[Node]) -> Node:
    scalars: list[Node] = []
    matrix: Rows | None = None
    for factor in factors:
        if not isinstance(factor, n.Matrix):
            scalars.append(factor)
        elif matrix is None:
            matrix = factor.rows
        else:
            matrix = _multiply(matrix, factor.rows)
    if matrix is None:
        raise LimitError("power of a matrix")
    if not scalars:
        return n.Matrix(matrix)
    scale = scalars[0] if len(scalars) == 1 else n.Mul(tuple(scalars))
    return n.Matrix(tuple(tuple(n.Mul((scale, entry)) for entry in row) for row in matrix))


def _multiply(left: Rows, right: Rows) -> Rows:
    if any(len(row) != len(right) for row in left):
        raise ParseError("matrix shapes")
    if max(len(left), len(right), *(len(row) for row in right)) > _SIDE:
        raise LimitError("matrix")
    columns: list[tuple[Node, ...]] = list(zip(*right, strict=True))
    result = tuple(
        tuple(n.Add(tuple(n.Mul((a, b)) for a, b in zip(row, column, strict=True))) for column in columns)
        for row in left
    )
    if sum(n.size(entry) for row in result for entry in row) > 4096:
        raise LimitError("matrix")
    return result


def determinant(rows: Rows) -> Node:
    if any(len(row) != len(rows) for row in rows):
        raise ParseError("determinant")
    if len(rows) > 4:
        raise LimitError("determinant")
    if len(rows) == 1:
        ((entry,),) = rows
        return entry
    terms: list[Node] = []
    table = list(rows)
    first, rest = table[0], table[1:]
    for column, entry in enumerate(first):
        minor = tuple(row[:column] + row[column + 1 :] for row in rest)
        term = n.Mul((entry, determinant(minor)))
        terms.append(n.negate(term) if column % 2 else term)
    return n.Add(tuple(terms))
