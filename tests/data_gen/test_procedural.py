from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError, InputError
from configs.rows import Problem
from data_gen import procedural
from data_gen.procedural import generate, split_of, stream

seeds = st.integers(0, 2**63 - 1)
level_lists = st.lists(st.integers(1, procedural.MAX_LEVEL), min_size=1, max_size=6)
numbers = st.integers(procedural.MIN_NUMBER, 200)
ALL_LEVELS = (1, 2, 3, 4, 5, 6)


def check_solution(problem: Problem) -> None:
    """Every line is true arithmetic on integers, one line a step; the last line repeats the answer."""
    assert problem.solution is not None
    *lines, last = problem.solution.split("\n")
    results = []
    for line in lines:
        found = re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", line)
        assert found, line
        left, right, result = (Fraction(found[i]) for i in (1, 3, 4))
        value = {"+": left + right, "-": left - right, "*": left * right}.get(found[2])
        assert result == (left / right if value is None else value), line
        results.append(found[4])
    assert len(lines) == int(problem.level or 0)
    assert results[-1] == problem.answer
    assert last == f"#### {problem.answer}"


@settings(max_examples=60, deadline=None)
@given(seed=seeds, levels=level_lists, max_number=numbers, split=st.sampled_from(["train", "test"]))
def test_solutions_are_true_and_end_in_the_answer(seed, levels, max_number, split):
    for index, problem in enumerate(generate(12, split, seed, levels, max_number)):
        check_solution(problem)
        assert int(problem.answer) >= 0
        assert problem.level == str(levels[index % len(levels)])


@settings(max_examples=60, deadline=None)
@given(seed=seeds, levels=level_lists, max_number=numbers)
def test_question_states_only_numbers_in_range_and_leaves_no_blank(seed, levels, max_number):
    for problem in generate(12, "train", seed, levels, max_number):
        named = [int(n) for n in re.findall(r"\d+", problem.question)]
        assert all(2 <= n <= max_number for n in named), problem.question
        assert not re.search(r"[{}]|  |\bNone\b", problem.question)
        assert problem.question.endswith("?")
        assert all(s[:1].isupper() or s[:1].isdigit() for s in re.split(r"(?<=[.?]) ", problem.question))


@settings(max_examples=60, deadline=None)
@given(seed=seeds, levels=level_lists, max_number=numbers)
def test_numbers_of_the_core_are_those_of_the_question(seed, levels, max_number):
    for problem in generate(12, "train", seed, levels, max_number):
        assert problem.core is not None
        told_in_words = re.sub(r"(half|double):2", "", problem.core)
        in_core = sorted(re.findall(r"\d+", told_in_words), key=int)
        assert in_core == sorted(re.findall(r"\d+", problem.question), key=int)


@settings(max_examples=40, deadline=None)
@given(seed_a=seeds, seed_b=seeds, levels=level_lists, max_a=numbers, max_b=numbers)
def test_train_and_test_share_no_core_whatever_the_seeds(seed_a, seed_b, levels, max_a, max_b):
    train = {p.core for p in generate(30, "train", seed_a, levels, max_a)}
    test = {p.core for p in generate(15, "test", seed_b, levels, max_b)}
    assert not train & test
    assert all(split_of(core or "") == "train" for core in train)
    assert all(split_of(core or "") == "test" for core in test)


def test_splits_are_disjoint_even_when_a_small_space_is_used_up():
    def everything(split: procedural.Split) -> list[Problem]:
        found: list[Problem] = []
        with pytest.raises(InputError):
            for problem in stream(split, 3, (1,), procedural.MIN_NUMBER):
                found.append(problem)
        return found

    train, test = everything("train"), everything("test")
    assert len(train) > 300 and len(test) > 50
    assert not {p.core for p in train} & {p.core for p in test}
    assert not {p.question for p in train} & {p.question for p in test}


def test_symmetric_situations_have_one_core_for_both_orders():
    first = procedural.Core((("kinds", (3, 9)),), ((3, "add", 9, 12),))
    second = procedural.Core((("kinds", (9, 3)),), ((9, "add", 3, 12),))
    assert first.text() == second.text() == "kinds:3,9"
    ordered = procedural.Core((("eaten", (9, 3)),), ((9, "sub", 3, 6),))
    assert ordered.text() == "eaten:9,3"


@settings(max_examples=30, deadline=None)
@given(seed=seeds, levels=level_lists, short=st.integers(0, 20), more=st.integers(0, 20))
def test_a_shorter_call_is_a_prefix_of_a_longer_one(seed, levels, short, more):
    assert generate(short, "test", seed, levels) == generate(short + more, "test", seed, levels)[:short]


def test_same_arguments_same_problems_and_other_seeds_other_problems():
    assert generate(50, "train", 7, ALL_LEVELS) == generate(50, "train", 7, ALL_LEVELS)
    first, second = ({p.question for p in generate(200, "train", s, ALL_LEVELS)} for s in (0, 1))
    assert len(first & second) < 10


def test_the_problems_never_change_between_versions():
    """Stored runs refer to these ids: a change of templates or draws must be deliberate."""
    problem = generate(3, "test", 0, (1, 2, 3))[2]
    assert problem.id == "procedural/test/0/l1.2.3-n20/2"
    assert (problem.core, problem.answer) == ("start_boxes:5,4|sell:12|trade_down:2", "4")


def test_rows_are_complete_and_unique():
    problems = generate(3000, "train", 0, (1, 2, 3))
    assert len({p.id for p in problems}) == len({p.core for p in problems}) == 3000
    assert len({p.question for p in problems}) == 3000
    for problem in problems[:50]:
        assert (problem.source, problem.split, problem.stage) == ("procedural", "train", "problems")
        assert problem.parents == []


def test_ids_tell_streams_with_other_arguments_apart():
    ids = [
        p.id
        for split in ("train", "test")
        for levels in ((1,), (1, 2), (2,))
        for max_number in (20, 30)
        for seed in (0, 1)
        for p in generate(3, split, seed, levels, max_number)
    ]
    assert len(set(ids)) == len(ids)


def test_all_operations_and_many_situations_occur():
    problems = generate(1000, "train", 0)
    assert {p.subject for p in problems} == {"add", "sub", "mul", "div"}
    situations = {re.sub(r"[\d,:]|^start:\d+\|", "", p.core or "") for p in problems}
    assert len(situations) >= 35
    deep = generate(300, "train", 0, (4,))
    used = {name for p in deep for name in re.findall(r"[a-z_]+", p.core or "")}
    assert used == {e.id for e in procedural.EVENTS} | set(procedural.STARTS)


def test_subject_names_the_operations_of_the_solution():
    for problem in generate(200, "train", 5, ALL_LEVELS):
        signs = set(re.findall(r" ([-+*/]) ", problem.solution or ""))
        names = {"+": "add", "-": "sub", "*": "mul", "/": "div"}
        assert set((problem.subject or "").split(",")) == {names[s] for s in signs}


def test_exhausted_level_says_what_to_do():
    with pytest.raises(InputError, match=r"level 1 with max_number 5 .* after \d+ found"):
        generate(10_000, "test", 0, (1,), 5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"count": -1, "split": "train"}, "count must be 0 or more"),
        ({"count": 1, "split": "dev"}, "unknown split 'dev'"),
        ({"count": 1, "split": "train", "levels": ()}, "levels must be from 1 to 6"),
        ({"count": 1, "split": "train", "levels": (7,)}, r"levels must be from 1 to 6, not \[7\]"),
        ({"count": 1, "split": "train", "max_number": 4}, "max_number must be at least 5"),
    ],
)
def test_wrong_arguments_are_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        generate(seed=0, **arguments)
