"""Human solutions as equations."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_gen.problems import load_problems
from data_gen.procedural import generate
from data_gen.rewriting import equations
from rewards.arithmetic import exact_value


def test_prose_becomes_equations() -> None:
    solution = (
        "He sold 48/2 = <<48/2=24>>24 clips in May.\nThat makes 48+24 = <<48+24=72>>72, or $1,200 at .5 * 2,400 = "
        "$<<.5*2,400=1200>>1,200.\nSo (1+2)*-3 is <<(1+2)*-3=-9>>-9.\nx = <<7=7>>7, and <<48+24=72>>72.\n#### 72"
    )
    assert equations(solution) == "48 / 2 = 24\n48 + 24 = 72\n0.5 * 2400 = 1200\n(1 + 2) * -3 = -9\n#### 72"


@pytest.mark.parametrize(
    "solution",
    [
        "There are 3.\n#### 3",
        "It is <<2+2=5>>5.\n#### 5",
        "It is <<2+2=4>>4 more than 5.\n#### 9",
        "It is <<10%*50=5>>5.\n#### 5",
        "It is <<2+2>>4.\n#### 4",
        "So <<16=16>>16.\n#### 16",
        "It is <<2+2=4>>4.",
        "",
        "####",
    ],
)
def test_what_cannot_be_written_so_is_none(solution: str) -> None:
    assert equations(solution) is None


def test_generated_problems_have_this_form_already() -> None:
    for problem in generate(50, "train", 3):
        assert equations(problem.solution or "") == problem.solution


@given(st.lists(st.tuples(st.integers(0, 9999), st.sampled_from("+-*"), st.integers(0, 9999)), min_size=1, max_size=6))
def test_every_line_holds_and_is_written_again_as_it_is(steps: list[tuple[int, str, int]]) -> None:
    results = [str(exact_value(f"{a}{sign}{b}")) for a, sign, b in steps]
    marks = [f"so <<{a:,}{sign}{b}={r}>>{r}" for (a, sign, b), r in zip(steps, results, strict=True)]
    found = equations("\n".join([*marks, f"#### {results[-1]}"]))
    assert found is not None and equations(found) == found
    *lines, end = found.split("\n")
    assert end == f"#### {results[-1]}" and len(lines) == len(set(lines))
    for line in lines:
        left, _, right = line.partition(" = ")
        assert exact_value(left) == exact_value(right)


@pytest.mark.skipif(not os.environ.get("RATCHET_DATA"), reason="needs GSM8K")
def test_most_human_solutions_can_be_written_so() -> None:
    problems = random.Random(0).sample(load_problems("gsm8k", "train"), 400)
    found = [equations(p.solution or "") for p in problems]
    assert sum(f is not None for f in found) > 0.88 * len(found)
    lengths = [(len(f), len(p.solution or "")) for f, p in zip(found, problems, strict=True) if f is not None]
    assert sum(a for a, _ in lengths) < 0.35 * sum(b for _, b in lengths)
