from __future__ import annotations

import os
import re
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.rows import Problem
from data_gen.problems import gsm8k_answer, load_problems
from data_gen.quantities import constants, in_words, quantities, variable, written
from data_gen.variants import chain_of, holds, template_of, variants
from rewards.arithmetic import exact_value

CLIPS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?",
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
    "Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.\n#### 72",
)


def problem(question: str, solution: str, **fields: str) -> Problem:
    values = {"id": "own/7", "answer": gsm8k_answer(solution) or "", **fields}
    return Problem(parents=[], stage="problems", source="jsonl", split="train", question=question, solution=solution, **values)


def made(question: str, *steps: str, count: int = 4) -> list[Problem]:
    """Variants of a question whose solution has these calculations, each "left=right"; the last gives the answer."""
    lines = [f"It is {s.partition('=')[0]} = <<{s}>>{s.partition('=')[2]}." for s in steps]
    return variants(problem(question, "\n".join([*lines, f"#### {steps[-1].partition('=')[2]}"])), count)


def told(text: str) -> list[Fraction]:
    return [q.value for q in quantities(text)]


def test_a_problem_of_gsm8k():
    original = problem(*CLIPS, level="1", subject="sums")
    found = variants(original, 3)
    assert [v.id for v in found] == ["own/7/variant/0", "own/7/variant/1", "own/7/variant/2"]
    for v in found:
        (n,) = told(v.question)
        assert 24 <= n <= 96 and n != 48 and n % 2 == 0
        assert v.question == CLIPS[0].replace("48", str(n))
        half, total = n / 2, n * 3 / 2
        assert v.solution == (
            f"Natalia sold {n}/2 = <<{n}/2={half}>>{half} clips in May.\n"
            f"Natalia sold {n}+{half} = <<{n}+{half}={total}>>{total} clips altogether in April and May.\n#### {total}"
        )
        assert v.answer == str(total) and v.parents == ["own/7"] and v.stage == "variants"
        assert (v.source, v.split, v.level, v.subject) == ("jsonl", "train", "1", "sums")
    assert len({v.question for v in found}) == 3


def test_variants_are_the_same_in_every_run_and_fewer_are_the_first_of_more():
    original = problem(*CLIPS)
    assert variants(original, 4) == variants(original, 4)
    assert variants(original, 2) == variants(original, 4)[:2]
    assert variants(original, 2, first=2) == variants(original, 4)[2:]
    assert variants(original, 0) == []
    with pytest.raises(ConfigError, match="count and first must be 0 or more"):
        variants(original, -1)


def test_numbers_keep_their_form():
    question = "A car costs $12,000 and a trailer $2,500.00. How much do they cost in all?"
    solution = "In all $12,000 + $2,500.00 = $<<12000+2500=14500>>14,500.00.\n#### 14,500"
    for v in variants(problem(question, solution), 4):
        total = int(v.answer)
        assert f"#### {total:,}" in str(v.solution) and f"={total}>>{total:,}.00." in str(v.solution)
        assert total % 100 == 0 and "$2,500.00" in v.question, "a number with decimals does not vary"


@pytest.mark.parametrize(
    ("question", "free"),
    [
        ("Ann has 8 pens and 15 caps.", [8, 15]),
        ("Ann has 8 pens, Bob has 8 caps.", []),
        ("Ann has 8 pens for eight caps.", []),
        ("It was 1998 when 2000 people paid $2,010.", [2010]),
        ("Of 40 people 25% or 3/4 went at 5:30 on May 9 for 8.5 hours, the 6th for 9-11 days.", [40]),
        ("A 45-minute ride and 2 1/2 rides; 3 to 5 rides; 14 and a half rides.", []),
        ("She is 9 years old, at 11 she will be in grade 6.", [9]),
        ("Twelve in a dozen are 12, 7 days, 24 hours, 60 minutes.", []),
        ("A spider has 8 legs and 6 eyes; she has 4 quarts in a gallon, and four $5 bills.", []),
        ("She works 5 days a week and sells 19.", [19]),
        ("She has $9.", [9]),
    ],
)
def test_which_numbers_of_a_question_may_vary(question: str, free: list[int]):
    assert [int(q.value) for q in variable(question)] == free


def test_numbers_in_words():
    assert in_words("Twenty-five of the seven hundred, one or ninety one; someone tends to often") == [25, 7, 100, 1, 91]
    text = "A third of 30 pens at 20% off, 3/8 of them twice a week, 50 cents each"
    explained = constants(text, "", frozenset({Fraction(30)}))
    expected = {Fraction(x) for x in ("1/3", "2", "1/5", "4/5", "20", "3/8", "5/8", "7", "1/2")}
    assert expected <= explained and Fraction(30) not in explained and Fraction(13) not in explained


@pytest.mark.parametrize(
    ("question", "steps"),
    [
        ("He has 20 and gives 8, so 12 are left, of 5 kinds.", ["20-8=12"]),  # the result is told
        ("He has 18 and 9 and 9 more.", ["18-9=9", "9+9=18"]),  # results that are numbers of the question
        ("Six of 36 pens: how many sixes?", ["36/6=6", "6+6=12"]),  # 6 is both
        ("He has 40 pens and 11 caps.", ["51-11=40"]),  # a number from nowhere
        ("He has 40 pens and 11 caps.", ["40+11=52"]),  # does not hold
        ("He has 40 pens and 11 caps.", ["40+11=51", "51/2=25.4"]),  # rounded, badly
        ("He has 40 pens in 3 boxes.", ["40/3=13.33"]),  # rounded
        ("He has 40 pens and 11 caps.", ["x+11=51"]),  # no arithmetic
        ("He has forty pens and eleven caps.", ["40+11=51"]),  # nothing in digits
    ],
)
def test_doubtful_problems_have_none(question: str, steps: list[str]):
    assert made(question, *steps) == []


@pytest.mark.parametrize(
    "solution",
    [
        "40+11=51 in all.\n#### 51",  # no marks
        "40+11=<<40+11=51>>51, that is 17 each.\n#### 17",  # the answer is not the last result
        "He has 40 of 63 and 11: <<40+11=51>>51.\n#### 51",  # 63 comes from nowhere
        "He has forty and 11: <<40+11=51>>51.\n#### 51",  # only its second number could vary
        "40+11=<<__import__('os')=51>>51.\n#### 51",
        "",
    ],
)
def test_doubtful_solutions_give_none_or_leave_the_doubtful_number(solution: str):
    found = variants(problem("He has 40 pens and 11 caps. How many?", solution), 4)
    assert all(v.question.startswith("He has 40 pens") for v in found) and bool(found) == ("forty" in solution)


def test_what_would_be_absurd_does_not_happen():
    for v in made("Ann slept 9 hours and worked 11 hours. How many hours of the day are left?", "9+11=20", "24-20=4"):
        assert sum(told(v.question)) < 24
    for v in made("Of 21 pens Ann gave 14 away. Bob took half of the rest, with 90 caps.", "21-14=7"):
        first, gave, _ = told(v.question)
        assert first > gave
    for v in made("Of 80 tests he passed 60. What percent is it?", "60/80*100=75"):
        passed = Fraction(v.answer)
        assert passed <= 100 and passed.denominator == 1
    for v in made("He buys a 9 dollar cap and a 20 dollar hat.", "9+20=29"):
        assert not re.search(r"\ba (8|11|18)", f"{v.question} {v.solution}")
    for v in made("A box of 4 pens has 1 red pen.", "4-1=3"):
        assert v.answer not in ("0", "1", "2.5")


def test_calculations_written_out_without_a_mark_are_part_of_the_chain():
    solution = "He has 40+11 = 51 things.\nThat is 51*2 = <<51*2=102>>102.\n#### 102"
    found = variants(problem("He has 40 pens and 11 caps and gets as many again. How many?", solution), 4)
    assert found
    for v in found:
        assert int(v.answer) == 2 * sum(told(v.question))


def test_the_check_sees_what_does_not_hold():
    good = problem(*CLIPS)
    assert holds(good) and template_of(good) is not None and len(chain_of(CLIPS[1]) or ()) == 2
    for right, wrong in (("=24>>", "=23>>"), ("#### 72", "#### 73"), ("48/2 =", "48/3 =")):
        assert not holds(problem(CLIPS[0], CLIPS[1].replace(right, wrong)))


@given(st.fractions(0, 10**6, max_denominator=100), st.from_regex(r"\A([1-9]\d{0,2}|[1-9],\d{3})(\.\d{1,2})?\Z"))
def test_a_number_is_written_as_what_it_is_or_not_at_all(value: Fraction, old: str):
    (like,) = quantities(old)
    new = written(value, like)
    if new is None:
        assert (value * 100).denominator != 1 or like.value.denominator == 1
    else:
        assert told(new) == [value]
        assert "," in new if "," in old and value >= 1000 else "," not in new


OPERATIONS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
}  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("+-*/"), st.integers(2, 90)), min_size=1, max_size=4), st.integers(3, 500))
def test_every_variant_of_a_chain_is_the_chain_with_other_numbers(parts: list[tuple[str, int]], first: int):
    """Each step takes the result so far and the next number of the question."""
    question = f"Begin with {first} things" + "".join(f", then {n} things" for _, n in parts) + ". What is it?"
    steps, value = [], Fraction(first)
    for sign, n in parts:
        result = OPERATIONS[sign](value, Fraction(n))
        assume(result.denominator == 1 and result > 0)
        steps.append(f"{value}{sign}{n}={result}")
        value = result
    for v in made(question, *steps):
        start, *others = told(v.question)
        assert [start, *others] != told(question)
        marks = [m.partition("=") for m in re.findall(r"<<(.*?)>>", v.solution or "")]
        assert all(exact_value(left) == exact_value(right) for left, _, right in marks)
        now = start
        for (sign, _), n, (left, _, right) in zip(parts, others, marks, strict=True):
            assert left == f"{now}{sign}{n}", "the expression has the same form"
            now = OPERATIONS[sign](now, n)
            assert right == str(now)
        assert v.answer == str(now) != str(value)
        assert re.sub(r"\d+", "0", v.question) == re.sub(r"\d+", "0", question)


@pytest.mark.skipif(not os.environ.get("RATCHET_DATA"), reason="needs GSM8K")
def test_half_of_gsm8k_has_variants_and_they_hold():
    originals = load_problems("gsm8k", "train", limit=150, seed=3)
    found = [(p, v) for p in originals for v in variants(p, 2)]
    assert len({p.id for p, _ in found}) > 0.4 * len(originals)
    for p, v in found:
        assert holds(v) and v.answer != p.answer and v.question != p.question
        assert re.sub(r"[\d,.]+", "", v.question) == re.sub(r"[\d,.]+", "", p.question)
        assert re.sub(r"[\d,.]+", "", v.solution or "") == re.sub(r"[\d,.]+", "", p.solution or "")
