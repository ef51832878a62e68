from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import InputError
from configs.rows import Problem
from data_gen.decontaminate import decontaminate, words_of
from data_gen.procedural import generate
from data_gen.validation import held_out


def problem(i: int, question: str) -> Problem:
    return Problem(
        id=f"p{i}", parents=[], stage="problems", source="jsonl", split="train", question=question, answer="1"
    )


def problems(count: int) -> list[Problem]:
    return [problem(i, f"How many eggs do {i} hens lay in {i + 2} days?") for i in range(count)]


def test_the_held_out_problems_do_not_depend_on_the_order_but_on_the_seed():
    all_ = problems(200)
    held = held_out(all_, 40, 0)
    shuffled = list(all_)
    random.Random(1).shuffle(shuffled)
    assert {p.id for p in held_out(shuffled, 40, 0)} == {p.id for p in held}
    assert [p.id for p in held] == [p.id for p in all_ if p in held], "in the order of the problems"
    other = {p.id for p in held_out(all_, 40, 1)}
    assert len(other) == 40
    assert len(other & {p.id for p in held}) < 20, "about 8 by chance"


def test_a_problem_once_held_out_stays_so_when_more_are_held_out():
    all_ = problems(200)
    few, many = ({p.id for p in held_out(all_, n, 0)} for n in (20, 60))
    assert few < many


@given(st.lists(st.integers(0, 12), min_size=2, max_size=40), st.integers(0, 10))
def test_equal_questions_are_held_out_together(numbers: list[int], seed: int):
    """Also when only the wording's case and punctuation differ."""
    styles = ("What is {} plus one?", "what is {}, plus one")
    all_ = [problem(i, styles[i % 2].format(n)) for i, n in enumerate(numbers)]
    held = held_out(all_, len(all_) // 2, seed)
    assert len(held) <= len(all_) // 2
    inside = {words_of(p.question) for p in held}
    outside = {words_of(p.question) for p in all_ if p not in held}
    assert not inside & outside
    assert not {p.id for p in decontaminate(all_, held)[0]} & {p.id for p in held}


def test_generated_problems_are_told_apart_by_their_mathematics():
    all_ = generate(400, "train", 3, levels=[1], max_number=10)
    held = held_out(all_, 100, 0)
    assert len(held) == 100
    kept, _ = decontaminate(all_, held)
    assert len(kept) == 300
    assert not {p.core for p in kept} & {p.core for p in held}


def test_more_than_half_is_refused():
    assert len(held_out(problems(10), 5, 0)) == 5
    with pytest.raises(InputError, match=r"data\.validation=6 is more than half of the 10 training problems"):
        held_out(problems(10), 6, 0)
