from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError, InputError
from configs.evaluation_section import SourceSection
from configs.rows import Problem
from data_gen.eval_prompts import SHOTS, choose_shots, eval_prompt, given_shots, shots_source, shown
from data_gen.problems import load_problems
from data_gen.procedural import generate
from data_gen.prompts import PromptEncoder


def problem(number: int, **fields: Any) -> Problem:
    question, solution = f"What is {number} plus {number} and some?", f"It is {2 * number}.\n#### {2 * number}"
    given = {"question": question, "solution": solution, **fields}
    return Problem(id=f"p{number}", parents=[], stage="problems", source="gsm8k", split="train", answer="1", **given)


POOL = [problem(i, subject="abc"[i % 3]) for i in range(30)]


def test_prompts_by_name_golden(tiny_model: Path):
    def text(name: Any, source: str, *shots: tuple[str, str]) -> str:
        return PromptEncoder(tiny_model, eval_prompt(name, source).section).text("1+1?", shots)

    assert text("chat", "gsm8k") == (
        "user: 1+1?\n\nWork it out step by step. Give the final number alone on the last line, after ####.<end>\nassistant: "
    )
    assert text("chat", "math500") == (
        "user: 1+1?\n\nShow the steps that lead to the answer, and write the final answer in \\boxed{}.<end>\nassistant: "
    )
    assert text("plain", "gsm8k") == "Problem: 1+1?\nSolution:\n"
    assert text("few_shot", "math", ("2+2?", "It is 4.")) == (
        "Problem: 2+2?\nSolution:\nIt is 4.\n\nProblem: 1+1?\nSolution:\n"
    )
    assert eval_prompt("few_shot", "math").stop == ["\nProblem:"]
    assert eval_prompt("chat", "math").stop == []


def test_worked_examples_come_from_the_training_split_of_the_same_set():
    assert shots_source(SourceSection(source="math500", split="test")).model_dump(include={"source", "split", "limit"}) == {
        "source": "math", "split": "train", "limit": None,
    }  # fmt: skip
    generated = shots_source(SourceSection(source="procedural", split="test", limit=5, levels=[2], max_number=9))
    assert (generated.split, generated.levels, generated.max_number) == ("train", [2], 9)
    with pytest.raises(ConfigError, match=r"evaluation\.shots_file"):
        shots_source(SourceSection(source="jsonl", path="x.jsonl"))


@pytest.mark.parametrize("people", [[2], [3], [2, 3], [5]])
def test_puzzles_are_shown_with_worked_solutions_of_others_as_large(people: list[int]):
    source = SourceSection(source="knights", split="test", limit=30, people=people, variant="leaf")
    pool = load_problems(**shots_source(source).settings())
    evaluation = load_problems(**source.settings())
    chosen = choose_shots(pool, evaluation, SHOTS["knights"])
    assert {int(p.level or 0) for p in chosen} <= set(people)
    assert not {p.core for p in chosen} & {p.core for p in evaluation}
    assert all("\n#### " in shown(p)[1] for p in chosen)
    asked = eval_prompt("chat", "knights").section.template
    assert "boxed" not in asked and "####" not in asked  # the question says how its answer is to be given


def test_the_choice_is_always_the_same_and_of_different_subjects():
    chosen = choose_shots(POOL, [], 3)
    assert chosen == choose_shots(POOL, [], 3)
    assert {p.subject for p in chosen} == {"a", "b", "c"}
    assert len({p.id for p in choose_shots(POOL, [], 8)}) == 8
    assert choose_shots(POOL, [], 8)[:3] == chosen
    assert [p.id for p in chosen] != [p.id for p in POOL[:3]]


def test_nothing_of_the_evaluation_set_is_shown():
    assert {p.id for p in choose_shots(POOL, POOL[4:], 4)} == {"p0", "p1", "p2", "p3"}
    with pytest.raises(InputError, match="2 worked examples wanted, the training split has 1"):
        choose_shots(POOL, POOL[1:], 2)


def test_figures_long_and_missing_solutions_are_left_out():
    bad = [problem(1, solution=None), problem(2, question="See [asy]draw();[/asy]?"), problem(3, solution="so " * 130)]
    assert [p.id for p in choose_shots([*bad, problem(4)], [], 1)] == ["p4"]
    with pytest.raises(InputError, match="has 0 that fit"):
        choose_shots(bad, [], 1)


def test_generated_problems_have_examples_too():
    train, test = generate(64, "train", 0), generate(20, "test", 0)
    assert len(choose_shots(train, test, 4)) == 4


def test_a_file_of_ones_own_is_shown_in_its_order():
    assert given_shots(POOL, [], None) == POOL
    assert given_shots(POOL, [], 2) == POOL[:2]
    with pytest.raises(InputError, match=r"31 worked examples wanted, .* has 30"):
        given_shots(POOL, [], 31)
    with pytest.raises(InputError, match="p7 has no solution"):
        given_shots([problem(7, solution=None)], [], None)
    with pytest.raises(InputError, match="p3 is in the evaluation set, as p3"):
        given_shots(POOL[:5], [POOL[3]], None)


def test_calculator_marks_are_not_shown():
    assert shown(problem(1, solution="2 * 3 = <<2*3=6>>6\n#### 6"))[1] == "2 * 3 = 6\n#### 6"
