"""Statements about who is a knight, and the assignments that a set of claims allows.

A truth table over n people is an integer of 2**n bits: bit a is the truth under assignment a, in which person i is a
knight when bit i of a is set. Connectives are then bitwise operations, and all assignments are tried at once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from configs.keys import content_key

Op = Literal["not", "and", "or", "implies", "iff"]
OPS: tuple[Op, ...] = ("not", "and", "or", "implies", "iff")
_SYMMETRIC = ("and", "or", "iff")


@dataclass(frozen=True)
class Leaf:
    """Person number `person` is a knight, or a knave."""

    person: int
    knight: bool


@dataclass(frozen=True)
class Compound:
    """`op` over `parts`: one for "not", two for "implies" (if the first, then the second) and "iff", else two or more."""

    op: Op
    parts: tuple[Statement, ...]


Statement = Leaf | Compound
Claims = tuple[Statement, ...]  # what person 0 says, what person 1 says, ...
Path = tuple[int, ...]  # of a part in a statement


@functools.cache
def everything(people: int) -> int:
    """The table that is true under every assignment."""
    return (1 << (1 << people)) - 1


@functools.cache
def is_knight(person: int, people: int) -> int:
    """The table of "`person` is a knight"."""
    return sum(1 << a for a in range(1 << people) if a >> person & 1)


def literal(person: int, knight: bool, people: int) -> int:
    """The table of "`person` is a knight" or of "`person` is a knave"."""
    table = is_knight(person, people)
    return table if knight else everything(people) ^ table


def truth(statement: Statement, people: int) -> int:
    """The truth table of a statement."""
    if isinstance(statement, Leaf):
        return literal(statement.person, statement.knight, people)
    tables = [truth(part, people) for part in statement.parts]
    full = everything(people)
    match statement.op:
        case "not":
            return full ^ tables[0]
        case "and":
            return functools.reduce(int.__and__, tables)
        case "or":
            return functools.reduce(int.__or__, tables)
        case "implies":
            return full ^ tables[0] | tables[1]
        case "iff":
            return full ^ tables[0] ^ tables[1]


def claim(speaker: int, statement: Statement, people: int) -> int:
    """The assignments under which `speaker` can say it: a knight what is true, a knave what is false."""
    return everything(people) ^ is_knight(speaker, people) ^ truth(statement, people)


def solve(claims: Claims) -> list[tuple[bool, ...]]:
    """All assignments that the claims allow: for each person, whether a knight. None for a paradox."""
    people = len(claims)
    allowed = functools.reduce(int.__and__, (claim(i, s, people) for i, s in enumerate(claims)))
    return [tuple(bool(a >> i & 1) for i in range(people)) for a in range(1 << people) if allowed >> a & 1]


def leaves(statement: Statement, path: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """The leaves of a statement with their places."""
    if isinstance(statement, Leaf):
        yield path, statement
    else:
        for i, part in enumerate(statement.parts):
            yield from leaves(part, (*path, i))


def replaced(statement: Statement, path: Path, part: Statement) -> Statement:
    """The statement with another part at `path`."""
    if not path:
        return part
    assert isinstance(statement, Compound)
    first, *rest = path
    parts = list(statement.parts)
    parts[first] = replaced(parts[first], tuple(rest), part)
    return Compound(statement.op, tuple(parts))


def core(claims: Claims) -> str:
    """What identifies a puzzle: equal for puzzles that differ only in names, in the order of the statements, in the
    order of the parts of a symmetric connective, or in "not a knight" for "a knave".

    Colour refinement (Weisfeiler and Leman 1968): a person's colour is a hash of what they say, in which people go by
    their colours, n times over. Different puzzles may share a core (refinement does not tell all apart), which costs
    one of them its place and nothing else.
    """
    colours = [""] * len(claims)
    for _ in claims:
        colours = [content_key(colours[i], _text(s, i, colours)) for i, s in enumerate(claims)]
    return f"{len(claims)}:{content_key(sorted(colours))}"


def _text(statement: Statement, speaker: int, colours: Sequence[str]) -> str:
    """Canonical text with colours in place of people, and "I" for the speaker."""
    if isinstance(statement, Leaf):
        who = "I" if statement.person == speaker else colours[statement.person]
        return f"{who}{'+' if statement.knight else '-'}"
    first = statement.parts[0]
    if statement.op == "not" and isinstance(first, Leaf):
        return _text(Leaf(first.person, not first.knight), speaker, colours)
    parts = [_text(part, speaker, colours) for part in statement.parts]
    return f"{statement.op}({','.join(sorted(parts) if statement.op in _SYMMETRIC else parts)})"
