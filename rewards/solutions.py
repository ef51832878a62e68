"""Values of several named unknowns: "x = 1, y = 2", "(x, y) = (1, 2)", "p = 5, q = 2; p = 7, q = 2".

A solution maps each name to its value. Two lists of solutions are compared name by name; against points
without names the order is that of the names, alphabetical for neighbours in the alphabet such as x, y.
"""

from __future__ import annotations

from collections.abc import Callable

from rewards import nodes as n
from rewards.limits import ITEMS
from rewards.nodes import Node

Solution = dict[str, Node]
_POINTS = frozenset({"()", "[]", "<>"})


def read(node: Node) -> list[Solution] | None:
    """The solutions that `node` lists, all for the same two or more names; None for anything else."""
    if isinstance(node, n.Relation) and node.ops == ("=",):
        one = of_point(node)
        return [one] if one else None
    if isinstance(node, n.Seq) and node.open + node.close in _POINTS:
        found = grouped(node.items)
        return found if found and len(found) == 1 else None
    if not isinstance(node, n.Listing | n.Braces) or len(node.items) > ITEMS:
        return None
    if not all(isinstance(item, n.Relation | n.Seq) for item in node.items):
        return None
    points = [read(item) for item in node.items]
    if all(point is not None for point in points):
        solutions = [solution for point in points for solution in point or ()]
        return solutions if len({frozenset(s) for s in solutions}) == 1 else None
    return grouped(node.items)


def of_point(node: n.Relation) -> Solution | None:
    """(x, y) = (1, 2)"""
    match node.members:
        case (n.Seq(_, names, _), n.Seq(_, values, _)) if len(names) == len(values) >= 2:
            labels = [name.name for name in names if isinstance(name, n.Sym)]
            if len(set(labels)) == len(names):
                return dict(zip(labels, values, strict=True))
    return None


def grouped(items: tuple[Node, ...]) -> list[Solution] | None:
    """Assignments to the same names again and again, in any order within each group."""
    pairs: list[tuple[str, Node]] = []
    for item in items:
        match item:
            case n.Relation((n.Sym(name), value), ("=",)) if name not in n.symbols(value):
                pairs.append((name, value))
            case _:
                return None
    names = {name for name, _ in pairs}
    width = len(names)
    if width < 2 or len(pairs) % width or len({name.split("_")[0] for name in names}) == 1:
        return None  # x_1 and x_2 are roots of one unknown, which have no order
    groups = [dict(pairs[at : at + width]) for at in range(0, len(pairs), width)]
    return groups if all(len(group) == width for group in groups) else None


def in_order(solution: Solution) -> tuple[Node, ...]:
    """The values as a point has them: by name for neighbours in the alphabet, else as written."""
    names = list(solution)
    low = min(names)
    neighbours = all(len(name) == 1 and name.isascii() for name in names) and sorted(names) == [
        chr(ord(low) + step) for step in range(len(names))
    ]
    return tuple(solution[name] for name in (sorted(names) if neighbours else names))


def points(node: Node, width: int) -> list[tuple[Node, ...]] | None:
    """Points of `width` coordinates without names; a single one may stand without its brackets."""
    if isinstance(node, n.Seq):
        return [node.items] if len(node.items) == width and node.open + node.close in _POINTS else None
    if not isinstance(node, n.Listing | n.Braces):
        return None
    if all(isinstance(item, n.Seq) for item in node.items):
        found = [points(item, width) for item in node.items]
        return [p[0] for p in found if p] if all(found) else None
    plain = isinstance(node, n.Listing) and len(node.items) == width and node.joiner != "or"
    return [node.items] if plain and not any(isinstance(item, n.Relation) for item in node.items) else None


def same(gold: Node, given: Node, equal: Callable[[Node, Node], bool]) -> bool | None:
    """Whether both list the same solutions; None where this is no comparison of solutions."""
    left, right = read(gold), read(given)
    if left is None and right is None:
        return None
    named = left or right or []
    names = list(named[0])
    sides: list[list[tuple[Node, ...]]] = []
    for solutions, node in ((left, gold), (right, given)):
        if solutions is None:
            found = points(node, len(names))
        elif left is not None and right is not None:
            if set(solutions[0]) != set(names):
                return False
            found = [tuple(solution[name] for name in names) for solution in solutions]
        else:
            found = [in_order(solution) for solution in solutions]
        if found is None:
            return None if len(named) == 1 else False
        sides.append(found)

    def agree(one: tuple[Node, ...], other: tuple[Node, ...]) -> bool:
        return all(equal(a, b) for a, b in zip(one, other, strict=True))

    return all(any(agree(a, b) for b in sides[1]) for a in sides[0]) and all(
        any(agree(a, b) for a in sides[0]) for b in sides[1]
    )
