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
from data_gen.inverses import inverses
from data_gen.problems import gsm8k_answer, load_problems, strip_calculator_marks
from data_gen.rewriting import equations
from data_gen.variants import chain_of, holds
from rewards.arithmetic import exact_value


def problem(question: str, solution: str, **fields: str) -> Problem:
    values = {"id": "own/7", "answer": gsm8k_answer(solution) or "", **fields}
    return Problem(parents=[], stage="problems", source="jsonl", split="train", question=question, solution=solution, **values)


def chained(question: str, *steps: str) -> Problem:
    """A problem whose solution has these calculations, each "left=right"; the last gives the answer."""
    lines = [f"It is {s.partition('=')[0]} = <<{s}>>{s.partition('=')[2]}." for s in steps]
    return problem(question, "\n".join([*lines, f"#### {steps[-1].partition('=')[2]}"]))


def solved(question: str, *steps: str) -> dict[str, list[str]]:
    """Solutions of all inverse problems, lines without marks, by their answers."""
    found = inverses(chained(question, *steps), 99)
    assert all(holds(p) and equations(p.solution or "") for p in found)
    return {p.answer: strip_calculator_marks(p.solution or "").split("\n")[:-1] for p in found}


def test_a_problem():
    question = "Ann has 48 pens and gives Bob 13 of them. He had 20. How many pens has Bob now, if he then sells half? "
    original = problem(
        question,
        "Bob has 20+13=<<20+13=33>>33 pens.\nWith half sold he has 33/2=<<33/2=16.5>>16.5.\n#### 16.50",
        level="1", subject="sums",
    )  # fmt: skip
    found = {p.answer: p for p in inverses(original, 9)}
    assert set(found) == {"13", "20"}, "48 is of no use"
    inverse = found["13"]
    assert inverse.question == (
        "Ann has 48 pens and gives Bob x of them. He had 20. How many pens has Bob now, if he then sells half? "
        "If the answer to this question is 16.5, what is the value of x?"
    )
    assert inverse.solution == "16.5 * 2 = <<16.5*2=33>>33\n33 - 20 = <<33-20=13>>13\n#### 13"
    assert equations(inverse.solution) == "16.5 * 2 = 33\n33 - 20 = 13\n#### 13"
    assert {p.id for p in found.values()} == {"own/7/inverse/0", "own/7/inverse/1"}
    assert inverse.parents == ["own/7"] and inverse.stage == "inverses"
    assert (inverse.source, inverse.split, inverse.level, inverse.subject) == ("jsonl", "train", "1", "sums")


def test_they_are_the_same_in_every_run_and_fewer_are_the_first_of_more():
    original = chained("He has 13 pens, 17 caps, 19 hats, then 23 bags.", "13+17=30", "30+19=49", "49+23=72")
    found = inverses(original, 4)
    assert found == inverses(original, 4) and sorted(p.answer for p in found) == ["13", "17", "19", "23"]
    for count in range(4):
        assert inverses(original, count) == found[:count]
    with pytest.raises(ConfigError, match="count must be 0 or more"):
        inverses(original, -1)


@pytest.mark.parametrize(
    ("numbers", "steps", "expected"),
    [
        ("13 8", ["13+8=21"], {"13": ["21 - 8 = 13"], "8": ["21 - 13 = 8"]}),
        ("13 8", ["13-8=5"], {"13": ["5 + 8 = 13"], "8": ["13 - 5 = 8"]}),
        ("13 8", ["13*8=104"], {"13": ["104 / 8 = 13"], "8": ["104 / 13 = 8"]}),
        ("26 8", ["26/8=3.25"], {"26": ["3.25 * 8 = 26"], "8": ["26 / 3.25 = 8"]}),
        ("13 8", ["13/8=1.625"], {}),  # three decimals are no answer to tell
        ("13 0.5", ["13/0.5=26"], {"13": ["26 * 0.5 = 13"]}),
        ("13 8 26", ["(13+8)*26=546"], {"13": ["546 / 26 = 21", "21 - 8 = 13"], "8": ["546 / 26 = 21", "21 - 13 = 8"],
                                        "26": ["546 / (13 + 8) = 26"]}),
        ("26 13 8", ["26-(13-8)=21"], {"26": ["21 + (13 - 8) = 26"], "13": ["26 - 21 = 5", "5 + 8 = 13"],
                                       "8": ["26 - 21 = 5", "13 - 5 = 8"]}),
        ("8 26 13", ["-8+26-13=5"], {"8": ["26 - 13 - 5 = 8"], "26": ["5 + 8 + 13 = 26"], "13": ["-8 + 26 - 5 = 13"]}),
        ("13 8", ["13*8*(1/4)=26"], {"13": ["26 * 4 / 8 = 13"], "8": ["26 * 4 / 13 = 8"]}),
        ("208 13 8", ["208/(13*8)=2"], {"13": ["208 / 2 / 8 = 13"], "8": ["208 / 2 / 13 = 8"], "208": ["2 * 13 * 8 = 208"]}),
        ("8 20% 26", ["8*20/100=1.6", "26-1.6=24.4"], {"26": ["8 * 20 / 100 = 1.6", "24.4 + 1.6 = 26"],
                                                       "8": ["26 - 24.4 = 1.6", "1.6 * 100 / 20 = 8"]}),
        ("13 8 8.5", ["2*13=26", "8*3=24", "26+24=50", "50-8.5=41.5"],
         {"13": ["8 * 3 = 24", "41.5 + 8.5 = 50", "50 - 24 = 26", "26 / 2 = 13"],
          "8": ["2 * 13 = 26", "41.5 + 8.5 = 50", "50 - 26 = 24", "24 / 3 = 8"]}),
    ],
)  # fmt: skip
def test_calculations_are_solved_for_what_came_into_them(numbers: str, steps: list[str], expected: dict[str, list[str]]):
    given_ = ", ".join(f"{n} pens" if "%" not in n else f"{n} of them" for n in numbers.split())
    assert solved(f"Of {given_}, a quarter are twice as good, three times.", *steps) == expected


def test_what_the_path_does_not_need_is_left_out():
    found = solved("Of 13 pens, 17 caps, 19 hats, 23 bags.", "13+17=30", "17+19=36", "30-23=7", "7*36=252")
    assert found == {
        "13": ["17 + 19 = 36", "252 / 36 = 7", "7 + 23 = 30", "30 - 17 = 13"],
        "19": ["13 + 17 = 30", "30 - 23 = 7", "252 / 7 = 36", "36 - 17 = 19"],
        "23": ["13 + 17 = 30", "17 + 19 = 36", "252 / 36 = 7", "30 - 7 = 23"],
    }, "17 is used twice"
    found = solved("Of 13 pens, 17 caps, 19 hats, 23 bags, 11 cups.", "13+17=30", "19+11=30", "23+30=53")
    assert found == {}, "which 30 it is remains open"
    steps = ("13+17=30", "19*23=437", "30*2=60")
    assert solved("Of 13 pens, 17 caps, 19 hats, 23 bags, doubled.", *steps)["13"] == ["60 / 2 = 30", "30 - 17 = 13"]


@pytest.mark.parametrize(
    ("question", "steps"),
    [
        ("He has 13 pens, twice.", ["13+13=26"]),  # used twice in one calculation
        ("He has 13 pens, then doubles them.", ["13*2=26", "26+13=39"]),  # ... in two
        ("He has 13 pens, then doubles them and so on.", ["13*2=26", "26*2=52", "52+26=78"]),  # a result is used twice
        ("He sold a 13 dollar cap, twice.", ["13*2=26"]),  # "a x"
        ("He has 13 pens and 26 caps, twice each.", ["13*2=26", "26*2=52"]),  # a result that is told
        ("He has 13 pens and some x, twice.", ["13*2=26"]),
        ("He has 13 pens, she 2x as many.", ["13*2=26"]),
        ("He has 5 pens for each day of school.", ["5*5=25"]),
        ("He has 5 pens. On school days he has twice as many.", ["5*2=10"]),  # five days of school
        ("Of 13 pens three eighths of eight are red.", ["13/8=1.625", "1.625+3=4.625", "4.625*8=37"]),  # three decimals
        ("He has 13 pens, none of which counts.", ["13*0=0"]),  # any number would do
        ("He has thirteen pens.", ["13*2=26"]),
        ("He has 13 pens, squared.", ["13**2=169"]),
        ("Of 26 pens, eight, six and five are red.", ["5+(8-26)/6=2"]),  # 2 - 5 on the way back
        ("Ann has 26 pens and Bob nine. What is the difference?", ["26-9=17"]),  # or Bob has more
        ("There are 26 guests. How many boxes of two are needed?", ["26/2=13"]),  # 25 need as many
    ],
)
def test_doubtful_numbers_are_not_asked_for(question: str, steps: list[str]):
    assert inverses(chained(question, *steps), 9) == []


def test_solutions_without_marks_or_with_false_ones_have_none():
    for solution in ("13*2=26 in all.\n#### 26", "<<13*2=27>>27\n#### 27", "<<13*2=26>>26\n#### 27", "", "26"):
        assert inverses(problem("He has 13 pens, twice.", solution), 9) == []
    assert len(inverses(problem("He has 13 pens, twice.", "<<13*2=26>>26\n#### 26"), 9)) == 1


def test_numbers_keep_what_stands_beside_them():
    (inverse,) = inverses(chained("He has $12,500 and 13 pens, and gets an $8 cap, twice.", "12,500*2=25000"), 9)
    assert inverse.question == (
        "He has $x and 13 pens, and gets an $8 cap, twice. If the answer to this question is 25000, what is the value of x?"
    )
    assert inverse.answer == "12500" and inverse.solution == "25000 / 2 = <<25000/2=12500>>12500\n#### 12500"


FORMS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "{v}+{n}": lambda v, n: v + n, "{n}-{v}": lambda v, n: n - v, "{v}-{n}": lambda v, n: v - n, "{v}*{n}": lambda v, n: v * n,
    "{v}/{n}": lambda v, n: v / n, "{n}/{v}": lambda v, n: n / v, "({v}+{n})*2": lambda v, n: (v + n) * 2,
    "{n}*(2-{v}/4)": lambda v, n: n * (2 - v / 4), "3-2*({n}-{v})": lambda v, n: 3 - 2 * (n - v),
    "{n}/(2*{v})": lambda v, n: n / (2 * v), "{v}*{n}/100": lambda v, n: v * n / 100,
}  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(FORMS)), st.integers(2, 200)), min_size=1, max_size=4), st.integers(3, 500))
def test_the_answer_leads_through_the_chain_to_what_was_told(parts: list[tuple[str, int]], first: int):
    question = f"First {first}" + "".join(f", then {n}" for _, n in parts) + "; 2 of three quarters, 100."
    steps, value = [], Fraction(first)
    for form, n in parts:
        result = FORMS[form](value, Fraction(n))
        assume(result > 0 and (100 * result).denominator == 1)
        shown = [str(x) if x.denominator == 1 else f"{float(x):.2f}" for x in (value, result)]
        steps.append(f"{form.format(v=shown[0], n=n)}={shown[1]}")
        value = result
    original = chained(question, *steps)
    for inverse in inverses(original, 9):
        story, told = inverse.question.split(" If the answer to this question is ")
        assert Fraction(told.partition(", what")[0]) == value
        start, *numbers = re.findall(r"(?:First|then) (\w+)", story.replace("x", inverse.answer))
        now = Fraction(start)
        for (form, _), n in zip(parts, numbers, strict=True):
            now = FORMS[form](now, Fraction(n))
        assert now == value
        assert holds(inverse) and equations(inverse.solution or "") is not None
        results = [exact_value(m) for m in re.findall(r"=([\d.]+)>>", inverse.solution or "")]
        assert all(r is not None and r >= 0 and (100 * r).denominator == 1 for r in results)


@pytest.mark.skipif(not os.environ.get("RATCHET_DATA"), reason="needs GSM8K")
def test_four_tenths_of_gsm8k_have_inverses_and_they_hold():
    originals = load_problems("gsm8k", "train", limit=300, seed=3)
    found = [(p, q) for p in originals for q in inverses(p, 2)]
    assert len({p.id for p, _ in found}) > 0.4 * len(originals)
    for p, q in found:
        assert holds(q) and equations(q.solution or "") is not None and q.parents == [p.id]
        story = q.question.partition(" If the answer to this question is ")[0]
        forms = {f"{int(q.answer)}", f"{int(q.answer):,}"}
        assert any(re.sub(r"\bx\b", form, story) == p.question.rstrip() for form in forms)
        steps = chain_of(q.solution or "") or []
        assert steps and str(steps[-1].result) == q.answer
        told = exact_value(p.answer)
        assert any(told in step.literals for step in steps), "the answer is used"
