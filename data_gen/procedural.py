"""Seeded word problems of graded difficulty, without end, train and test disjoint by construction.

A problem is drawn in two halves. Its *core* is the mathematics: which situations follow one another and
with which numbers. Its *surface* is the rest: names, objects, turns of phrase. The split is a function of
the core alone (SHA-256 modulo 5: one core in five is test), so whatever the seed, the size or the level,
no test problem can be met in training under another name.

Why not a generator such as reasoning-gym: there, two seeds may give the same problem, so that splits are
disjoint only by luck; its word problems carry no worked solutions to train on; its difficulty is not
graded by number of steps; and a demo or a test should not need another dependency.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from configs.errors import ConfigError, InputError
from configs.keys import derive_seed
from configs.rows import Problem

Split = Literal["train", "test"]
Op = Literal["add", "sub", "mul", "div"]

OPS: tuple[Op, ...] = ("add", "sub", "mul", "div")
SPLITS = ("train", "test")
MAX_LEVEL = 6
MIN_NUMBER = 5
TEST_EVERY = 5
# Tries for one problem before its level counts as exhausted. A level's last few unseen cores are rare
# draws, and 20 000 tries (about 0.3 s) find nearly all of them.
MAX_TRIES = 20_000

_SIGN: dict[Op, str] = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


@dataclass(frozen=True)
class Situation:
    """A complete one-step problem. `symmetric`: swapping `a` and `b` gives the same problem."""

    id: str
    op: Op
    texts: tuple[str, ...]
    symmetric: bool = False


@dataclass(frozen=True)
class Event:
    """Something that changes the running quantity by one or two arithmetic steps.

    One step: q op n. Two steps (`inner` is "mul"): q op (n * m). `fixed` is a number told in words
    ("half"). `changes` says what the quantity counts afterwards: another person's things, or other things.
    """

    id: str
    op: Op
    texts: tuple[str, ...]
    inner: bool = False
    fixed: int | None = None
    changes: Literal["", "holder", "unit"] = ""


@dataclass(frozen=True)
class Core:
    """The mathematics of one problem: `parts` are (situation or event id, numbers) in order."""

    parts: tuple[tuple[str, tuple[int, ...]], ...]
    steps: tuple[tuple[int, Op, int, int], ...]  # left, operation, right, result

    @property
    def answer(self) -> int:
        return self.steps[-1][3]

    def text(self) -> str:
        """Canonical string, e.g. "start:5|buy:7|half:2"; symmetric situations have their numbers sorted."""
        out = []
        for name, numbers in self.parts:
            same = name == "start_kinds" or (name in _SITUATION and _SITUATION[name].symmetric)
            out.append(f"{name}:{','.join(map(str, sorted(numbers) if same else numbers))}")
        return "|".join(out)


# {x} is the person, {y} another one; {s} their pronoun, {p} their possessive; {o}/{one} the objects.
SITUATIONS: tuple[Situation, ...] = (
    Situation("kinds", "add", (
        "{x} has {a} red {o} and {b} blue {o}. How many {o} does {x} have in total?",
        "In {p} bag, {x} has {a} big {o} and {b} small {o}. How many {o} are in the bag altogether?",
    ), symmetric=True),
    Situation("together", "add", (
        "{x} has {a} {o} and {y} has {b} {o}. How many {o} do they have together?",
        "{x} collected {a} {o}. {y} collected {b} {o}. How many {o} did the two of them collect in all?",
    ), symmetric=True),
    Situation("older", "add", (
        "{x} is {a} years old. How old will {s} be in {b} years?",
        "This year {x} turns {a}. What age will {s} turn {b} years from now?",
    )),
    Situation("bus", "add", (
        "There are {a} people on a bus. At the next stop {b} people get on and nobody gets off. "
        "How many people are on the bus now?",
        "A bus carries {a} passengers when {b} more get on. How many passengers does it carry then?",
    )),
    Situation("walk", "add", (
        "{x} walked {a} miles in the morning and {b} miles in the afternoon. How many miles did {s} walk?",
        "On Monday {x} ran {a} miles, and on Tuesday {s} ran {b} miles. How many miles did {s} run in all?",
    ), symmetric=True),
    Situation("compare_more", "add", (
        "{y} has {a} {o}. {x} has {b} more {o} than {y}. How many {o} does {x} have?",
        "{x} made {b} more {o} than {y}, who made {a}. How many {o} did {x} make?",
    )),
    Situation("eaten", "sub", (
        "A plate holds {a} cookies. {x} eats {b} of them. How many cookies are left on the plate?",
        "{x} baked {a} muffins and {p} family ate {b} of them. How many muffins are left?",
    )),
    Situation("difference", "sub", (
        "{x} has {a} {o} and {y} has {b}. How many more {o} does {x} have than {y}?",
        "{y} found {b} {o}, while {x} found {a}. By how many {o} did {x} beat {y}?",
    )),
    Situation("pages", "sub", (
        "A book has {a} pages. {x} has read {b} of them. How many pages are still to be read?",
        "{x} must learn {a} words and already knows {b} of them. How many words must {s} still learn?",
    )),
    Situation("missing", "sub", (
        "{x} had {b} {o}. After {p} birthday {s} had {a} {o}. How many {o} did {s} get for {p} birthday?",
        "{x} wants {a} {o} and has {b} so far. How many {o} does {s} still need?",
    )),
    Situation("price", "sub", (
        "{x} has {a} dollars and buys a toy that costs {b} dollars. How many dollars are left?",
        "{x} had {a} dollars and spent {b} of them on lunch. How many dollars remain?",
    )),
    Situation("cooling", "sub", (
        "At noon it was {a} degrees. By night it was {b} degrees colder. How many degrees was it at night?",
        "A candle {a} centimeters tall burns down by {b} centimeters. How tall is it now, in centimeters?",
    )),
    Situation("boxes", "mul", (
        "{x} has {a} boxes with {b} {o} in each box. How many {o} does {x} have?",
        "There are {a} bags, and each bag holds {b} {o}. How many {o} are there in all?",
    )),
    Situation("rows", "mul", (
        "A garden has {a} rows of {b} trees. How many trees does the garden have?",
        "{x} sets up chairs in {a} rows with {b} chairs in each. How many chairs does {s} set up?",
    )),
    Situation("cost", "mul", (
        "One ticket costs {b} dollars. How many dollars do {a} tickets cost?",
        "{x} buys {a} shirts at {b} dollars each. How many dollars does {s} pay?",
    )),
    Situation("daily", "mul", (
        "{x} reads {b} pages every day. How many pages does {s} read in {a} days?",
        "{x} earns {b} dollars an hour and works for {a} hours. How many dollars does {s} earn?",
    )),
    Situation("times", "mul", (
        "{y} has {a} {o}. {x} has {b} times as many. How many {o} does {x} have?",
        "{x} has {b} times as many {o} as {y}, who has {a}. How many {o} does {x} have?",
    )),
    Situation("share", "div", (
        "{x} shares {a} {o} equally among {b} children. How many {o} does each child get?",
        "{b} friends split {a} {o} evenly. How many {o} does each of them get?",
    )),
    Situation("pack", "div", (
        "{x} packs {a} {o} into bags of {b}. How many bags does {s} fill?",
        "{a} {o} are put into boxes that hold {b} each. How many boxes are filled?",
    )),
    Situation("unit_price", "div", (
        "{b} pens cost {a} dollars in total, and all cost the same. How many dollars does one pen cost?",
        "{x} paid {a} dollars for {b} equal notebooks. How many dollars did each notebook cost?",
    )),
    Situation("speed", "div", (
        "{x} walks {a} miles in {b} hours at a steady pace. How many miles does {s} walk in one hour?",
        "{x} reads {a} pages in {b} days, the same number every day. How many pages is that a day?",
    )),
    Situation("how_often", "div", (
        "{x} saves {b} dollars a week. After how many weeks will {s} have saved {a} dollars?",
        "A ribbon of {a} meters is cut into pieces of {b} meters. How many pieces are there?",
    )),
    Situation("times_inverse", "div", (
        "{y} has {a} {o}, which is {b} times as many as {x} has. How many {o} does {x} have?",
        "{y} has {b} times as many {o} as {x}. If {y} has {a} {o}, how many does {x} have?",
    )),
)

EVENTS: tuple[Event, ...] = (
    Event("buy", "add", ("{s} buys {n} more {o}", "{s} picks up another {n} {o} at a shop")),
    Event("find", "add", ("{s} finds {n} {o}", "{s} comes across {n} more {o} and keeps them")),
    Event("gift", "add", ("{s} gets {n} {o} from an uncle", "{s} is given {n} {o} as a present")),
    Event("win", "add", ("{s} wins {n} {o} in a game", "{s} wins {n} more {o}")),
    Event("more_than", "add", ("{new} has {n} more {o} than {x} has now",), changes="holder"),
    Event("give", "sub", ("{s} gives {n} {o} to a neighbor", "{s} gives away {n} of the {o}")),
    Event("lose", "sub", ("{s} loses {n} {o}", "{s} drops {n} of the {o} and cannot find them again")),
    Event("sell", "sub", ("{s} sells {n} {o}", "{s} sells {n} of the {o} at a market")),
    Event("break", "sub", ("{s} throws out {n} spoiled {o}", "{s} throws away {n} {o}")),
    Event("fewer_than", "sub", ("{new} has {n} fewer {o} than {x} has now",), changes="holder"),
    Event("double", "mul", ("{s} doubles the number of {p} {o}",), fixed=2),
    Event("grow", "mul", ("{s} works until {p} number of {o} is {n} times as large",)),
    Event("trade_up", "mul", ("{s} trades all {p} {o}, getting {n} {unit} for each {one}",), changes="unit"),
    Event("times_as", "mul", ("{new} has {n} times as many {o} as {x} has now",), changes="holder"),
    Event("half", "div", ("{s} gives half of {p} {o} away", "{s} sells half of the {o}"), fixed=2),
    Event("split", "div", (
        "{s} splits {p} {o} equally into {n} boxes and keeps only one box",
        "{s} makes {n} equal piles of {p} {o}, keeps one pile and gives away the others",
    )),
    Event("trade_down", "div", (
        "{s} trades all {p} {o}, getting one {unit_one} for every {n} {o}",
    ), changes="unit"),
    Event("times_of", "div", ("that is {n} times as many {o} as {new} has",), changes="holder"),
    Event("buy_boxes", "add", (
        "{s} buys {n} bags with {m} {o} in each", "{s} gets {m} {o} from each of {n} friends",
    ), inner=True),
    Event("give_each", "sub", (
        "{s} gives {m} {o} to each of {n} friends", "{s} sells {n} bags of {m} {o} each",
    ), inner=True),
)

STARTS: dict[str, tuple[str, ...]] = {
    "start": ("{x} has {a} {o}.", "{x} starts with {a} {o}.", "{x} owns {a} {o}."),
    "start_boxes": ("{x} has {a} boxes with {b} {o} in each.", "{x} fills {a} jars with {b} {o} each."),
    "start_kinds": ("{x} has {a} red {o} and {b} green {o}.", "{x} has {a} old {o} and {b} new {o}."),
}
ENDINGS = ("How many {o} does {x} have now?", "How many {o} does {x} have in the end?")
LINKS = ("", "", "Then ", "After that, ", "Next, ", "Later, ")
PEOPLE: tuple[tuple[str, str, str], ...] = tuple(
    (name, *pronouns)
    for names, pronouns in (
        ("Tom Ben Omar Luis Jack Ravi Hugo Ken Paul Adam Noah Ivan", ("he", "his")),
        ("Anna Mia Lena Sara Priya Emma Zoe Ruth Aisha Chloe Nina Yuki", ("she", "her")),
    )
    for name in names.split()
)
OBJECTS: tuple[tuple[str, str], ...] = (
    ("apple", "apples"), ("marble", "marbles"), ("sticker", "stickers"), ("shell", "shells"),
    ("pencil", "pencils"), ("button", "buttons"), ("card", "cards"), ("cookie", "cookies"),
    ("stamp", "stamps"), ("bead", "beads"), ("orange", "oranges"), ("toy car", "toy cars"),
    ("flower", "flowers"), ("balloon", "balloons"), ("candy", "candies"), ("ribbon", "ribbons"),
)

_SITUATION = {s.id: s for s in SITUATIONS}
_EVENT = {e.id: e for e in EVENTS}
_ONE_STEP: dict[Op, tuple[Situation | Event, ...]] = {
    op: (*(s for s in SITUATIONS if s.op == op), *(e for e in EVENTS if e.op == op and not e.inner))
    for op in OPS
}
_CHAIN: dict[Op, tuple[Event, ...]] = {op: tuple(e for e in EVENTS if e.op == op) for op in OPS}


def generate(
    count: int,
    split: Split,
    seed: int,
    levels: Sequence[int] = (1,),
    max_number: int = 20,
) -> list[Problem]:
    """The first `count` problems of `stream`; `generate(n)` is a prefix of `generate(m)` for m > n."""
    if count < 0:
        raise ConfigError(f"procedural problems: count must be 0 or more, not {count}")
    return list(itertools.islice(stream(split, seed, levels, max_number), count))


def stream(split: Split, seed: int, levels: Sequence[int] = (1,), max_number: int = 20) -> Iterator[Problem]:
    """Problems without end, with no core twice; a pure function of the arguments.

    `levels` are numbers of arithmetic steps (1 to 6), taken in turn. Numbers named in a question lie
    between 2 and `max_number`; results are non-negative integers and divisions are exact. With several
    steps no intermediate result exceeds 10 * max_number.
    Raises ConfigError for arguments out of range, and InputError when a level has no unseen problem left
    (level 1 has a few thousand with max_number 20; two steps and more have far beyond 10**5).
    """
    _check(split, levels, max_number)
    return _stream(split, seed, tuple(levels), max_number)


def _check(split: str, levels: Sequence[int], max_number: int) -> None:
    if split not in SPLITS:
        raise ConfigError(f"procedural problems: unknown split {split!r}; expected {' or '.join(SPLITS)}")
    if not levels or any(not 1 <= level <= MAX_LEVEL for level in levels):
        raise ConfigError(f"procedural problems: levels must be from 1 to {MAX_LEVEL}, not {list(levels)}")
    if max_number < MIN_NUMBER:
        raise ConfigError(f"procedural problems: max_number must be at least {MIN_NUMBER}, not {max_number}")


def _stream(split: str, seed: int, levels: tuple[int, ...], max_number: int) -> Iterator[Problem]:
    seen: set[str] = set()
    found = dict.fromkeys(levels, 0)
    # The arguments are part of the id: two streams of one run may differ only in them.
    prefix = f"procedural/{split}/{seed}/l{'.'.join(map(str, levels))}-n{max_number}"
    for index in itertools.count():
        level = levels[index % len(levels)]
        rng = random.Random(derive_seed("procedural", split, seed, list(levels), max_number, index))
        for _ in range(MAX_TRIES):
            core = _draw_core(level, max_number, rng)
            text = core.text()
            if text not in seen and split_of(text) == split:
                break
        else:
            raise InputError(
                f"procedural problems: no new {split} problem of level {level} with max_number {max_number} "
                f"in {MAX_TRIES} tries, after {found[level]} found (index {index}); "
                "raise max_number, add higher levels or ask for fewer"
            )
        seen.add(text)
        found[level] += 1
        yield Problem(
            id=f"{prefix}/{index}",
            parents=[],
            stage="problems",
            source="procedural",
            split=split,
            question=_render(core, rng),
            answer=str(core.answer),
            solution=_solution(core),
            level=str(level),
            subject=",".join(op for op in OPS if any(step[1] == op for step in core.steps)),
            core=text,
        )


def split_of(core: str) -> Split:
    """The split that a core belongs to, for ever: test for one in five by SHA-256, train otherwise."""
    digest = hashlib.sha256(core.encode()).digest()
    return "test" if int.from_bytes(digest, "big") % TEST_EVERY == 0 else "train"


def _apply(left: int, op: Op, right: int) -> tuple[int, Op, int, int]:
    if op == "add":
        return left, op, right, left + right
    if op == "sub":
        return left, op, right, left - right
    return (left, op, right, left * right) if op == "mul" else (left, op, right, left // right)


@functools.cache
def _divisions(max_number: int) -> tuple[tuple[int, int], ...]:
    """All (a, b) with b dividing a, quotient and divisor at least 2, and a at most max_number."""
    return tuple((a, b) for a in range(4, max_number + 1) for b in range(2, a // 2 + 1) if a % b == 0)


def _draw_core(level: int, max_number: int, rng: random.Random) -> Core:
    """A core of `level` steps, from any split. The operation is drawn first, so that all four are common."""
    if level == 1:
        op = rng.choice(OPS)
        chosen = rng.choice(_ONE_STEP[op])
        if isinstance(chosen, Situation):
            return _draw_one_step(chosen, max_number, rng)
        while True:
            first = rng.randint(2, max_number)
            drawn = _draw_event(chosen, first, 1, max_number, rng)
            if drawn is not None:
                return Core((("start", (first,)), (chosen.id, drawn[0])), drawn[1])
    start = rng.choice(("start", "start", "start_boxes", "start_kinds"))
    small = min(max_number, 10)
    steps: list[tuple[int, Op, int, int]] = []
    if start == "start":
        numbers: tuple[int, ...] = (rng.randint(2, max_number),)
    elif start == "start_boxes":
        numbers = (rng.randint(2, small), rng.randint(2, small))
        steps.append(_apply(numbers[0], "mul", numbers[1]))
    else:
        numbers = (rng.randint(2, max_number), rng.randint(2, max_number))
        steps.append(_apply(numbers[0], "add", numbers[1]))
    quantity = steps[-1][3] if steps else numbers[0]
    parts: list[tuple[str, tuple[int, ...]]] = [(start, numbers)]
    while len(steps) < level:
        event = rng.choice(_CHAIN[rng.choice(OPS)])
        drawn = _draw_event(event, quantity, level - len(steps), max_number, rng)
        if drawn is not None:
            parts.append((event.id, drawn[0]))
            steps.extend(drawn[1])
            quantity = steps[-1][3]
    return Core(tuple(parts), tuple(steps))


def _draw_one_step(situation: Situation, max_number: int, rng: random.Random) -> Core:
    if situation.op == "div":
        a, b = rng.choice(_divisions(max_number))
    else:
        a = rng.randint(2, max_number)
        b = rng.randint(2, a if situation.op == "sub" else max_number)
    return Core(((situation.id, (a, b)),), (_apply(a, situation.op, b),))


def _draw_event(
    event: Event, quantity: int, room: int, max_number: int, rng: random.Random
) -> tuple[tuple[int, ...], tuple[tuple[int, Op, int, int], ...]] | None:
    """Numbers and steps of `event` applied to `quantity`, or None where it does not fit.

    It fits when at most `room` steps are needed, the result is at least 1 and at most 10 * max_number,
    and a division is exact. Factors stay small so that the quantity does not run into its limit at once.
    """
    highest = 10 * max_number
    if event.inner:
        if room < 2:
            return None
        n, m = rng.randint(2, min(max_number, 10)), rng.randint(2, min(max_number, 10))
        steps = (_apply(n, "mul", m), _apply(quantity, event.op, n * m))
        numbers: tuple[int, ...] = (n, m)
    else:
        if event.fixed is not None:
            n = event.fixed
        elif event.op == "div":
            divisors = [d for d in range(2, min(max_number, 10) + 1) if quantity % d == 0]
            if not divisors:
                return None
            n = rng.choice(divisors)
        else:
            top = {"add": max_number, "sub": min(max_number, quantity - 1), "mul": 5}[event.op]
            if top < 2:
                return None
            n = rng.randint(2, top)
        steps = (_apply(quantity, event.op, n),)
        numbers = (n,)
        if event.op == "div" and quantity % n:
            return None
    return (numbers, steps) if 1 <= steps[-1][3] <= highest else None


def _solution(core: Core) -> str:
    """One true line of arithmetic a step, then the answer in the form of GSM8K."""
    lines = [f"{left} {_SIGN[op]} {right} = {result}" for left, op, right, result in core.steps]
    return "\n".join([*lines, f"#### {core.answer}"])


def _render(core: Core, rng: random.Random) -> str:
    """The question in words. Draws from `rng` only what the core leaves open."""
    people = rng.sample(PEOPLE, len(PEOPLE))
    objects = rng.sample(OBJECTS, len(OBJECTS))
    (first, numbers), *rest = core.parts
    if first in _SITUATION:
        (x, s, p), (y, _, _) = people[:2]
        one, many = objects[0]
        text = rng.choice(_SITUATION[first].texts)
        question = text.format(a=numbers[0], b=numbers[1], x=x, y=y, s=s, p=p, o=many, one=one)
        return _capitalised(question)
    return _render_chain(first, numbers, rest, people, objects, rng)


def _render_chain(
    first: str,
    numbers: tuple[int, ...],
    rest: Sequence[tuple[str, tuple[int, ...]]],
    people: list[tuple[str, str, str]],
    objects: list[tuple[str, str]],
    rng: random.Random,
) -> str:
    x, s, p = people.pop()
    one, many = objects.pop()
    sentences = [rng.choice(STARTS[first]).format(a=numbers[0], b=numbers[-1], x=x, o=many)]
    subject = s
    for name, values in rest:
        event = _EVENT[name]
        new, unit = people[-1], objects[-1]
        # A relation between two people is no event in time, so it takes no "then".
        link = "" if event.changes == "holder" else rng.choice(LINKS)
        words = rng.choice(event.texts).format(
            s=subject, x=x, p=p, o=many, one=one, n=values[0], m=values[-1],
            new=new[0], unit=unit[1], unit_one=unit[0],
        )
        sentences.append(_capitalised(link + words) + ".")
        subject = s
        if event.changes == "holder":
            x, s, p = people.pop()
            subject = x  # a pronoun right after two people were named would be ambiguous
        elif event.changes == "unit":
            one, many = objects.pop()
    sentences.append(rng.choice(ENDINGS).format(o=many, x=x))
    return " ".join(sentences)


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]
