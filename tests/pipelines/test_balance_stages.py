"""The stages of the balance on rows made by hand: after the paper and after its code, with and without a scorer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from configs.errors import InputError, RatchetError
from configs.rows import Example, Problem, Row, Sample, Score, VerdictRow
from pipelines.candidates import rewards_of, scores_of
from pipelines.stage import Stage
from pipelines.store import read_rows
from rewards.shaping import combined_reward
from tests.pipelines.rise_world import PROMPT, World, sample, verdict

BALANCE: dict[str, Any] = {
    "temperatures": [0.5, 1.0], "thresholds": [-0.5, 0.0, 0.5], "queries": 4, "n": 4, "n_star": 2, "target": None,
    "responses_per_query": "all", "average": "all", "duplicates": "remove", "human_candidates": False,
    "rechoose_threshold": False, "rounds": [1.0], "risk": 0.05, "budget": 0.5, "score_scale": 1.0, "score_clamp": True,
    "offset": 0, "count": None, "seed": 3,
}  # fmt: skip


def problem(i: int) -> Problem:
    return Problem(
        id=f"p{i}", parents=[], stage="problems", source="s", split="train", question=f"{i} eggs?", answer="5",
        solution="2 + 3 = 5\n#### 5",
    )


class Sweep:
    """Four problems. At temperature 0.5 every sample reads alike and is right; at 1.0 half are right, all different."""

    def __init__(self, root: Path, model: Path) -> None:
        self.problems = [problem(i) for i in range(4)]
        self.world = World(root, model, [(p, [("#### 5", "stop")]) for p in self.problems])
        encoder = self.world.encoder
        self.samples: list[Sample] = []
        for p in self.problems:
            texts = {0.5: ["#### 5"] * 4, 1.0: ["5 = 5\n#### 5", "#### 6", "1 + 4 = 5\n#### 5", "#### 7"]}
            for t, group in texts.items():
                for i, text in enumerate(group):
                    s = sample(encoder, p, i, text)
                    self.samples.append(msgspec.structs.replace(s, id=f"{p.id}@{t:g}#{i}", temperature=t))
        self.verdicts = [verdict(s, "5") for s in self.samples]
        self.inputs = {"problems": self.world.inputs["problems"]}

    def given(self, row: type[Row], rows: list[Any]) -> Stage:
        return self.world.given({"Sample": "sample", "VerdictRow": "verify", "Score": "confidence"}[row.__name__], row, [rows])

    def scores(self, values: dict[str, float]) -> list[Score]:
        """Of each sample by its text."""
        return [
            Score(id=f"{s.id}/score", parents=[s.id], stage="score", sample=s.id, problem=s.problem, reward_model="rm",
                  value=values[s.text], steps=[])
            for s in self.samples
        ]

    def balance(self, scores: list[Score] | None = None, **settings: Any) -> dict[str, Any]:
        """`choice.json` of the balance stage."""
        config = {**BALANCE, "round": 0, **settings}
        drawn = [s for s in self.samples if s.temperature in config["temperatures"]]
        inputs = self.inputs | {
            "samples1": self.given(Sample, drawn), "verdicts1": self.given(VerdictRow, self.verdicts),
        }
        if scores is not None:
            inputs["scores1"] = self.given(Score, scores)
        artefact, _ = self.world.run(Stage("balance", "balance", config, inputs))
        return json.loads((artefact.path / "choice.json").read_text())

    def select(self, temperature: float, threshold: float, scores: list[Score] | None = None, **settings: Any) -> Any:
        """(examples, metrics) of the selection stage, on the samples of one temperature."""
        mine = [s for s in self.samples if s.temperature == temperature]
        ids = {s.id for s in mine}
        choice = Stage("balance", "given", {}, given_key=f"choice-{temperature}-{threshold}")
        artefact = self.world.store.artefact("balance", choice.key)
        artefact.path.mkdir(parents=True, exist_ok=True)
        point = {"temperature": temperature, "threshold": threshold}
        (artefact.path / "choice.json").write_text(json.dumps({"point": point}))
        self.world.store.finish(artefact, {"rows": 0, "metrics": {}})
        inputs = self.inputs | {
            "samples": self.given(Sample, mine),
            "verdicts": self.given(VerdictRow, [v for v in self.verdicts if v.sample in ids]), "choice": choice,
        }
        if scores is not None:
            inputs["scores"] = self.given(Score, [s for s in scores if s.sample in ids])
        config = {**BALANCE, "min_examples": 1, "prompt": PROMPT, "model": "m", **settings}
        made, metrics = self.world.run(Stage("select_balanced", "select", config, inputs, {"base": str(self.world.base)}))
        return read_rows(made, Example), metrics


@pytest.fixture
def sweep(tmp_path: Path, tiny_model: Path) -> Sweep:
    return Sweep(tmp_path / "store", tiny_model)


def test_variety_wins_over_accuracy_when_more_different_solutions_are_wanted(sweep: Sweep):
    assert sweep.balance(n_star=2)["point"]["temperature"] == 1.0
    assert sweep.balance(n_star=1)["point"]["temperature"] == 0.5, "a tie goes to the lower temperature"


def test_equal_texts_may_count_among_the_selected(sweep: Sweep):
    """The paper's n counts every selected response, its code only different ones."""
    assert sweep.balance(duplicates="count", temperatures=[0.5])["point"]["score"] == pytest.approx(1 / 2 * 1 / 4)
    assert sweep.balance(duplicates="remove", temperatures=[0.5])["point"]["score"] == pytest.approx(1 / 2)


def test_a_scorer_moves_the_threshold(sweep: Sweep):
    """A wrong answer with a high score is above 0; a threshold above it wins."""
    values = {"#### 5": 0.0, "5 = 5\n#### 5": 0.0, "#### 6": 0.3, "1 + 4 = 5\n#### 5": -0.1, "#### 7": -0.9}
    point = sweep.balance(sweep.scores(values))["point"]
    assert (point["temperature"], point["threshold"], point["wrong"]) == (1.0, 0.5, 0)
    examples, metrics = sweep.select(1.0, 0.0, sweep.scores(values))
    assert len(examples) == 12 and metrics["wrong_share"] == pytest.approx(1 / 3), "r > 0 lets the well-liked wrong one in"
    examples, metrics = sweep.select(1.0, 0.5, sweep.scores(values))
    assert len(examples) == 8 and metrics["wrong_share"] == 0


def test_scores_are_scaled_and_held_in_range(sweep: Sweep):
    """After the code: a raw logit / 5, not clamped; a strongly disliked right answer falls below the threshold."""
    values = {"#### 5": 0.0, "5 = 5\n#### 5": -8.0, "#### 6": -8.0, "1 + 4 = 5\n#### 5": 0.0, "#### 7": -8.0}
    code = {"score_scale": 5.0, "score_clamp": False}
    assert len(sweep.select(1.0, -0.5, sweep.scores(values), **code)[0]) == 4, "1 - 8/5 < -0.5"
    assert len(sweep.select(1.0, -0.5, sweep.scores(values), score_scale=5.0)[0]) == 8, "clamped: 1 - 1 > -0.5"


@pytest.mark.parametrize(("clamp", "kept"), [(False, 4), (True, 8)])
def test_the_steps_of_a_process_reward_model_make_the_reward_of_the_paper(sweep: Sweep, clamp: bool, kept: int):
    """1[correct] + the lowest raw step score / 5: as `combined_reward` has it."""
    steps = {
        "#### 5": [0.0], "5 = 5\n#### 5": [-8.0, 9.0], "#### 6": [9.0], "1 + 4 = 5\n#### 5": [0.5, 2.0], "#### 7": [-8.0],
    }  # fmt: skip
    rows = [msgspec.structs.replace(s, value=0.5, steps=steps[t.text]) for s, t in zip(
        sweep.scores(dict.fromkeys(steps, 0.0)), sweep.samples, strict=True
    )]
    mine = [s for s in sweep.samples if s.temperature == 1.0]
    verdicts = {v.sample: v for v in sweep.verdicts}
    found = rewards_of(mine, verdicts, scores_of(rows, "minimum"), 5.0, clamp)
    assert found == {
        s.id: pytest.approx(combined_reward(verdicts[s.id].outcome == "correct", steps[s.text], clamp=clamp)) for s in mine
    }
    settings = {"score_scale": 5.0, "score_clamp": clamp, "aggregation": "minimum", "duplicates": "count"}
    examples, _ = sweep.select(1.0, -0.5, rows, **settings)
    right = [e for e in examples if "#### 5" in e.text]
    assert len(right) == kept and {e.text for e in examples} - {e.text for e in right} == {"#### 6"}
    last = sweep.select(1.0, -0.5, rows, **{**settings, "aggregation": "last"})[0]
    assert sum("#### 5" in e.text for e in last) == 8, "a bad step before a good last one"


def test_a_missing_score_is_an_error(sweep: Sweep):
    scores = sweep.scores({s.text: 0.0 for s in sweep.samples})[1:]
    with pytest.raises(InputError, match=r"sample p0@0\.5#0 has no score"):
        sweep.balance(scores)


def test_cut_off_and_unanswered_samples_are_never_selected(sweep: Sweep):
    sweep.samples = [
        msgspec.structs.replace(s, finish_reason="length") if s.temperature == 1.0 and s.id.endswith("#0") else s
        for s in sweep.samples
    ]
    sweep.verdicts = [
        msgspec.structs.replace(v, outcome="no_answer") if v.sample.endswith("@1#1") else v for v in sweep.verdicts
    ]
    examples, _ = sweep.select(1.0, -0.5)
    assert sorted({e.parents[0].partition("#")[2] for e in examples}) == ["2", "3"]


def test_as_many_a_problem_as_the_target_needs(sweep: Sweep):
    examples, metrics = sweep.select(1.0, 0.0, responses_per_query="target", target=4)
    assert (len(examples), metrics["cap"], metrics["target_reached"]) == (4, 1, True)
    examples, metrics = sweep.select(1.0, 0.0, responses_per_query="target", target=400)
    assert (len(examples), metrics["target_reached"]) == (8, False)
    assert len(sweep.select(1.0, 0.0, responses_per_query=1)[0]) == 4


def test_human_solutions_compete_with_reward_1(sweep: Sweep):
    examples, metrics = sweep.select(0.5, 0.0, human_candidates=True)
    assert {e.kind for e in examples} == {"model", "human"}
    assert metrics["human"] == 4 and len(examples) == 8
    human = next(e for e in examples if e.kind == "human")
    assert human.text == "2 + 3 = 5\n#### 5" and human.parents == [human.problem]
    disliked = sweep.scores({s.text: -0.9 for s in sweep.samples})
    assert {e.kind for e in sweep.select(0.5, 0.5, disliked, human_candidates=True)[0]} == {"human"}


def test_the_threshold_is_chosen_again_where_asked_for(sweep: Sweep):
    assert sweep.select(1.0, -0.5)[1]["threshold"] == -0.5
    again = sweep.select(1.0, -0.5, rechoose_threshold=True)[1]
    assert (again["threshold"], again["wrong_share"]) == (0.0, 0.0)


def test_too_few_examples_stop_the_run(sweep: Sweep):
    with pytest.raises(RatchetError, match=r"selection\.min_examples=99"):
        sweep.select(1.0, 0.0, min_examples=99)


def test_fewer_problems_than_rounds_are_refused(sweep: Sweep):
    with pytest.raises(InputError, match=r"balance\.rounds=\[1\.0\]"):
        sweep.balance(rounds=[0.1, 0.2, 0.3, 0.4, 1.0])


def test_n_star_by_the_papers_formula(sweep: Sweep):
    found = sweep.balance(n_star="auto", target=8, temperatures=[1.0])["point"]
    assert found["score"] == 1.0, "n* = ceil(8 / 4) = 2"
