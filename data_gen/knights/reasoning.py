"""The way to the solution of a puzzle by cases, as a list of steps that each look at one claim.

What a claim settles as things stand is written down first. When no claim settles anything more, the first person whose
role is open is supposed to be a knight; when somebody then says what they cannot say, the person is a knave.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data_gen.knights.logic import Claims, everything, literal, truth

Kind = Literal["suppose", "told", "judged", "impossible", "reject", "fits"]
Role = tuple[int, bool]  # a person, and whether a knight


@dataclass(frozen=True)
class Step:
    """One step; `roles` are what it settles, from the claim of `speaker` and the roles known before.

    suppose      let somebody be a knight
    told         the speaker is a knight, so the claim is true, or a knave, so it is false: settles others
    judged       the claim is true, or false, whatever is still open: settles the speaker
    impossible   the claim is false of a knight, or true of a knave
    reject       the last supposition is wrong: settles the person supposed
    fits         everybody can say what they say, under suppositions that stand: the last step, if there are such
    """

    kind: Kind
    roles: tuple[Role, ...] = ()
    speaker: int = -1
    claim_true: bool = True  # of a claim


def reason(claims: Claims) -> list[Step]:
    """Steps after which every role is known, for claims that have a solution. Raises ValueError for a paradox.

    Where several assignments are possible it stops at one of them.
    """
    steps: list[Step] = []
    known: dict[int, bool] = {}
    suppositions: list[tuple[int, dict[int, bool]]] = []  # the person, and what was known before
    while True:
        step = _next(claims, known)
        if step is None:
            undecided = next((i for i in range(len(claims)) if i not in known), None)
            if undecided is None:
                return [*steps, Step("fits")] if suppositions else steps
            suppositions.append((undecided, dict(known)))
            step = Step("suppose", ((undecided, True),))
        steps.append(step)
        if step.kind == "impossible":
            if not suppositions:
                raise ValueError("the claims contradict each other: the puzzle has no solution")
            person, known = suppositions.pop()
            step = Step("reject", ((person, False),))
            steps.append(step)
        known.update(step.roles)


def _next(claims: Claims, known: dict[int, bool]) -> Step | None:
    """What the claims say, taken one by one: the first impossible one, else the first that settles somebody, else None."""
    people = len(claims)
    state = everything(people)
    for person, knight in known.items():
        state &= literal(person, knight, people)
    found: Step | None = None
    for speaker, statement in enumerate(claims):
        true = truth(statement, people) & state
        judged = True if true == state else False if not true else None
        if speaker not in known:
            if judged is not None and found is None:
                found = Step("judged", ((speaker, judged),), speaker, judged)
        elif judged is None:
            left = true if known[speaker] else state & ~true
            settled = _settled(left, known, people)
            if settled and found is None:
                found = Step("told", settled, speaker, known[speaker])
        elif judged != known[speaker]:
            return Step("impossible", (), speaker, judged)
    return found


def _settled(left: int, known: dict[int, bool], people: int) -> tuple[Role, ...]:
    """The open roles that are the same in all assignments that are left."""
    return tuple(
        (i, knight) for i in range(people) if i not in known
        for knight in (True, False) if not left & literal(i, not knight, people)
    )  # fmt: skip
