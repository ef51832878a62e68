"""What a verification says: a typed outcome, never a bare 0 that could also mean a crashed checker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["strict", "lenient"]
Outcome = Literal["correct", "wrong", "no_answer", "bad_gold", "timeout", "error"]

OUTCOMES: tuple[Outcome, ...] = ("correct", "wrong", "no_answer", "bad_gold", "timeout", "error")
UNSCORED: frozenset[Outcome] = frozenset({"bad_gold", "timeout", "error"})
"""Outcomes that say nothing about the prediction: mask the sample instead of scoring it 0."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one prediction against one gold answer.

    `extracted` is the answer text found in the prediction, None where nothing was found. `rule` names
    the rule that decided (docs/verifier.md lists them). `seconds` is wall-clock time, the only field
    that may differ between two calls with the same arguments.
    """

    outcome: Outcome
    extracted: str | None
    rule: str
    seconds: float

    @property
    def correct(self) -> bool:
        return self.outcome == "correct"

    @property
    def scored(self) -> bool:
        """False where the checker, not the prediction, is at fault."""
        return self.outcome not in UNSCORED
