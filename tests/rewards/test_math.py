
"""The gold answers of MATH: each equals itself and its rewritings, and no near miss or other gold."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path

import pytest

from benchmarks.perturbations import near_misses, reformatted
from rewards import verify

DATA = os.environ.get("RATCHET_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="RATCHET_DATA names no folder with math_train.jsonl.gz")
SAMPLES = [
    "72", "-3", "33,\\!800", "0.25", "\\frac{3}{4}", "-\\frac{11}{6}", "\\sqrt{2}", "3\\sqrt{13}", "12\\pi", "(3,-2)",
    "[0,3)", "(-\\infty,2)\\cup(3,\\infty)", "x^2+7x+10", "1, 2, 10", "y=-2x+1", "17\\%", "\\$5.50", "60^\\circ",
    "2 \\text{ feet}", "\\text{B}", "204_5", "1\\pm\\sqrt{19}", "\\begin{pmatrix} 4 \\\\ -3 \\end{pmatrix}", "5-12i",
    "2^{n-1}", "\\frac{x+5}{6}", "\\left( \\frac{1}{2}, -10 \\right)", "3:5", "\\text{Friday}", "-\\frac{\\pi}{6}",
]  # fmt: skip


def golds() -> list[tuple[str, str]]:
    """(id, answer) of MATH train and MATH-500."""
    assert DATA is not None
    found = []
    for name in ("math_train", "math500"):
        with gzip.open(Path(DATA) / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            found += [(record["id"], record["answer"]) for record in map(json.loads, lines)]
    return found


def outcome(prediction: str, gold: str) -> str:
    return verify(rf"\boxed{{{prediction}}}", gold).outcome


def check_rewritings(gold: str) -> None:
    for name, text in reformatted(gold):
        assert outcome(text, gold) == "correct", (name, gold, text)
    for name, text in near_misses(gold):
        assert outcome(text, gold) != "correct", (name, gold, text)


@pytest.mark.parametrize("gold", SAMPLES)
def test_rewritings_and_near_misses_of_samples(gold: str) -> None:
    check_rewritings(gold)


@needs_data
def test_rewritings_and_near_misses_of_math() -> None:
    distinct = sorted({answer for _, answer in golds() if answer})
    for gold in random.Random(0).sample(distinct, 600):
        check_rewritings(gold)


@needs_data
def test_every_gold_equals_itself() -> None:
    for identity, answer in golds():
        expected = "bad_gold" if identity in ("math/train/5341", "math/train/5343") else "correct"
        assert outcome(answer, answer) == expected, (identity, answer)


@needs_data
def test_another_gold_is_rarely_correct() -> None:
    records = [answer for _, answer in golds() if answer]
    generator = random.Random(1)
    pairs = [generator.sample(records, 2) for _ in range(5000)]
    accepted = [(a, b) for a, b in pairs if a != b and outcome(a, b) == "correct"]
    assert len(accepted) <= 5, accepted
