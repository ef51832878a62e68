"""The stages of reward models, one after another on a small world, and how the plan lays them out."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from configs.errors import ConfigError, RatchetError
from configs.load import load_recipe
from configs.rows import Example, Group, Problem, RewardedProblem, Row, Sample, Score, Step, VerdictRow
from configs.schema import TrainingSection
from data_gen.reward_data import is_held_out
from data_gen.steps import step_spans
from pipelines.engines import close_engine
from pipelines.models import ResolvedModel
from pipelines.online.shaping import RewardModelScorer
from pipelines.plan import Plan, build, resolve
from pipelines.runner import summary
from pipelines.stage import Stage
from pipelines.store import Artefact, Store, read_rows
from rewards import extract
from tests.pipelines.helpers import assert_same, contents, ratchet
from tests.pipelines.rise_world import PROMPT, World
from tests.pipelines.step_world import StepWorld

TRAINING = {
    "method": "reward_model", "adapter": "lora", "lora": {"r": 8}, "learning_rate": 5e-3, "epochs": 6, "batch_size": 8,
    "micro_batch_tokens": 1024,
}
SEED = 3


def solutions(count: int = 120) -> list[tuple[Problem, list[tuple[str, str]]]]:
    """Problems with two right and two wrong solutions that differ in how they begin; some problems of one kind."""
    rng = random.Random(1)
    made = []
    for i in range(count):
        answer = rng.randrange(10, 100)
        problem = Problem(
            id=f"p{i}", parents=[], stage="problems", source="own", split="train", question=f"{i}?", answer=str(answer)
        )
        right = [(f"{w}\n#### {answer}", "stop") for w in ("yes", "sure")]
        wrong = [(f"{w}\n#### {answer + 1 + k}", "stop") for k, w in enumerate(("but", "nor"))]
        made.append((problem, right * 2 if i % 10 == 0 else wrong * 2 if i % 10 == 1 else right + wrong))
    return made


@pytest.fixture(scope="module")
def world(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("world"), tiny_model, solutions(), size=40)
    rows: list[VerdictRow] = read_rows(world.store.artefact("verify", world.inputs["verdicts"].key), VerdictRow)
    samples: list[Sample] = read_rows(world.store.artefact("sample", world.inputs["samples"].key), Sample)
    answers = {s.id: extract(s.text) for s in samples}  # the votes need them
    rows = [msgspec.structs.replace(v, extracted=answers[v.sample]) for v in rows]
    world.inputs["verdicts"] = world.given("verify", VerdictRow, [rows])
    return world


def data_stage(world: World, inputs: dict[str, Stage] | None = None, **changes: Any) -> Stage:
    config = {
        "kind": "outcome", "samples": 4, "similarity": 1.0, "truncated_negatives": True, "balance_difficulty": False,
        "min_groups": 1, "validation_fraction": 0.25, "prompt": PROMPT, "model": "m", "seed": SEED, **changes,
    }
    inputs = inputs or {"samples0": world.inputs["samples"], "verdicts0": world.inputs["verdicts"]}
    return Stage("reward_data", "data", config, {"problems": world.inputs["problems"], **inputs}, {"base": str(world.base)})


def train_stage(world: World, groups: Stage, kind: str = "outcome") -> Stage:
    config = {
        "training": TRAINING, "reward_model": {"kind": kind}, "model": "m", "dtype": "float32", "seed": SEED,
    }
    return Stage("reward_train", "train", config, {"groups": groups}, {"base": str(world.base)},
                 {"train_threads": 1, "checkpoint_every": 100})


def score_stage(world: World, model: Stage) -> Stage:
    config = {"training": TRAINING, "aggregation": "minimum", "prompt": PROMPT, "model": "m", "dtype": "float32"}
    inputs = {"samples": world.inputs["samples"], "problems": world.inputs["problems"], "reward_model": model}
    return Stage("reward_score", "score", config, inputs, {"base": str(world.base)}, {"train_threads": 1})


def eval_stage(world: World, scores: Stage, held_out: float | None = 0.25, **inputs: Stage) -> Stage:
    config = {"alpha": 0.5, "held_out": held_out, "run_seed": SEED, "seed": SEED}
    return Stage("reward_eval", "eval", config, {**world.inputs, "scores": scores, **inputs})


def given_scores(world: World, values: dict[str, float], model: str = "rm") -> Stage:
    """Scores as an artefact, as if reward model `model` had given them."""
    rows = [
        Score(id=f"{s}/reward", parents=[s], stage="reward_score", sample=s, problem=s.split("#")[0], reward_model=model,
              value=v, steps=[]) for s, v in values.items()
    ]
    stage = world.given("reward_score", Score, [rows])
    artefact = world.store.artefact("reward_score", stage.key)
    world.store.finish(artefact, {"rows": len(rows), "parents": {"reward_model": {"key": model}}})
    return stage


def finish(world: World, stage: Stage) -> tuple[Artefact, dict[str, Any]]:
    """Run a stage and write the manifest as the runner does."""
    artefact, metrics = world.run(stage)
    parents = {name: {"kind": s.kind, "key": s.key} for name, s in stage.inputs.items()}
    world.store.finish(artefact, {"rows": 0, "metrics": metrics, "parents": parents, "timing": {}})
    return artefact, metrics


def test_from_verified_samples_to_picked_answers(world: World) -> None:
    data = data_stage(world)
    artefact, counts = finish(world, data)
    groups: list[Group] = world.rows(artefact, Group)
    assert counts["all_right"] == counts["all_wrong"] == 12 and counts["groups"] == len(groups) == 96
    assert counts["right"] == counts["wrong"] and 10 < counts["validation"] < 40
    prompt = world.encoder.encode("2?")
    assert next(g for g in groups if g.problem == "p2").prompt_ids == prompt

    model = train_stage(world, data)
    trained, metrics = finish(world, model)
    assert (trained.model / "reward_head.safetensors").is_file() and (trained.path / "train.jsonl").is_file()
    assert metrics["last"]["validation/accuracy"] > 0.9 and metrics["groups"] == 96

    scoring = score_stage(world, model)
    scored, metrics = finish(world, scoring)
    rows: list[Score] = world.rows(scored, Score)
    assert len(rows) == metrics["scores"] == 480 and {r.reward_model for r in rows} == {model.key}

    evaluated, metrics = finish(world, eval_stage(world, scoring))
    assert 0 < metrics["problems"] == sum(is_held_out(f"p{i}", 0.25, SEED) for i in range(120))
    pairwise = metrics["pairwise"]
    assert pairwise["reward_model"]["low"] > 0.85 and metrics["auc"] > 0.85 and metrics["agreement"] > 0.75
    assert pairwise["mean_logprob"]["mean"] == 0.5  # all samples have the same log-probability: chance
    assert metrics["right_score"] > metrics["wrong_score"] and metrics["alarm"] is None
    first, last = metrics["at"][0], metrics["at"][-1]
    assert last["k"] == 4 and last["rm"]["mean"] > first["pass"]["mean"] + 0.2 and last["rm"]["mean"] <= last["pass"]["mean"]
    each: list[RewardedProblem] = world.rows(evaluated, RewardedProblem)
    assert last["rm"]["mean"] == pytest.approx(sum(r.picked for r in each) / len(each))
    assert f"RM@4 {last['rm']['mean']:.1%}" in summary("reward_eval", evaluated.manifest())


def test_samples_of_several_iterations_and_too_few_groups(world: World) -> None:
    twice = {f"{n}{i}": world.inputs[n] for n in ("samples", "verdicts") for i in range(2)}
    artefact, counts = finish(world, data_stage(world, twice))
    groups: list[Group] = world.rows(artefact, Group)
    assert counts["samples"] == 960 and counts["duplicates"] > 400
    assert all(name.startswith(("0:", "1:")) for g in groups for name in g.samples)
    with pytest.raises(RatchetError, match=r"fewer than reward_model\.min_groups=500"):
        world.run(data_stage(world, min_groups=500))


def test_step_values_to_process_scores(world: World) -> None:
    """Steps valued by whether their sample is right; the aggregate is the least probable step."""
    samples: list[Sample] = read_rows(world.store.artefact("sample", world.inputs["samples"].key), Sample)
    verdicts = read_rows(world.store.artefact("verify", world.inputs["verdicts"].key), VerdictRow)
    right = {v.sample: float(v.outcome == "correct") for v in verdicts}
    steps = [
        Step(id=f"{s.id}/{t.index}", parents=[s.id], stage="steps", sample=s.id, index=t.index, text=t.text, start=t.start,
             end=t.end, value=right[s.id], rollouts=4)
        for s in samples for t in step_spans(world.encoder.tokenizer, s.token_ids)
    ]
    inputs = {"samples0": world.inputs["samples"], "verdicts0": world.inputs["verdicts"],
              "steps0": world.given("steps", Step, [steps])}
    data = data_stage(world, inputs, kind="process")
    _, counts = finish(world, data)
    assert counts["groups"] == 120 and counts["steps"] == len(steps)
    model = train_stage(world, data, "process")
    _, metrics = finish(world, model)
    assert metrics["last"]["validation/accuracy"] > 0.8
    artefact, _ = finish(world, score_stage(world, model))
    rows: list[Score] = world.rows(artefact, Score)
    assert all(len(r.steps) == 2 and 0.0 < r.value < 1.0 for r in rows)
    good, bad = ([r.value for r in rows if right[r.sample] == side] for side in (1.0, 0.0))
    assert sum(good) / len(good) > sum(bad) / len(bad) + 0.3


class Diverged:
    """A reward model that gives the third answer a score that is no number."""

    kind = "outcome"

    def __init__(self, *_: Any) -> None:
        pass

    def score(self, responses: Sequence[Any], *_: Any) -> list[list[float]]:
        return [[math.nan if i == 2 else 0.5] for i in range(len(responses))]


def test_scores_that_are_not_finite_are_refused_where_they_are_made(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.reward_head.Scorer", Diverged)
    stage = score_stage(world, Stage("reward_train", "train", {}, given_key="diverged"))
    with pytest.raises(RatchetError, match=r"reward_train/diverged/model gives sample p0#2 of problem p0 the score nan"):
        world.run(stage)
    assert not list(world.store.artefact("reward_score", stage.key).path.rglob("*.parquet"))
    monkeypatch.setattr("pipelines.online.shaping.Scorer", Diverged)
    settings = TrainingSection.model_validate(TRAINING)
    scorer = RewardModelScorer(Path("rm"), settings, world.base, "float32", world.encoder, "minimum")
    samples: list[Sample] = read_rows(world.store.artefact("sample", world.inputs["samples"].key), Sample)[:3]
    with pytest.raises(RatchetError, match=r"in rm gives an answer to 'c\?' the score nan"):
        scorer(["a?", "b?", "c?"], samples)


def select(world: World, scores: Stage, **changes: Any) -> tuple[list[Example], dict[str, Any]]:
    config = {
        "max_per_problem": 1, "label": "verified", "prefer": "reward", "min_reward": None, "include_human": False,
        "min_examples": 1, "prompt": PROMPT, "model": "m", "seed": SEED, "alpha": 0.5, **changes,
    }
    inputs = world.inputs | {"scores": scores}
    artefact, metrics = world.run(Stage("select", "select", config, inputs, {"base": str(world.base)}))
    return world.rows(artefact, Example), metrics


def test_selection_by_score(world: World) -> None:
    values = {f"p{i}#{k}": float(k) - i / 100 for i in range(120) for k in range(4)}
    scores = given_scores(world, values)
    examples, _ = select(world, scores)
    picked = {e.problem: e.parents[0] for e in examples}
    assert picked["p2"] == "p2#1" and "p1" not in picked  # the better of the two right ones; none is right
    examples, _ = select(world, scores, min_reward=0.9, max_per_problem=4)
    assert {e.parents[0] for e in examples if int(e.problem[1:]) % 10} == {f"p{i}#1" for i in range(2, 10)}


def test_weighted_vote_labels_problems_whose_answers_nobody_knows(world: World) -> None:
    """The two right samples agree and win unless a wrong one weighs more than both."""
    values = {f"p{i}#{k}": 0.0 for i in range(120) for k in range(4)} | {"p3#3": 9.0, "p3#0": -9.0, "p3#1": -9.0}
    examples, _ = select(world, given_scores(world, values), label="weighted_vote", max_per_problem=4)
    chosen: dict[str, set[str]] = {}
    for e in examples:
        chosen.setdefault(e.problem, set()).add(e.parents[0])
    assert chosen["p2"] == {"p2#0", "p2#1"} and chosen["p3"] == {"p3#3"}
    assert len(chosen) == 120


@pytest.mark.parametrize(("shift", "model", "alarms"), [(1.0, "rm", True), (0.0, "rm", False), (1.0, "other", False)])
def test_the_alarm_when_wrong_answers_gain(world: World, shift: float, model: str, alarms: bool) -> None:
    rng = random.Random(5)
    values = {f"p{i}#{k}": rng.gauss(0.0, 0.5) for i in range(120) for k in range(4)}
    before = eval_stage(world, given_scores(world, values), None)
    finish(world, before)
    now = {name: v + shift + rng.gauss(0.0, 0.1) for name, v in values.items()}
    artefact, metrics = finish(world, eval_stage(world, given_scores(world, now, model), None, previous=before))
    assert (metrics["alarm"] is not None) == alarms
    assert ("WARNING: the scores of wrong answers rose" in summary("reward_eval", artefact.manifest())) == alarms
    if model == "rm":
        assert metrics["wrong_rise"] == pytest.approx(shift, abs=0.1)


MODEL = ResolvedModel("m", Path("/nowhere"), "f" * 32)
BASE = ("model.dtype=float32", "sampling.engine=transformers", "evaluation.samples=4")


def plan_of(*overrides: str, recipe: str = "demo") -> Plan:
    return build(resolve(load_recipe(recipe, [*BASE, *overrides])), MODEL)


def labels(plan: Plan) -> list[str]:
    return [s.label for s in plan.stages]


def stage_of(plan: Plan, label: str) -> Stage:
    return next(s for s in plan.stages if s.label == label)


def test_without_a_reward_model_nothing_changes() -> None:
    assert not [name for name in labels(plan_of("iterations.count=2")) if "reward" in name]


def test_the_recipe_trains_a_reward_model_alone() -> None:
    plan = plan_of(recipe="reward_model_gsm8k")
    assert plan.trained == []
    assert labels(plan)[-6:] == [
        "iteration1/reward_data", "iteration1/reward_train", "iteration1/reward_score", "iteration1/reward_eval",
        "initial/gsm8k/sampled/reward_score", "initial/gsm8k/sampled/reward_eval",
    ]


def test_one_reward_model_serves_all_iterations_or_each_has_its_own() -> None:
    chosen = ("iterations.count=2", "reward_model.kind=outcome", "selection.prefer=reward")
    plan = plan_of(*chosen)
    assert [name for name in labels(plan) if name.endswith("reward_train")] == ["iteration1/reward_train"]
    assert stage_of(plan, "iteration2/select").inputs["scores"].label == "iteration2/reward_score"
    last = stage_of(plan, "iteration2/word-problems/sampled/reward_eval")
    assert last.inputs["previous"].label == "iteration1/word-problems/sampled/reward_eval"
    again = plan_of(*chosen, "reward_model.retrain=true")
    data = stage_of(again, "iteration2/reward_data")
    assert set(data.inputs) == {"problems", "samples0", "verdicts0", "samples1", "verdicts1"}
    assert stage_of(again, "iteration2/reward_train").inputs["model"].label == "iteration1/train"


def test_the_reward_models_own_settings_replace_those_of_the_policy() -> None:
    plan = plan_of("reward_model.kind=outcome", "training.learning_rate=0.01", "reward_model.epochs=7")
    training = stage_of(plan, "iteration1/reward_train").config["training"]
    assert training["learning_rate"] == 0.01 and training["epochs"] == 7
    assert stage_of(plan, "iteration1/train").config["training"]["epochs"] != 7


def test_what_shapes_the_policys_training_alone_does_not_reach_the_reward_model() -> None:
    plan = plan_of("reward_model.kind=outcome", "training.average=0.5", "training.prompt_weight=0.2")
    config = stage_of(plan, "iteration1/reward_train").config["training"]
    assert not {"average", "prompt_weight", "steps"} & set(config)
    assert TrainingSection.model_validate(config).method == "reward_model"
    assert stage_of(plan, "iteration1/train").config["training"]["average"] == 0.5


def test_a_process_model_learns_from_rollouts_that_pairs_and_advantages_share() -> None:
    process = ("reward_model.kind=process", "iterations.count=2")
    plan = plan_of(*process)
    data = stage_of(plan, "iteration1/reward_data")
    assert set(data.inputs) == {"problems", "samples0", "verdicts0", "steps0"}
    assert data.inputs["steps0"].inputs["rollouts"].label == "iteration1/rollouts"
    assert "iteration2/rollouts" not in labels(plan)  # the model of the first iteration serves all
    again = stage_of(plan_of(*process, "reward_model.retrain=true"), "iteration2/reward_data")
    assert {"steps0", "steps1"} <= set(again.inputs)
    weighted = plan_of(*process, "selection.advantage_weights=0.5")
    learned = stage_of(weighted, "iteration1/reward_data").inputs["steps0"]
    assert stage_of(weighted, "iteration1/select").inputs["steps"] is learned
    paired = plan_of(*process, "training.method=dpo", "pairs.kind=per_step")
    assert stage_of(paired, "iteration1/pairs").inputs["steps"] is stage_of(paired, "iteration1/reward_data").inputs["steps0"]
    assert sum(s.kind == "rollouts" for s in paired.stages) == 2


def test_online_training_gets_the_reward_model_of_its_starting_weights() -> None:
    online = ("reward_model.kind=outcome", "iterations.count=2", "evaluation.samples=4")
    plan = plan_of(*online, recipe="remax_demo")
    first, second = plan.trained
    assert first.inputs["reward_model"] is second.inputs["reward_model"]
    assert first.inputs["reward_model"].label == "iteration1/reward_train" and "iteration2/reward/sample" not in labels(plan)
    assert first.config["shaping"] == {"alpha": 0.5, "aggregation": "minimum"}
    again = plan_of(*online, "reward_model.retrain=true", recipe="remax_demo").trained[1]
    assert again.inputs["reward_model"].label == "iteration2/reward_train"
    assert again.inputs["reward_model"].inputs["model"].label == "iteration1/train"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["selection.prefer=reward"], "need `reward_model.kind`"),
        (["selection.label=weighted_vote"], "need `reward_model.kind`"),
        (["training.method=reward_model"], "need `reward_model.kind`"),
        (["training.method=reward_model", "reward_model.kind=outcome", "iterations.count=2"], "iterations.count: 1"),
        (["reward_model.kind=process", "rollouts.allocation=sequential"], "set `rollouts.allocation: fixed`"),
    ],
)
def test_what_does_not_fit_is_refused(overrides: Sequence[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan_of(*overrides)


def rows_of(store: Store, kind: str, row: type[Row]) -> list[Any]:
    """Rows of all artefacts of a kind."""
    keys = {p.parent.name for p in (store.root / kind).glob("*/manifest.json")}
    return [r for key in sorted(keys) for r in read_rows(store.artefact(kind, key), row)]


def values_of(steps: Sequence[Step]) -> dict[tuple[str, int], float | None]:
    """Values of steps by sample and last token."""
    return {(s.sample, s.end - 1): s.value for s in steps}


def labels_of(groups: Sequence[Group]) -> dict[tuple[str, int], float | None]:
    """Labels of groups by sample and mark."""
    found: dict[tuple[str, int], float | None] = {}
    for g in groups:
        owners = [sample for sample, n in zip(g.samples, g.counts, strict=True) for _ in range(n)]
        found |= dict(zip(zip(owners, g.marks, strict=True), g.labels, strict=True))
    return found


def test_a_process_model_learns_the_values_that_rollouts_gave(tiny_model: Path, tmp_path: Path) -> None:
    """Solutions of several steps; every valued step of every sample is a mark."""
    world = StepWorld(tmp_path, tiny_model)
    rollouts, steps = world.value_stages(n=4, negatives=3, positives=2)
    try:
        finish(world, rollouts)
        rows: list[Step] = world.rows(finish(world, steps)[0], Step)
    finally:
        close_engine()
    assert any(s.rollouts and s.value not in (0.0, 1.0) for s in rows)
    inputs = {"samples0": world.inputs["samples"], "verdicts0": world.inputs["verdicts"], "steps0": steps}
    data = data_stage(world, inputs, kind="process", samples=5, validation_fraction=0.0)
    groups: list[Group] = world.rows(finish(world, data)[0], Group)
    assert labels_of(groups) == values_of(rows) and len(groups) == 4
    losses = finish(world, train_stage(world, data, "process"))[1]
    assert losses["last_loss"] < losses["first_loss"]


def test_a_process_model_in_one_run_from_samples_over_rollouts_to_selection(tiny_run: Any, tmp_path: Path) -> None:
    wanted = [
        "reward_model={kind: process, validation_fraction: 0.0}", "selection.prefer=reward", "training.adapter=lora",
        "sampling.temperature=0.7", "rollouts={n: 2, best_of: 2}", "evaluation.samples=2",
    ]
    done = ratchet("run", str(tiny_run.recipe), "--run-dir", "run", *wanted, home=tmp_path, cwd=tmp_path)
    assert "iteration1/steps" in done.stdout and "RM@2" in done.stdout
    store = Store(tmp_path / "store")
    groups: list[Group] = rows_of(store, "reward_data", Group)
    labels = labels_of(groups)
    assert labels and labels.items() <= values_of(rows_of(store, "steps", Step)).items()
    scores: list[Score] = rows_of(store, "reward_score", Score)
    assert scores and all(s.steps and 0.0 < s.value < 1.0 for s in scores)


def test_a_run_from_the_command_line_is_resumed_with_the_same_bytes(tiny_run: Any, tmp_path: Path) -> None:
    """The reward model picks training examples; half of the run is done first, by a run of fewer stages."""
    wanted = [
        "reward_model.kind=outcome", "reward_model.validation_fraction=0.3", "selection.prefer=reward", "training.adapter=lora",
        "sampling.temperature=0.7", "evaluation.samples=4", "iterations.count=2",
    ]
    ratchet("run", str(tiny_run.recipe), "--run-dir", "calm", *wanted, home=tmp_path / "a", cwd=tmp_path)
    begun = ratchet("run", str(tiny_run.recipe), "--run-dir", "cut", *wanted[:-1], "iterations.count=1", home=tmp_path / "b",
                    cwd=tmp_path)
    assert "reward_train: " in begun.stdout and "RM@8" in begun.stdout
    done = ratchet("run", str(tiny_run.recipe), "--run-dir", "whole", *wanted, home=tmp_path / "b", cwd=tmp_path)
    assert "iteration1/reward_train: " in done.stdout and "(cached)" in done.stdout
    assert_same(contents(tmp_path / "a"), contents(tmp_path / "b"))
