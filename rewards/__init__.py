"""Judging answers: extraction, equivalence and the killable verifier pool. See docs/verifier.md."""

from rewards.pool import VerifierPool
from rewards.verdict import OUTCOMES, UNSCORED, Mode, Outcome, Verdict
from rewards.verifier import extract, verify, verify_file, verify_many, warm

__all__ = [
    "OUTCOMES",
    "UNSCORED",
    "Mode",
    "Outcome",
    "Verdict",
    "VerifierPool",
    "extract",
    "verify",
    "verify_file",
    "verify_many",
    "warm",
]
