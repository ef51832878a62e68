"""Groups for reward models: what is dropped, the balance of classes and difficulty, the split by problem."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from configs.rows import Group, Sample, Step
from data_gen.reward_data import (
    BINS,
    Judged,
    difficulty,
    is_held_out,
    outcome_groups,
    process_groups,
    without_near_duplicates,
)


def judged(problem: str, index: int, correct: bool, text: str | None = None, finish: str = "stop", model: str = "m") -> Judged:
    ids = [index + 1, len(problem), 1]
    sample = Sample(
        id=f"{problem}#{index}", parents=[], stage="sample", problem=problem, prompt_ids=[], token_ids=ids,
        text=f"solution number {index} of its own {correct}" if text is None else text, logprobs=[], logprob=0.0,
        finish_reason=finish, temperature=1.0, top_p=1.0, seed=0, model=model,
    )
    return Judged(sample, correct, ids)


def groups_of(rows: dict[str, list[Judged]], **changes: Any) -> tuple[list[Group], dict[str, int]]:
    options: dict[str, Any] = {
        "samples": 6, "similarity": 1.0, "truncated_negatives": True, "balance_difficulty": False,
        "validation_fraction": 0.0, "seed": 0, **changes,
    }
    return outcome_groups(rows, lambda problem: [9, 9, len(problem)], **options)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12), st.integers(2, 8),
    st.sampled_from([0.0, 0.3]), st.booleans(),
)
def test_groups_hold_both_classes_which_balance_over_all(
    counts: list[tuple[int, int]], samples: int, fraction: float, even: bool
) -> None:
    rows = {f"p{i}": [judged(f"p{i}", k, k < right) for k in range(right + wrong)] for i, (right, wrong) in enumerate(counts)}
    rows = {name: members for name, members in rows.items() if members}
    groups, told = groups_of(rows, samples=samples, validation_fraction=fraction, balance_difficulty=even)
    both = {f"p{i}" for i, (right, wrong) in enumerate(counts) if right and wrong}
    assert {g.problem for g in groups} <= both if even else {g.problem for g in groups} == both
    totals: Counter[tuple[str, float]] = Counter()
    for g in groups:
        assert 2 <= len(g.samples) <= samples and set(g.labels) == {0.0, 1.0}
        assert len(set(g.samples)) == len(g.samples)
        truth = {j.sample.id: float(j.correct) for j in rows[g.problem]}
        assert [truth[s] for s in g.samples] == g.labels
        assert g.split == ("validation" if is_held_out(g.problem, fraction, 0) else "train")
        totals.update((g.split, y) for y in g.labels)
    for split in ("train", "validation"):
        assert totals[split, 1.0] == totals[split, 0.0]
    assert told["right"] == told["wrong"] and told["groups"] == len(groups)


def test_ids_and_marks_are_those_of_the_samples() -> None:
    rows = {"p": [judged("p", 0, True), judged("p", 1, False), judged("p", 2, False)]}
    (group,), _ = groups_of(rows)
    assert group.prompt_ids == [9, 9, 1] and group.counts == [1, 1]
    for i, name in enumerate(group.samples):
        ids = next(j.token_ids for j in rows["p"] if j.sample.id == name)
        assert group.token_ids[3 * i : 3 * i + 3] == ids and group.marks[i] == 2
    assert group.solve_rate == 1 / 3 and group.models == ["m", "m"]


def test_what_was_cut_off_is_never_right_and_wrong_only_if_wanted() -> None:
    rows = {"p": [judged("p", 0, True, finish="length"), judged("p", 1, True), judged("p", 2, False, finish="length")]}
    (group,), told = groups_of(rows)
    assert sorted(group.samples) == ["p#1", "p#2"] and told["unusable"] == 1
    groups, told = groups_of(rows, truncated_negatives=False)
    assert not groups and told["all_right"] == 1


def test_near_duplicates_go_within_a_class() -> None:
    words = "we add five and seven and get twelve then we halve it to get six apples in all"
    near = words.replace("five", "Five")
    rows = [judged("p", 0, True, words), judged("p", 1, True, near), judged("p", 2, True, words + " so it is six"),
            judged("p", 3, False, words)]
    assert [j.sample.id for j in without_near_duplicates(rows, 1.0)] == ["p#0", "p#2", "p#3"]
    assert [j.sample.id for j in without_near_duplicates(rows, 0.75)] == ["p#0", "p#3"]


def test_difficulty_is_balanced_by_bins_of_the_solve_rate() -> None:
    assert [difficulty(x) for x in (0.01, 0.24, 0.25, 0.5, 0.99)] == [0, 0, 1, 2, BINS - 1]
    rows = {f"easy{i}": [judged(f"easy{i}", k, k > 0) for k in range(8)] for i in range(20)}
    rows |= {f"hard{i}": [judged(f"hard{i}", k, k == 0) for k in range(8)] for i in range(3)}
    rows |= {f"half{i}": [judged(f"half{i}", k, k < 4) for k in range(8)] for i in range(5)}
    groups, told = groups_of(rows, balance_difficulty=True)
    assert Counter(g.problem[:4] for g in groups) == {"easy": 5, "hard": 3, "half": 5}
    assert told["too_many_alike"] == 15


def test_the_split_of_a_problem_does_not_depend_on_the_others() -> None:
    names = [f"p{i}" for i in range(2000)]
    held = {n for n in names if is_held_out(n, 0.1, 7)}
    assert 140 < len(held) < 260
    assert held == {n for n in reversed(names) if is_held_out(n, 0.1, 7)} != {n for n in names if is_held_out(n, 0.1, 8)}
    assert held < {n for n in names if is_held_out(n, 0.2, 7)}


def test_step_values_become_marks_and_labels() -> None:
    def step(sample: str, index: int, start: int, end: int, value: float | None) -> Step:
        return Step(id=f"{sample}/{index}", parents=[sample], stage="steps", sample=sample, index=index, text="", start=start,
                    end=end, value=value, rollouts=None if value is None else 8)

    rows = {"p": [judged("p", 0, True), judged("p", 1, False)], "q": [judged("q", 0, True)]}
    steps = {"p#0": [step("p#0", 0, 0, 2, 0.75), step("p#0", 1, 2, 3, 1.0)], "p#1": [step("p#1", 0, 0, 3, 0.0)],
             "q#0": [step("q#0", 0, 0, 3, None)]}
    groups, told = process_groups(rows, steps, lambda _: [5], samples=4, validation_fraction=0.0, seed=0)
    (group,) = groups
    by_sample = dict(zip(group.samples, group.counts, strict=True))
    assert by_sample == {"p#0": 2, "p#1": 1} and told["without_steps"] == 1 and told["steps"] == 3
    assert sorted(zip(group.marks, group.labels, strict=True)) == [(1, 0.75), (2, 0.0), (2, 1.0)]


def test_without_a_similarity_solutions_count_as_often_as_they_were_drawn() -> None:
    members = [judged("p", i, i < 3, "the same text" if i < 3 else f"wrong {i}") for i in range(6)]
    (once,), _ = groups_of({"p": members}, similarity=1.0)
    (often,), counts = groups_of({"p": members}, similarity=None)
    assert (once.labels.count(1.0), often.labels.count(1.0), counts["duplicates"]) == (1, 3, 0)
