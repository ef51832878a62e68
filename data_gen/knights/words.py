"""A puzzle, its solution and its answer in English.

The surface (names, role words, order, turns of phrase) is drawn apart from the claims, so that a perturbed puzzle reads
like the original but for what was perturbed, and a reworded one has the same claims.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_gen.knights.logic import Claims, Compound, Leaf, Statement
from data_gen.knights.reasoning import Step


@dataclass(frozen=True)
class Roles:
    """Words for who tells the truth and who lies."""

    knight: str
    knights: str
    knave: str
    knaves: str

    def a(self, knight: bool) -> str:
        word = self.word(knight)
        return f"an {word}" if word[0] in "aeiou" else f"a {word}"

    def word(self, knight: bool) -> str:
        return self.knight if knight else self.knave


KNIGHTS = Roles("knight", "knights", "knave", "knaves")
OTHER_ROLES = (
    Roles("scholar", "scholars", "smuggler", "smugglers"),
    Roles("angel", "angels", "imp", "imps"),
    Roles("monk", "monks", "pirate", "pirates"),
    Roles("ranger", "rangers", "outlaw", "outlaws"),
)
NAMES: tuple[str, ...] = tuple(
    "Ann Bob Carl Dora Emil Fay Gus Hana Igor Joan Kurt Lia Max Nora Olaf Pia Quinn Rosa Sam Tess Udo Vera Will Xena Yann Zoe"
    .split()
)
OTHER_NAMES: tuple[str, ...] = tuple(
    "Aldric Brunhild Caspian Drusilla Eldon Fenella Gawain Hesper Isolde Jorund Kestrel Lysander Morwen Nerys Osric Petra "
    "Quillon Rowena Sorrel Theron".split()
)
_OPENINGS = (
    "On an island live {knights}, who always tell the truth, and {knaves}, who always lie.",
    "In this village everybody is {a_knight} or {a_knave}. {A_knight} never lies, and {a_knave} never tells the truth.",
    "The guests of an inn are {knights}, who only say what is true, and {knaves}, who only say what is false.",
)
_MEETINGS = ("You meet {names}.", "{names} talk to you.", "Here are {names}.")
_VERBS = ("says", "tells you", "claims", "remarks", "declares")
_REQUEST = "What is each of them? End with a line of the form: #### {form}"


@dataclass(frozen=True)
class Surface:
    """How a puzzle is told. `order` is the order of the statements; `verbs` belong to the speakers."""

    names: tuple[str, ...]
    roles: Roles
    order: tuple[int, ...]
    opening: str
    meeting: str
    verbs: tuple[str, ...]


def draw_surface(people: int, rng: random.Random) -> Surface:
    """Names of the common list, knights and knaves, everyone speaking in turn."""
    return Surface(
        names=tuple(rng.sample(NAMES, people)), roles=KNIGHTS, order=tuple(range(people)),
        opening=rng.choice(_OPENINGS), meeting=rng.choice(_MEETINGS), verbs=tuple(rng.choices(_VERBS, k=people)),
    )


def renamed(surface: Surface, rng: random.Random) -> Surface:
    """With names that no unperturbed puzzle has."""
    return replace(surface, names=tuple(rng.sample(OTHER_NAMES, len(surface.names))))


def reordered(surface: Surface, rng: random.Random) -> Surface:
    """With the statements in another order."""
    order = list(surface.order)
    while tuple(order) == surface.order:
        rng.shuffle(order)
    return replace(surface, order=tuple(order))


def recast(surface: Surface, rng: random.Random) -> Surface:
    """With other words for those who tell the truth and those who lie."""
    return replace(surface, roles=rng.choice(OTHER_ROLES))


def question(claims: Claims, surface: Surface) -> str:
    """The puzzle in words, with the form that the answer shall have."""
    names, roles = surface.names, surface.roles
    words = {
        "knight": roles.knight, "knights": roles.knights, "knave": roles.knave, "knaves": roles.knaves,
        "a_knight": roles.a(True), "A_knight": _capitalised(roles.a(True)), "a_knave": roles.a(False),
    }
    told = [f'{names[i]} {surface.verbs[i]}: "{_capitalised(said(claims[i], i, surface))}."' for i in surface.order]
    parts = [
        surface.opening.format(**words), surface.meeting.format(names=listed(names)), *told,
        _REQUEST.format(form=", ".join(f"{name}: ROLE" for name in names)),
    ]
    return " ".join(parts)


def said(statement: Statement, speaker: int, surface: Surface, inner: bool = False) -> str:
    """A statement as its speaker makes it; compounds within compounds stand in brackets."""
    names, roles = surface.names, surface.roles
    if isinstance(statement, Leaf):
        who = "I am" if statement.person == speaker else f"{names[statement.person]} is"
        return f"{who} {roles.a(statement.knight)}"
    first = statement.parts[0]
    if statement.op == "not" and isinstance(first, Leaf):
        who = "I am" if first.person == speaker else f"{names[first.person]} is"
        return f"{who} not {roles.a(first.knight)}"
    parts = [said(part, speaker, surface, inner=True) for part in statement.parts]
    text = _connected(statement, parts)
    return f"({text})" if inner else text


def _connected(statement: Compound, parts: Sequence[str]) -> str:
    match statement.op:
        case "not":
            return f"it is not so that {parts[0]}"
        case "and":
            return " and ".join(parts)
        case "or":
            return f"{' or '.join(parts)}, or {'both' if len(parts) == 2 else 'several of these'}"
        case "implies":
            return f"if {parts[0]}, then {parts[1]}"
        case "iff":
            return f"{parts[0]} if and only if {parts[1]}"


def answer(roles_of: Sequence[bool], surface: Surface) -> str:
    """The answer in the form that the verifier reads: "Ann: knight, Bob: knave"."""
    return ", ".join(f"{n}: {surface.roles.word(k)}" for n, k in zip(surface.names, roles_of, strict=True))


def worked(steps: Sequence[Step], roles_of: Sequence[bool], surface: Surface) -> str:
    """One sentence for each step, then the answer as a `####` line."""
    return "\n".join([*(_sentence(step, surface) for step in steps), f"#### {answer(roles_of, surface)}"])


def _sentence(step: Step, surface: Surface) -> str:
    roles = surface.roles
    speaker = surface.names[step.speaker]
    settled = listed([f"{surface.names[person]} is {roles.a(knight)}" for person, knight in step.roles])
    match step.kind:
        case "suppose":
            return f"Suppose {settled}."
        case "told":
            return f"{speaker} {'tells the truth' if step.claim_true else 'lies'}, so {settled}."
        case "judged":
            return f"What {speaker} says is {'true' if step.claim_true else 'false'}, so {settled}."
        case "reject":
            return f"So {settled}."
        case "fits":
            return "Then everything that was said fits."
        case "impossible":
            wrong = "true" if step.claim_true else "false"
            return f"But then {roles.a(not step.claim_true)}, {speaker}, says what is {wrong}."


def listed(items: Sequence[str]) -> str:
    """A, B and C."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]
