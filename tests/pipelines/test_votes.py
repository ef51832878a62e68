from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from configs.rows import Problem, SampledProblem, VerdictRow
from pipelines.stage import Stage
from pipelines.statistics import clustered, wilson
from pipelines.store import read_rows
from tests.pipelines.rise_world import World

GOLD = "5"


@pytest.fixture
def world(tiny_model: Path, tmp_path: Path) -> World:
    given = {"parents": [], "stage": "problems", "source": "own", "split": "test", "answer": GOLD}
    return World(tmp_path, tiny_model, [(Problem(id=f"p{i}", question=f"{i}?", **given), []) for i in range(6)])


def verdicts(answers: Sequence[Sequence[str | None]], tag: str = "") -> list[VerdictRow]:
    """A verdict for each answer of each problem: None gives no answer, "?" could not be judged."""
    outcome = {None: "no_answer", "?": "timeout", GOLD: "correct", "5.0": "correct"}
    return [
        VerdictRow(id=f"p{p}#{tag}{i}/verdict", parents=[], stage="verify", sample=f"p{p}#{tag}{i}", problem=f"p{p}",
                   outcome=outcome.get(a, "wrong"), extracted=a, detail="")
        for p, mine in enumerate(answers) for i, a in enumerate(mine)
    ]  # fmt: skip


def votes(world: World, *seeds: Sequence[Sequence[str | None]]) -> tuple[list[SampledProblem], dict[str, Any]]:
    given = {
        f"verdicts{n}": world.given("verify", VerdictRow, [verdicts(answers, f"{n}-")]) for n, answers in enumerate(seeds, 1)
    }
    config = {"seeds": list(range(10, 10 + len(seeds))), "seed": 0}
    artefact, metrics = world.run(Stage("votes", "votes", config, {"problems": world.inputs["problems"], **given}))
    return read_rows(artefact, SampledProblem), metrics


def brute_force(answers: Sequence[Sequence[str | None]], k: int) -> tuple[float, float]:
    """pass@k and maj@k, subset by subset; 5 and 5.0 are one answer."""
    passed = majority = 0.0
    for mine in answers:
        values = [{"5.0": GOLD, "?": None}.get(a, a) if a else None for a in mine]
        subsets = list(itertools.combinations(values, k))
        for subset in subsets:
            counts = {a: subset.count(a) for a in subset if a is not None}
            winners = [a for a, c in counts.items() if c == max(counts.values())]
            passed += (GOLD in subset) / len(subsets)
            majority += (GOLD in winners) / max(1, len(winners)) / len(subsets)
    return passed / len(answers), majority / len(answers)


@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_those_of_all_subsets(world: World, seed: int):
    rng = random.Random(seed)
    answers = [[rng.choice([GOLD, "5.0", "7", "8", None, "?"]) for _ in range(8)] for _ in range(6)]
    _, m = votes(world, answers)
    assert [r["k"] for r in m["at"]] == [1, 2, 4, 8]
    for record in m["at"]:
        passed, majority = brute_force(answers, record["k"])
        assert record["pass"]["mean"] == pytest.approx(passed)
        assert record["maj"]["mean"] == pytest.approx(majority)
    shares = [sum(a in (GOLD, "5.0") for a in mine) / 8 for mine in answers]
    assert (m["low"], m["high"]) == pytest.approx(clustered(shares, 48))
    assert m["at"][0]["pass"] == pytest.approx({k: m[v] for k, v in (("mean", "accuracy"), ("low", "low"), ("high", "high"))})


def test_all_seeds_count_together_and_are_told_apart(world: World):
    first = [[GOLD, "7"]] * 3 + [["7", "7"]] * 3
    second = [[GOLD, GOLD]] * 6
    rows, m = votes(world, first, second)
    assert m["seeds"] == {"10": 0.25, "11": 1.0}
    assert m["accuracy"] == pytest.approx(0.625)
    assert (m["samples"], m["problems"]) == (24, 6)
    assert [r["k"] for r in m["at"]] == [1, 2, 4]
    assert m["at"][-1]["maj"]["mean"] == pytest.approx((3 * 1 + 3 * 0.5) / 6)  # 3:1 three times, 2:2 three times
    assert [r.samples for r in rows] == [4] * 6


def test_a_problems_row_tells_the_most_frequent_answer(world: World):
    answers = [["7", GOLD, "5.0", None], [None] * 4, ["?"] * 4, ["8", "7", "7", "8"], [GOLD] * 4, [GOLD, None, None, "?"]]
    rows, _ = votes(world, answers)
    assert [(r.majority, r.votes, r.answers, r.majority_correct, r.correct) for r in rows] == [
        (GOLD, 2, 2, True, 2), (None, 0, 0, False, 0), (None, 0, 0, False, 0), ("8", 2, 2, False, 0), (GOLD, 4, 1, True, 4),
        (GOLD, 1, 1, True, 1),
    ]  # fmt: skip
    assert rows[0].parents == [f"p0#1-{i}/verdict" for i in range(4)]


def test_nobody_right_is_no_certainty(world: World):
    _, m = votes(world, [["7"] * 8] * 6)
    assert (m["low"], m["high"]) == pytest.approx(wilson(0, 6))
    assert m["at"][-1]["maj"]["high"] == pytest.approx(wilson(0, 6)[1])
