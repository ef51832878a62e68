"""Sets of reals as sorted, disjoint intervals: intervals, unions, differences, points, inequalities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rewards import nodes as n
from rewards.canonical import is_name
from rewards.equality import Expressions
from rewards.nodes import Node

_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!=", "=": "="}


@dataclass(frozen=True, slots=True)
class End:
    """An end of an interval: its position for sorting, its tree for comparing, open or closed."""

    position: Any
    node: Node
    closed: bool


@dataclass(frozen=True, slots=True)
class Piece:
    low: End
    high: End


Pieces = list[Piece]
INFINITE = n.Const("oo")


class NotReal(Exception):
    """The tree is no set of reals with numeric ends."""


class RealSets:
    def __init__(self, expressions: Expressions) -> None:
        self.expressions = expressions

    def pieces(self, node: Node) -> Pieces:
        """Raises NotReal."""
        match node:
            case n.Seq("(" | "[" as opener, (low, high), ")" | "]" as closer):
                return self.interval(self.end(low, opener == "["), self.end(high, closer == "]"))
            case n.Braces(items):
                return self.union([self.point(item) for item in items])
            case n.Const("R"):
                return self.everything()
            case n.Const("empty"):
                return []
            case n.SetOp("union", items):
                return self.union([self.pieces(item) for item in items])
            case n.SetOp("intersection", (first, *rest)):
                found = self.pieces(first)
                for item in rest:
                    found = self.intersection(found, self.pieces(item))
                return found
            case n.SetOp("difference", (first, *rest)):
                found = self.pieces(first)
                for item in rest:
                    found = self.intersection(found, self.complement(self.pieces(item)))
                return found
            case n.Relation((_, inside), ("in",)):
                return self.pieces(inside)
            case n.Relation():
                return self.inequality(node)
            case n.Listing(items, joiner):
                parts = [self.pieces(item) for item in items]
                if joiner != "or":
                    found = parts[0]
                    for part in parts[1:]:
                        found = self.intersection(found, part)
                    if found:  # conditions that hold together; disjoint ones can only be alternatives
                        return found
                return self.union(parts)
            case n.Measure(value, _):
                return self.pieces(value)
        raise NotReal

    def end(self, node: Node, closed: bool) -> End:
        match node:
            case n.Const("oo"):
                return End(float("inf"), node, closed)
            case n.Mul((n.Num(value, _), n.Const("oo"))) if value == -1:
                return End(float("-inf"), node, closed)
            case n.Measure(value, _):
                return self.end(value, closed)
        position = self.expressions.number(node)
        if position is None:
            raise NotReal
        return End(position, node, closed)

    def point(self, node: Node) -> Pieces:
        end = self.end(node, True)
        return [Piece(end, end)]

    def interval(self, low: End, high: End) -> Pieces:
        if low.position > high.position or (
            low.position == high.position and not (low.closed and high.closed)
        ):
            raise NotReal  # (3, 1) is a point, not an empty interval
        return [Piece(low, high)]

    def everything(self) -> Pieces:
        return [Piece(End(float("-inf"), INFINITE, False), End(float("inf"), INFINITE, False))]

    def inequality(self, node: n.Relation) -> Pieces:
        """`a < x <= b`, `x > a`, `x != a`: one symbol with a bound on one or both sides."""
        members, ops = node.members, node.ops
        if len(members) == 2:
            left, right = members
            if not isinstance(left, n.Sym | n.Func):
                left, right, ops = right, left, (_FLIPPED.get(ops[0], "?"),)
            if isinstance(left, n.Func) and left.name == "abs" and isinstance(left.args[0], n.Sym):
                return self.absolute(ops[0], right)
            if not isinstance(left, n.Sym):
                raise NotReal
            return self.half_line(ops[0], right)
        if len(members) == 3 and is_name(members[1]):
            first = self.half_line(_FLIPPED.get(ops[0], "?"), members[0])
            return self.intersection(first, self.half_line(ops[1], members[2]))
        raise NotReal

    def absolute(self, op: str, bound: Node) -> Pieces:
        """|x| < b and |x| > b."""
        inside = self.intersection(self.half_line("<", bound), self.half_line(">", n.negate(bound)))
        closed = self.intersection(self.half_line("<=", bound), self.half_line(">=", n.negate(bound)))
        if op in ("<", "<="):
            return inside if op == "<" else closed
        return self.complement(closed if op == ">" else inside)

    def half_line(self, op: str, bound: Node) -> Pieces:
        low, high = self.everything()[0].low, self.everything()[0].high
        if op == "!=":
            return self.complement(self.point(bound))
        end = self.end(bound, op in ("<=", ">="))
        if op in ("<", "<="):
            return [Piece(low, end)]
        if op in (">", ">="):
            return [Piece(end, high)]
        raise NotReal

    def union(self, parts: list[Pieces]) -> Pieces:
        """Sorted and merged: [1,2) and [2,3] make [1,3]."""
        everything = sorted(
            (p for part in parts for p in part), key=lambda p: (p.low.position, not p.low.closed)
        )
        merged: Pieces = []
        for piece in everything:
            if merged and self.touches(merged[-1].high, piece.low):
                last = merged.pop()
                high = max(last.high, piece.high, key=lambda e: (e.position, e.closed))
                merged.append(Piece(last.low, high))
            else:
                merged.append(piece)
        return merged

    @staticmethod
    def touches(high: End, low: End) -> bool:
        return low.position < high.position or (low.position == high.position and (low.closed or high.closed))

    def complement(self, pieces: Pieces) -> Pieces:
        result: Pieces = []
        low = End(float("-inf"), INFINITE, False)
        for piece in self.union([pieces]):
            if piece.low.position != float("-inf"):
                result.append(Piece(low, End(piece.low.position, piece.low.node, not piece.low.closed)))
            low = End(piece.high.position, piece.high.node, not piece.high.closed)
        if low.position != float("inf"):
            result.append(Piece(low, End(float("inf"), INFINITE, False)))
        return result

    def intersection(self, left: Pieces, right: Pieces) -> Pieces:
        result: Pieces = []
        for a in left:
            for b in right:
                low = max(a.low, b.low, key=lambda e: (e.position, not e.closed))
                high = min(a.high, b.high, key=lambda e: (e.position, e.closed))
                if low.position < high.position or (
                    low.position == high.position and low.closed and high.closed
                ):
                    result.append(Piece(low, high))
        return self.union([result])
