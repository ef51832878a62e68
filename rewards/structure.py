"""Comparison by shape: lists, points, intervals, equations, units. docs/verifier.md states the rules."""

from __future__ import annotations

from fractions import Fraction

from rewards import decimals, matrices, solutions
from rewards import nodes as n
from rewards.canonical import (
    assigned,
    assigned_items,
    canonical,
    degrees,
    expand_signs,
    is_calculation,
    is_compound_name,
    is_percent,
    plain_words,
    same_variable,
    strip_percent,
    unmeasured,
)
from rewards.equality import Expressions, safely
from rewards.exact import Budget
from rewards.limits import ITEMS, LimitError
from rewards.nodes import Node
from rewards.realsets import NotReal, Pieces, RealSets
from rewards.units import COMPOUND, conversion

_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


class Comparison:
    """One comparison of a gold tree with a given tree. `rule` names what decided."""

    def __init__(self) -> None:
        self.budget = Budget()
        self.expressions = Expressions(self.budget)
        self.sets = RealSets(self.expressions)

    @property
    def rule(self) -> str:
        return self.expressions.rule

    @rule.setter
    def rule(self, value: str) -> None:
        self.expressions.rule = value

    def equal(self, gold: Node, given: Node) -> bool:
        """Raises Undecided, Undefined or LimitError where the bounds forbid a decision."""
        self.budget.visit()
        stated = plain(given)
        if isinstance(stated, n.Relation):
            if (
                "~" in stated.ops
                and isinstance(plain(gold), n.Relation)
                and "~" in getattr(plain(gold), "ops", ())
            ):
                return self.approximations(plain(gold), stated)
            if is_calculation(stated):
                return all(self.equal(gold, member) for member in stated.members)
        gold, given = expand_signs(canonical(gold)), expand_signs(canonical(given))
        if gold == given:
            self.rule = "equal-tree"
            return True
        verdict = solutions.same(gold, given, self.equal)
        if verdict is not None:
            self.rule = "equal-set" if verdict else "different"
            return verdict
        gold, given = self.bare(gold, given)
        if isinstance(gold, n.Measure) or isinstance(given, n.Measure) or degrees(gold) or degrees(given):
            return self.measures(gold, given)
        if is_percent(gold) or is_percent(given):
            return self.percents(gold, given)
        if n.is_expression(gold) and n.is_expression(given):
            return self.expression(gold, given)
        return self.shapes(gold, given)

    def approximations(self, gold: Node, given: n.Relation) -> bool:
        """2/3 = 0.67 roughly, against the same: both the value and its rounding agree."""
        assert isinstance(gold, n.Relation)
        return gold.ops == given.ops and self.pairwise(gold.members, given.members)

    def bare(self, gold: Node, given: Node) -> tuple[Node, Node]:
        """Drop `name =` where only one side has it, or both have it for one unknown or in words."""
        left, right = assigned(gold), assigned(given)
        if left is not None and right is None and not isinstance(given, n.Relation):
            return left, given
        if right is not None and left is None and not isinstance(gold, n.Relation):
            return gold, right
        if (
            left is not None
            and right is not None
            and isinstance(gold, n.Relation)
            and isinstance(given, n.Relation)
        ):
            names = gold.members[0], given.members[0]
            if names[0] == names[1] or (
                any(not isinstance(name, n.Sym) or len(name.name) > 4 for name in names)
                and not any(is_compound_name(name) for name in names)
            ):
                return left, right
        return gold, given

    # -- numbers, units -----------------------------------------------------------------------------
    def expression(self, gold: Node, given: Node) -> bool:
        if infinite(gold) or infinite(given):
            self.rule = "equal-tree" if infinite(gold) == infinite(given) else "different"
            return infinite(gold) == infinite(given)
        left, right = decimals.read(gold), decimals.read(given)
        if left is not None or right is not None:
            verdict = decimals.equal(self.expressions, gold, given, left, right)
            if verdict is not None:
                return verdict
        return self.expressions.equal(gold, given)

    def measures(self, gold: Node, given: Node) -> bool:
        left, left_words = unmeasured(gold)
        right, right_words = unmeasured(given)
        factors = conversion(left_words, right_words)
        if (COMPOUND in left_words and not right_words) or (COMPOUND in right_words and not left_words):
            factors = None
        if factors is None:
            if {left_words, right_words} & {("degree",)} and self.radians(
                left, left_words, right, right_words
            ):
                return True
            self.rule = "different"
            return False
        if factors[0] != factors[1]:
            left, right = n.Mul((n.number(factors[0]), left)), n.Mul((n.number(factors[1]), right))
        if left_words and right_words and left_words[0][:1] in "apAP":
            left, right = whole_hour(left), whole_hour(right)
        if self.equal(left, right):
            return True
        return bool({left_words, right_words} & {("degree",)}) and self.radians(
            left, left_words, right, right_words
        )

    def radians(
        self, left: Node, left_words: tuple[str, ...], right: Node, right_words: tuple[str, ...]
    ) -> bool:
        """90 degrees against pi/2: only where the side without degrees is written with pi."""
        if left_words == right_words:
            return False
        plain = right if left_words == ("degree",) else left
        if not any(item == n.Const("pi") for item in n.walk(plain)):
            return False
        sides = [
            n.Func("deg", (s,)) if w == ("degree",) else s
            for s, w in ((left, left_words), (right, right_words))
        ]
        return all(n.is_expression(side) for side in sides) and self.expressions.equal(*sides)

    def percents(self, gold: Node, given: Node) -> bool:
        """Both with a percent sign: the numbers agree. One without: it may be the number or the value."""
        left, right = strip_percent(gold), strip_percent(given)
        if self.equal(left, right):
            return True
        if is_percent(gold) and is_percent(given):
            return False
        scaled = [n.Mul((side, n.number(Fraction(1, 100)))) if is_percent(original) else side
                  for side, original in ((left, gold), (right, given))]  # fmt: skip
        return all(n.is_expression(side) for side in scaled) and self.expressions.equal(*scaled)

    # -- shapes -------------------------------------------------------------------------------------
    def shapes(self, gold: Node, given: Node) -> bool:
        self.rule = "different"
        if isinstance(gold, n.Text) and isinstance(given, n.Text):
            same = plain_words(gold.words) == plain_words(given.words)
            self.rule = "equal-text" if same else "different"
            return same
        if isinstance(gold, n.Text) or isinstance(given, n.Text):
            return self.text_set(gold, given)
        if matrices.has_matrix(gold) or matrices.has_matrix(given):
            return self.matrix(matrices.resolve(gold), matrices.resolve(given))
        if isinstance(gold, n.Based) or isinstance(given, n.Based):
            return self.based(gold, given)
        if isinstance(gold, n.Ratio) or isinstance(given, n.Ratio):
            return self.ratio(gold, given)
        if isinstance(gold, n.Listing | n.Braces) or isinstance(given, n.Listing | n.Braces):
            return self.members(gold, given)
        if isinstance(gold, n.Relation) and isinstance(given, n.Relation):
            return self.relations(gold, given)
        if isinstance(gold, n.Seq) and isinstance(given, n.Seq):
            return self.sequences(gold, given)
        return self.as_sets(gold, given)

    def text_set(self, gold: Node, given: Node) -> bool:
        """ "no solution" against the empty set, "all real numbers" against R."""
        names = {"empty set": n.Const("empty"), "all real numbers": n.Const("R")}
        sides = [names.get(plain_words(s.words), s) if isinstance(s, n.Text) else s for s in (gold, given)]
        if any(isinstance(side, n.Text) for side in sides):
            return False
        return self.as_sets(*sides)

    def pairwise(self, gold: tuple[Node, ...], given: tuple[Node, ...]) -> bool:
        return len(gold) == len(given) and all(self.equal(a, b) for a, b in zip(gold, given, strict=True))

    def unordered(self, gold: tuple[Node, ...], given: tuple[Node, ...], as_set: bool) -> bool:
        """Each member of one side has its own equal on the other; repeats count unless `as_set`."""
        if max(len(gold), len(given)) > ITEMS:
            raise LimitError("items")
        if len(gold) == len(given) and safely(lambda: self.pairwise(gold, given)):
            return True
        if any(item == n.Sym("ldots") or item == n.Sym("cdots") for item in (*gold, *given)):
            return False
        if as_set or all(isinstance(item, n.Seq) for item in (*gold, *given)):  # a point listed twice is one
            return self.covered(gold, given) and self.covered(given, gold)
        if len(gold) != len(given):
            return False
        rest = list(given)
        for item in gold:
            match = next((other for other in rest if self.equal(item, other)), None)
            if match is None:
                return False
            rest.remove(match)
        return True

    def covered(self, inner: tuple[Node, ...], outer: tuple[Node, ...]) -> bool:
        return all(any(self.equal(item, other) for other in outer) for item in inner)

    def members(self, gold: Node, given: Node) -> bool:
        sides = (gold, given)
        if any(isinstance(side, n.SetOp) for side in sides) or any(inequalities(side) for side in sides):
            if self.as_sets(gold, given):
                return True
            self.rule = "different"
        for ordered, other in (sides, sides[::-1]):
            if (
                isinstance(ordered, n.Seq)
                and isinstance(other, n.Listing)
                and ordered.open + ordered.close != "[)"
            ):
                values = None if same_variable(other) else assigned_items(other)
                if (ordered.open + ordered.close) in ("()", "[]", "<>"):
                    return self.pairwise(ordered.items, values or other.items)
                return False
        if (
            isinstance(given, n.Listing)
            and given.joiner == "or"
            and not isinstance(gold, n.Listing | n.Braces)
        ):
            return all(self.equal(gold, item) for item in given.items)  # one value, said twice
        lists = [self.items(side) for side in sides]
        if lists[0] is None or lists[1] is None:
            return False
        as_set = any(isinstance(side, n.Braces) for side in sides)
        values = [assigned_items(side) for side in sides]
        both_named = all(value is not None for value in values)
        if both_named and not all(same_variable(side) for side in sides):
            return self.unordered(lists[0], lists[1], as_set)
        chosen = [value or items for value, items in zip(values, lists, strict=True)]
        if any(values) and not both_named and not any(same_variable(s) for s in sides if assigned_items(s)):
            return self.pairwise(chosen[0] or (), chosen[1] or ())
        return self.unordered(chosen[0] or (), chosen[1] or (), as_set)

    @staticmethod
    def items(node: Node) -> tuple[Node, ...] | None:
        if isinstance(node, n.Listing | n.Braces):
            return node.items
        if isinstance(node, n.Const) and node.name == "empty":
            return ()
        if isinstance(node, n.Seq | n.SetOp | n.Matrix) or (
            isinstance(node, n.Relation) and assigned(node) is None
        ):
            return (node,)
        return (assigned(node) or node,)

    def sequences(self, gold: n.Seq, given: n.Seq) -> bool:
        brackets = {gold.open + gold.close, given.open + given.close}
        if len(brackets) > 1 and brackets not in ({"()", "<>"}, {"[]", "<>"}):
            return len(gold.items) == 2 and self.as_sets(gold, given)
        return self.pairwise(gold.items, given.items)

    def matrix(self, gold: Node, given: Node) -> bool:
        left, right = entries(gold), entries(given)
        if left is None or right is None:
            scalars = n.is_expression(gold) and n.is_expression(given) and left is right
            return scalars and self.expressions.equal(gold, given)
        if [len(row) for row in left] != [len(row) for row in right]:
            return False
        return self.pairwise(tuple(e for row in left for e in row), tuple(e for row in right for e in row))

    def based(self, gold: Node, given: Node) -> bool:
        """The same digits in the same base; the base may be left out on one side."""
        sides = [(side.digits, side.base) if isinstance(side, n.Based) else (digits_of(side), None)
                 for side in (gold, given)]  # fmt: skip
        (left, left_base), (right, right_base) = sides
        same = (
            left == right
            and left is not None
            and (None in (left_base, right_base) or left_base == right_base)
        )
        self.rule = "equal-digits" if same else "different"
        return same

    def ratio(self, gold: Node, given: Node) -> bool:
        left, right = ((side.items if isinstance(side, n.Ratio) else (side, n.ONE)) for side in (gold, given))
        if len(left) != len(right) or not all(n.is_expression(item) for item in (*left, *right)):
            return False
        if n.ZERO in left or n.ZERO in right:  # a time of day, or no ratio at all
            return self.pairwise(left, right)
        return all(
            self.expressions.equal(n.Mul((left[0], b)), n.Mul((a, right[0])))
            for a, b in zip(left[1:], right[1:], strict=True)
        )

    # -- relations and sets -------------------------------------------------------------------------
    def relations(self, gold: n.Relation, given: n.Relation) -> bool:
        for side in (given, reversed_chain(given)):
            if gold.ops == side.ops and safely(lambda side=side: self.pairwise(gold.members, side.members)):
                return True
        if len(gold.ops) == 1 and len(given.ops) == 1 and safely(lambda: self.proportional(gold, given)):
            return True
        if gold.ops == ("=",) or given.ops == ("=",):
            self.rule = "different"
            return False
        return self.as_sets(gold, given)

    def proportional(self, gold: n.Relation, given: n.Relation) -> bool:
        """Left minus right of one is a constant times that of the other; a negative one turns < into >."""
        if not all(n.is_expression(member) for member in (*gold.members, *given.members)):
            return False
        left, right = n.difference(*gold.members), n.difference(*given.members)
        same, sign = self.expressions.factor(left, right)
        if not same and gold.ops == given.ops == ("=",) and self.expressions.same_zeros(left, right):
            return True
        if not same:
            self.rule = "different"
            return False
        op = given.ops[0]
        if gold.ops[0] in ("=", "!="):
            return op == gold.ops[0]
        return sign != 0 and gold.ops[0] == (op if sign > 0 else _FLIPPED.get(op, "?"))

    def as_sets(self, gold: Node, given: Node) -> bool:
        """Equality as sets of reals, with open and closed ends; symbolic ends only side by side."""
        self.rule = "different"
        try:
            left, right = self.sets.pieces(gold), self.sets.pieces(given)
        except NotReal:
            return self.side_by_side(gold, given)
        same = len(left) == len(right) and self.same_pieces(left, right)
        self.rule = "equal-set" if same else "different"
        return same

    def same_pieces(self, left: Pieces, right: Pieces) -> bool:
        for a, b in zip(left, right, strict=True):
            for end, other in ((a.low, b.low), (a.high, b.high)):
                if end.closed != other.closed:
                    return False
                if end.position in (float("inf"), float("-inf")) or other.position in (
                    float("inf"),
                    float("-inf"),
                ):
                    if end.position != other.position:
                        return False
                elif not self.expression(plain(end.node), plain(other.node)):
                    return False
        return True

    def side_by_side(self, gold: Node, given: Node) -> bool:
        if isinstance(gold, n.SetOp) and isinstance(given, n.SetOp) and gold.op == given.op:
            if gold.op == "difference":
                return self.pairwise(gold.items, given.items)
            return self.unordered(gold.items, given.items, as_set=False)
        bounds = [symbolic_interval(side) for side in (gold, given)]
        if bounds[0] is not None and bounds[1] is not None:
            return bounds[0].open == bounds[1].open and bounds[0].close == bounds[1].close and self.pairwise(
                bounds[0].items, bounds[1].items
            )  # fmt: skip
        return False


def whole_hour(node: Node) -> Node:
    """7:00 as 7, for times of day."""
    return node.items[0] if isinstance(node, n.Ratio) and node.items[1:] == (n.ZERO,) else node


def plain(node: Node) -> Node:
    return node.value if isinstance(node, n.Measure) else node


def symbolic_interval(node: Node) -> n.Seq | None:
    """An interval, or the one that `a < x < b` means."""
    match node:
        case n.Seq(_, (_, _), _):
            return node
        case n.Relation((low, n.Sym(), high), (first, second)) if {first, second} <= {"<", "<="}:
            return n.Seq("[" if first == "<=" else "(", (low, high), "]" if second == "<=" else ")")
    return None


def infinite(node: Node) -> int:
    """1 and -1 for plus and minus infinity, 0 for anything else."""
    match node:
        case n.Const("oo"):
            return 1
        case n.Mul((n.Num(value, _), n.Const("oo"))):
            return 1 if value > 0 else -1
    return 0


def inequalities(node: Node) -> bool:
    return isinstance(node, n.Listing) and any(
        isinstance(item, n.Relation) and item.ops != ("=",) for item in node.items
    )


def reversed_chain(node: n.Relation) -> n.Relation:
    return n.Relation(node.members[::-1], tuple(_FLIPPED.get(op, op) for op in reversed(node.ops)))


def entries(node: Node) -> tuple[tuple[Node, ...], ...] | None:
    """Rows of a matrix; a point or vector counts as a column."""
    match node:
        case n.Matrix(rows):
            return tuple((entry,) for entry in rows[0]) if len(rows) == 1 and len(rows[0]) > 1 else rows
        case n.Seq("(" | "<" | "[", items, ")" | ">" | "]"):
            if all(isinstance(item, n.Seq) for item in items):
                return tuple(item.items for item in items if isinstance(item, n.Seq))
            return tuple((item,) for item in items)
    return None


def digits_of(node: Node) -> str | None:
    match node:
        case n.Num(value, None) if value.denominator == 1:
            return str(value.numerator)
    return None
