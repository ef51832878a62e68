"""Metrics of exploration against enumeration of all subsets."""

from __future__ import annotations

import itertools
import math
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.rows import Problem
from pipelines.exploration import (
    Drawn,
    by_level,
    diversity,
    equation_gap,
    equations,
    figures,
    pass_at_k,
    pass_at_k_s,
    reward_at_k_s,
    summary,
)

drawn_samples = st.lists(
    st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 4)).map(
        lambda x: Drawn(x[0], f"{'right' if x[0] else 'wrong'} {x[1]}", float(x[0]) + x[2] / 10)
    ),
    min_size=1, max_size=8,
)  # fmt: skip


@given(drawn_samples, st.data())
@settings(max_examples=200, deadline=None)
def test_every_figure_is_the_mean_over_all_subsets(drawn: list[Drawn], data: st.DataObject):
    k = data.draw(st.integers(1, len(drawn)))
    s = data.draw(st.integers(1, k))
    subsets = list(itertools.combinations(drawn, k))
    found = figures(drawn, [k], [1, s])
    assert found[f"pass@{k}"] == pytest.approx(fmean(any(d.correct for d in x) for x in subsets))
    if s > 1:
        different = [len({d.text for d in x if d.correct}) >= s for x in subsets]
        assert found[f"pass@{k}-{s}"] == pytest.approx(fmean(different))
    best = [all(d.correct for d in sorted(x, key=lambda d: -d.reward)[:s]) for x in subsets]
    assert found[f"reward@{k}-{s}"] == pytest.approx(fmean(best))
    assert found["unique_correct"] == len({d.text for d in drawn if d.correct})


@given(st.integers(1, 64), st.data())
def test_pass_at_k_is_pass_at_k_1_whatever_repeats(n: int, data: st.DataObject):
    correct = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    one = data.draw(st.integers(0, correct))
    copies = [c for c in (one, correct - one) if c]
    assert pass_at_k_s(n, copies, k, 1) == pytest.approx(pass_at_k(n, correct, k), abs=1e-12)
    assert pass_at_k_s(n, copies, k, len(copies) + 1) == 0.0, "not more different ones than there are"


def test_all_samples_drawn_is_the_papers_definition():
    assert pass_at_k_s(32, [1] * 4, 32, 4) == 1.0
    assert pass_at_k_s(32, [3, 4, 5], 32, 4) == 0.0
    assert reward_at_k_s([True] * 4 + [False] * 28, 32, 4) == 1.0
    assert reward_at_k_s([True] * 3 + [False] + [True] * 28, 32, 4) == 0.0


@pytest.mark.parametrize(("n", "k", "correct"), [(1100, 550, 9), (1100, 550, 900), (2000, 1999, 1700), (1031, 4, 600)])
def test_more_subsets_than_floats_can_count(n: int, k: int, correct: int):
    """With no text twice: the chance that at least four of the k drawn are correct (hypergeometric)."""
    fewer = sum(math.comb(correct, i) * math.comb(n - correct, k - i) for i in range(4))
    assert pass_at_k_s(n, [1] * correct, k, 4) == pytest.approx(1 - fewer / math.comb(n, k), abs=1e-12)


def test_figures_of_fewer_samples_are_what_they_were_to_the_last_bit():
    """Artefacts in the store were made with these."""
    assert pass_at_k_s(64, [3, 5, 2, 9], 32, 4).hex() == "0x1.487432592e147p-1"


def test_ties_in_reward_go_to_the_earlier_sample():
    first = [Drawn(True, "a", 0.5), Drawn(False, "b", 0.5)]
    assert figures(first, [2], [1])["reward@2-1"] == 1.0
    assert figures(first[::-1], [2], [1])["reward@2-1"] == 0.0


def test_k_beyond_the_samples_is_refused_or_left_out():
    with pytest.raises(ValueError, match="K = 5 must be between 1 and the 4 samples"):
        pass_at_k(4, 1, 5)
    assert set(figures([Drawn(True, "4", 1.0)], [1, 4], [1])) == {"accuracy", "unique_correct", "pass@1", "reward@1-1"}


def test_score_at_k_ranks_without_the_answer():
    drawn = [Drawn(False, "a", 0.9, 0.9), Drawn(True, "b", 1.1, 0.1)]
    found = figures(drawn, [2], [1])
    assert (found["reward@2-1"], found["score@2-1"]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("48/2 = <<48/2=24>>24 clips", ["48/2=24"]),
        ("so $x + 2 = 5$ and \\[ x = 3 \\]", ["x+2=5", "x=3"]),
        ("It costs $5 and then $7 more, $5-$7.", []),
        ("8 + 5 = 13\n13 * 2 = 26\n#### 26", ["8+5=13", "13*2=26"]),
        ("no equation", []),
    ],
)
def test_equations(text: str, expected: list[str]):
    assert equations(text) == expected


def test_diversity_and_the_gap_that_does_not_depend_on_the_number_of_solutions():
    assert diversity([["a=1", "b=2"], ["a=1", "c=3"]]) == 0.75
    assert diversity([[]]) is None and equation_gap([["a=1"]]) is None
    assert equation_gap([["a=1"], ["a=1"]]) == 0.0
    assert equation_gap([["a=1", "x=0"], ["b=2", "x=0"]]) == pytest.approx(0.75)
    kinds = [["a=1"], ["b=2"]]
    assert diversity(kinds * 8) == 1 / 8 < diversity(kinds * 2) == 1 / 2  # type: ignore[operator]
    assert equation_gap(kinds * 8) == pytest.approx(1 - 14 / 30) and equation_gap(kinds * 2) == pytest.approx(1 - 2 / 6)


def test_summary_and_levels():
    each = {"a": {"accuracy": 1.0}, "b": {"accuracy": 0.0, "diversity": 0.5}}
    problems = {
        i: Problem(id=i, parents=[], stage="problems", source="s", split="train", question="?", answer="1", level=level)
        for i, level in (("a", "1"), ("b", "2"))
    }
    total = summary(list(each.values()))
    assert total["accuracy"]["mean"] == 0.5 and total["accuracy"]["low"] < 0.5 < total["accuracy"]["high"]
    assert total["diversity"] == {"mean": 0.5, "low": 0.5, "high": 0.5, "problems": 1.0}
    assert {k: v["accuracy"]["mean"] for k, v in by_level(problems, each).items()} == {"1": 1.0, "2": 0.0}
