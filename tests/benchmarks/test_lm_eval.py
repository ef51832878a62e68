"""The reasons that the cross-check with lm-eval gives for disagreements, and its figures. The rest runs lm-eval itself."""

from __future__ import annotations

import pytest

from benchmarks.lm_eval import NOTHING, Judged, disagreements, reason, rows
from pipelines.statistics import wilson


def judged(theirs: str, right: bool, ours: str | None, correct: bool, mode: str = "strict") -> Judged:
    return Judged("p", "18", "so it is ...", mode, theirs, right, ours, correct)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (judged(NOTHING, False, "18", True), "lm-eval's pattern finds nothing"),  # \boxed{18}, or ####18
        (judged("18", True, None, False), "Ratchet finds no answer"),
        (judged("18.00", False, "18.00", True), "the same value: lm-eval compares characters"),
        (judged("1,8.", False, "18", True), "another part of the text"),
        (judged("18.", False, "18", True), "the same value"),
        (judged("17", False, "18", True), "another part of the text"),  # the first and the last of two #### lines
    ],
)
def test_a_disagreement_has_a_reason(case: Judged, expected: str):
    assert reason(case).startswith(expected)
    (found,) = disagreements("lm-eval", [case])
    assert found.reason == reason(case)
    assert found.ratchet == f"{case.ours or 'nothing'}: {'right' if case.our_verdict else 'wrong'}"


def test_what_both_judge_alike_is_no_disagreement():
    assert disagreements("lm-eval", [judged("18", True, "18", True), judged("7", False, None, False)]) == []


def test_the_rows_count_verdicts_and_agreement():
    answers = [judged("18", True, "18", True)] * 3 + [judged(NOTHING, False, "18", True)] + [judged("7", False, "7", False)] * 6
    strict, lenient = rows("lm-eval", answers + [judged("18", True, "18", True, "lenient")] * 2)
    assert (strict["ours"], strict["peer"], strict["n"]) == (0.4, 0.3, 10)
    assert strict["note"] == "same verdict on 9 of 10 answers"
    assert (strict["low"], strict["high"]) == wilson(4, 10)
    assert (strict["peer_low"], strict["peer_high"]) == wilson(3, 10)
    assert (lenient["ours"], lenient["peer"], lenient["ratio"]) == (1.0, 1.0, 1.0)
    nobody = rows("lm-eval", [judged("7", False, None, False), judged("7", False, None, False, "lenient")])
    assert nobody[0]["ratio"] is None
