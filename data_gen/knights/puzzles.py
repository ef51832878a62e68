"""Source `knights`: puzzles with one solution, their perturbed versions, and reworded ones.

After Xie et al. 2024 (arXiv:2410.23123): random statement trees of bounded depth and width about who is a knight; a
perturbed leaf (one "X is a knight" in one statement is another one) or a perturbed statement (one statement is another
one), both with one solution again, which differs; and rewordings with the same logic. Departures: a puzzle is only taken
when both perturbed versions exist, so that every comparison is over the same puzzles; statements that tell nothing (always
true or false, or such that anybody could make them) and idle parts are not drawn; puzzles and texts are our own.

Puzzles fall into two halves by a hash of their core (see `logic.core`). Training puzzles come from one half; new puzzles
and all perturbed versions come from the other. So whatever the seed and the limit, neither can be met in training, in
whatever names or order.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from configs.errors import ConfigError, InputError
from configs.keys import derive_seed
from configs.rows import Problem
from data_gen.knights import words
from data_gen.knights.logic import (
    OPS,
    Claims,
    Compound,
    Leaf,
    Statement,
    claim,
    core,
    everything,
    leaves,
    replaced,
    solve,
    truth,
)
from data_gen.knights.reasoning import reason
from data_gen.knights.words import Surface

Split = Literal["train", "test"]
Variant = Literal["leaf", "statement", "names", "order", "roles"]
Solutions = Literal["steps", "answer"]

SPLITS = ("train", "test")
PERTURBED: tuple[Variant, ...] = ("leaf", "statement")
REWORDED: tuple[Variant, ...] = ("names", "order", "roles")
MIN_PEOPLE, MAX_PEOPLE = 2, 8
MIN_DEPTH, MAX_DEPTH, MAX_WIDTH = 2, 3, 3  # leaves alone never have one solution: exchange all roles
MAX_TRIES = 5_000  # for one puzzle, before its kind counts as used up
_STATEMENT_TRIES = 100
_REWORDINGS: dict[str, Callable[[Surface, random.Random], Surface]] = {
    "names": words.renamed, "order": words.reordered, "roles": words.recast,
}


@dataclass(frozen=True)
class Puzzle:
    """The logic of one puzzle and its two perturbed versions."""

    claims: Claims
    leaf: Claims
    statement: Claims


def generate(
    count: int,
    split: Split,
    seed: int,
    people: Sequence[int] = (3,),
    depth: int | None = None,
    width: int = 2,
    variant: Variant | None = None,
    solutions: Solutions = "steps",
) -> list[Problem]:
    """The first `count` puzzles of `stream`; `generate(n)` is a prefix of `generate(m)` for m > n."""
    if count < 0:
        raise ConfigError(f"knights: count must be 0 or more, not {count}")
    return list(itertools.islice(stream(split, seed, people, depth, width, variant, solutions), count))


def stream(
    split: Split,
    seed: int,
    people: Sequence[int] = (3,),
    depth: int | None = None,
    width: int = 2,
    variant: Variant | None = None,
    solutions: Solutions = "steps",
) -> Iterator[Problem]:
    """Puzzles without end, no core twice; a pure function of the arguments.

    `people` are numbers of people (2 to 8), taken in turn. A statement has at most `depth` levels ("X is a knight" is one;
    2 or 3, by default 3 for two people, of whom few puzzles can be made otherwise, else 2), and "and" and "or" join at
    most `width` parts (2 or 3). With a `variant` these are the perturbed or reworded versions of the puzzles that the other
    arguments give without it, in the same order; `parents` is the id of the original. `solutions` are worked out in steps,
    or the bare answer.
    Raises ConfigError for arguments out of range, InputError when there is no new puzzle of a kind left.
    """
    _check(split, people, depth, width)
    return _stream(split, seed, tuple(people), depth, width, variant, solutions)


def _check(split: str, people: Sequence[int], depth: int | None, width: int) -> None:
    if split not in SPLITS:
        raise ConfigError(f"knights: unknown split {split!r}; expected {' or '.join(SPLITS)}")
    if not people or any(not MIN_PEOPLE <= n <= MAX_PEOPLE for n in people):
        raise ConfigError(f"knights: people must be from {MIN_PEOPLE} to {MAX_PEOPLE}, not {list(people)}")
    if depth is not None and not MIN_DEPTH <= depth <= MAX_DEPTH:
        raise ConfigError(f"knights: depth must be from {MIN_DEPTH} to {MAX_DEPTH}, not {depth}")
    if not 2 <= width <= MAX_WIDTH:
        raise ConfigError(f"knights: width must be from 2 to {MAX_WIDTH}, not {width}")


def _stream(
    split: Split,
    seed: int,
    people: tuple[int, ...],
    asked: int | None,
    width: int,
    variant: Variant | None,
    form: Solutions,
) -> Iterator[Problem]:
    seen: set[str] = set()
    # The arguments are part of the id: two streams of one run may differ only in them.
    prefix = f"knights/{split}/{seed}/p{'.'.join(map(str, people))}-d{asked or 'auto'}-w{width}"
    for index in itertools.count():
        count = people[index % len(people)]
        rng = random.Random(derive_seed("knights", split, seed, list(people), asked, width, index))
        depth = asked or (3 if count == 2 else 2)
        for _ in range(MAX_TRIES):
            puzzle = draw_puzzle(count, depth, width, split, rng)
            if puzzle is not None and (identity := core(puzzle.claims)) not in seen:
                break
        else:
            raise InputError(
                f"knights: no new {split} puzzle of {count} people with depth {depth} and width {width} in {MAX_TRIES} "
                f"tries (index {index}): ask for fewer, or for more people, depth or width"
            )
        seen.add(identity)
        yield _problem(f"{prefix}/{index}", puzzle, split, words.draw_surface(count, rng), variant, form)


def _problem(
    identity: str, puzzle: Puzzle, split: Split, surface: Surface, variant: Variant | None, form: Solutions
) -> Problem:
    claims = puzzle.claims
    if variant in _REWORDINGS:
        surface = _REWORDINGS[variant](surface, random.Random(derive_seed("knights", identity, variant)))
    elif variant is not None:
        claims = puzzle.leaf if variant == "leaf" else puzzle.statement
    [roles] = solve(claims)
    return Problem(
        id=f"{identity}/{variant}" if variant else identity,
        parents=[identity] if variant else [],
        stage="problems",
        source="knights",
        split=split,
        question=words.question(claims, surface),
        answer=words.answer(roles, surface),
        solution=words.worked(reason(claims) if form == "steps" else [], roles, surface),
        level=str(len(claims)),
        core=core(claims),
    )


def split_of(identity: str) -> Split:
    """The split that a core belongs to, for ever: half of them each, by SHA-256."""
    return "test" if hashlib.sha256(identity.encode()).digest()[0] % 2 else "train"


def draw_puzzle(people: int, depth: int, width: int, split: Split, rng: random.Random) -> Puzzle | None:
    """A puzzle of a split with its perturbed versions, or None where the draw is not one."""
    claims = tuple(_draw_claim(i, people, depth, width, rng) for i in range(people))
    if len(solve(claims)) != 1 or split_of(core(claims)) != split:
        return None
    leaf = perturbed_leaf(claims, rng)
    statement = perturbed_statement(claims, depth, width, rng) if leaf else None
    return Puzzle(claims, leaf, statement) if leaf and statement else None


def perturbed_leaf(claims: Claims, rng: random.Random) -> Claims | None:
    """The puzzle with another leaf in one place, drawn from all such versions that are fit; None if there are none."""
    candidates = [
        (speaker, replaced(statement, path, Leaf(person, knight)))
        for speaker, statement in enumerate(claims)
        for path, leaf in leaves(statement)
        for person, knight in itertools.product(range(len(claims)), (True, False))
        if Leaf(person, knight) != leaf
    ]
    rng.shuffle(candidates)
    return next((c for s, new in candidates if (c := _with_claim(claims, s, new))), None)


def perturbed_statement(claims: Claims, depth: int, width: int, rng: random.Random) -> Claims | None:
    """The puzzle with another statement of one person; None where none was found that differs in more than a leaf."""
    for _ in range(_STATEMENT_TRIES):
        speaker = rng.randrange(len(claims))
        new = _draw_claim(speaker, len(claims), depth, width, rng)
        if _shape(new) != _shape(claims[speaker]) and (found := _with_claim(claims, speaker, new)):
            return found
    return None


def _with_claim(claims: Claims, speaker: int, statement: Statement) -> Claims | None:
    """The puzzle with another statement, if it has one solution, another one, and may be a perturbed version."""
    if not _tells(speaker, statement, len(claims)):
        return None
    new = (*claims[:speaker], statement, *claims[speaker + 1 :])
    before, after = solve(claims), solve(new)
    return new if len(after) == 1 and after != before and split_of(core(new)) == "test" else None


def _shape(statement: Statement) -> object:
    """The connectives of a statement without its leaves."""
    return None if isinstance(statement, Leaf) else (statement.op, *map(_shape, statement.parts))


def _tells(speaker: int, statement: Statement, people: int) -> bool:
    """Whether the claim rules something out, but not everything, and no part of the statement is idle."""
    possible = claim(speaker, statement, people)
    return 0 < possible < everything(people) and not _idle(statement, people)


def _idle(statement: Statement, people: int) -> bool:
    """Whether some part is true whatever people are, or false, or says the same as the part beside it."""
    if truth(statement, people) in (0, everything(people)):
        return True
    if isinstance(statement, Leaf):
        return False
    tables = {truth(part, people) for part in statement.parts}
    return len(tables) < len(statement.parts) or any(_idle(part, people) for part in statement.parts)


def _draw_claim(speaker: int, people: int, depth: int, width: int, rng: random.Random) -> Statement:
    while True:
        statement = draw_statement(people, depth, width, rng)
        if _tells(speaker, statement, people):
            return statement


def draw_statement(people: int, depth: int, width: int, rng: random.Random) -> Statement:
    """A random statement: at the last level a leaf, before it a leaf or any connective alike."""
    op = rng.choice((None, *OPS)) if depth > 1 else None
    if op is None:
        return Leaf(rng.randrange(people), rng.random() < 0.5)
    count = {"not": 1, "implies": 2, "iff": 2}.get(op) or rng.randint(2, width)
    return Compound(op, tuple(draw_statement(people, depth - 1, width, rng) for _ in range(count)))
