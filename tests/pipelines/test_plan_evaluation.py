"""How `evaluation` becomes stages: prompts by name, worked examples, seeds, another run's reward model."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import ConfigError, InputError
from configs.load import load_recipe
from pipelines.evaluation import evaluation_recipe
from pipelines.models import ResolvedModel
from pipelines.plan import Plan, build, resolve
from pipelines.runfolder import RunFolder
from pipelines.stage import Stage
from tests.pipelines.helpers import write_plan, write_reward_run

BENCHMARKS = "[{name: gsm8k, source: {source: gsm8k, split: test}}, {name: math500, source: {source: math500, split: test}}]"


def plan_of(*overrides: str, recipe: str = "demo") -> Plan:
    fixed = ("iterations.count=0", "model.dtype=float32", "sampling.engine=transformers", f"evaluation.benchmarks={BENCHMARKS}")
    return build(resolve(load_recipe(recipe, [*fixed, *overrides])), ResolvedModel("m", Path("/nowhere"), "f" * 32))


def stages(plan: Plan) -> dict[str, Stage]:
    return {s.label: s for s in plan.stages}


def test_without_new_settings_nothing_is_asked_for_that_was_not_before():
    plan = plan_of("evaluation.samples=4")
    found = stages(plan)
    assert list(found) == [
        "problems/gsm8k", "problems/math500",
        *(f"initial/{b}/{x}" for b in ("gsm8k", "math500") for x in (
            "greedy/sample", "greedy/verify", "greedy", "sampled/sample", "sampled/verify", "sampled", "votes",
        )),
    ]  # fmt: skip
    assert all("shots" not in s.inputs for s in plan.stages)
    assert found["initial/gsm8k/greedy/sample"].config["prompt"] == plan.recipe.data.prompt.model_dump()
    assert {s.key for s in plan_of().stages} < {s.key for s in plan.stages}
    drawn = found["initial/gsm8k/sampled/sample"].config
    assert (drawn["seed"], drawn["stop"], drawn["shots"]) == (plan.recipe.seed, [], [])


def test_few_shot_shows_examples_of_the_training_split():
    found = stages(plan_of("evaluation.prompt=few_shot"))
    gsm8k, math = found["shots/gsm8k"], found["shots/math500"]
    assert (gsm8k.config["count"], math.config["count"]) == (8, 4)
    assert gsm8k.inputs["pool"].config["split"] == "train"
    assert math.inputs["pool"].config["source"] == "math"
    assert math.inputs["problems"] is found["problems/math500"]
    sample = found["initial/gsm8k/greedy/sample"]
    assert sample.inputs["shots"] is gsm8k
    assert sample.config["stop"] == ["\nProblem:"]
    assert found["initial/gsm8k/greedy"].config["prompt"]["style"] == "plain"
    assert stages(plan_of("evaluation.prompt=few_shot", "evaluation.shots=3"))["shots/math500"].config["count"] == 3


def test_the_other_prompts_show_none_unless_asked():
    for name in ("chat", "plain"):
        plan = plan_of(f"evaluation.prompt={name}")
        assert not [s for s in plan.stages if s.kind == "shots"]
        assert stages(plan)["initial/gsm8k/greedy/sample"].config["prompt"]["style"] == name
    assert not [s for s in plan_of("evaluation.prompt=few_shot", "evaluation.shots=0").stages if s.kind == "shots"]
    assert stages(plan_of("evaluation.shots=2"))["shots/gsm8k"].config["count"] == 2


def test_examples_from_a_file(tmp_path: Path):
    file = tmp_path / "mine.jsonl"
    file.write_text('{"question": "1+1?", "answer": 2, "solution": "#### 2"}\n')
    found = stages(plan_of("evaluation.prompt=few_shot", f"evaluation.shots_file={file}"))
    assert found["shots/gsm8k"].config == {"count": None, "given": True}
    assert found["shots/gsm8k"].inputs["pool"].paths == {"path": str(file)}
    with pytest.raises(ConfigError, match="does not exist"):
        plan_of("evaluation.prompt=few_shot", "evaluation.shots_file=nowhere.jsonl")
    for wrong in (["evaluation.shots=0", "evaluation.prompt=few_shot"], ["evaluation.prompt=chat"]):
        with pytest.raises(ConfigError, match="`shots_file` is shown only with"):
            plan_of(f"evaluation.shots_file={file}", *wrong)


def test_a_file_of_problems_has_no_training_split(tmp_path: Path):
    file = tmp_path / "own.jsonl"
    file.write_text('{"question": "1+1?", "answer": 2}\n')
    own = f"evaluation.benchmarks=[{{name: own, source: {{source: jsonl, path: {file}}}}}]"
    with pytest.raises(ConfigError, match=r"evaluation\.shots_file=FILE\.jsonl"):
        plan_of(own, "evaluation.prompt=few_shot")
    assert plan_of(own, "evaluation.prompt=chat").stages


def test_each_seed_draws_its_own_samples_and_the_votes_see_them_all():
    found = stages(plan_of("evaluation.samples=4", "evaluation.seeds=[7, 8]"))
    samples = [found[f"initial/gsm8k/sampled-seed{s}/sample"] for s in (7, 8)]
    assert [s.config["seed"] for s in samples] == [7, 8]
    votes = found["initial/gsm8k/votes"]
    assert votes.config["seeds"] == [7, 8]
    assert [votes.inputs[f"verdicts{i}"].inputs["samples"] for i in (1, 2)] == samples
    one, default = (stages(plan_of("evaluation.samples=4", "seed=3", *x)) for x in (["evaluation.seeds=[3]"], []))
    assert one["initial/gsm8k/sampled/sample"].key == default["initial/gsm8k/sampled/sample"].key


@pytest.mark.parametrize(("setting", "message"), [
    (["evaluation.seeds=[1]"], "set `samples` too"), (["evaluation.seeds=[1, 1]", "evaluation.samples=2"], "must differ"),
    (["evaluation.prompt=fewshot"], "few_shot"), (["reward_model.run=x"], "set `reward_model.kind`"),
])  # fmt: skip
def test_settings_that_do_not_fit(setting: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        plan_of(*setting)


# --- another run's reward model -------------------------------------------------------------------

TRAIN = "{source: gsm8k, split: train, limit: 99}"
WANTED = ("evaluation.samples=4", "reward_model.kind=outcome")


@pytest.fixture
def other_run(home: Path, tmp_path: Path) -> Path:
    return write_reward_run(tmp_path / "other", home, "f" * 32)


def test_another_runs_reward_model_judges_the_sampled_answers(other_run: Path):
    plan = plan_of(*WANTED, f"reward_model.run={other_run}")
    found = stages(plan)
    score = found["initial/gsm8k/sampled/reward_score"]
    assert score.inputs["reward_model"].key == "b" * 32
    assert score.config["training"] == {"adapter": "lora", "lora": {"r": 5}}, "as it was trained, whatever the recipe says"
    assert "previous" not in found["initial/gsm8k/sampled/reward_eval"].inputs
    assert not [s for s in plan.stages if s.kind in ("reward_data", "reward_train")]


def test_in_a_training_run_it_serves_from_the_start(other_run: Path):
    plan = plan_of(*WANTED, f"reward_model.run={other_run}", "iterations.count=1", "selection.prefer=reward")
    assert not [s for s in plan.stages if s.kind in ("reward_data", "reward_train")]
    found = stages(plan)
    assert len(found) == len(plan.stages), "every label once"
    assert found["iteration1/select"].inputs["scores"].inputs["reward_model"].key == "b" * 32
    assert "iteration1/reward_eval" not in found, "nobody knows what the other run held out"
    assert found["iteration1/gsm8k/sampled/reward_eval"].inputs["previous"] is found["initial/gsm8k/sampled/reward_eval"]


def test_a_phase_may_take_another_runs_reward_model(other_run: Path):
    phases = f"[{{name: a}}, {{name: b, reward_model: {{kind: outcome, run: {other_run}}}}}, {{name: c}}]"
    plan = plan_of("evaluation.samples=4", f"phases={phases}", "iterations.count=1", f"data.train={TRAIN}")
    found = stages(plan)
    assert len(found) == len(plan.stages), "every label once"
    judged = [s.label.partition("/")[0] for s in plan.stages if s.kind == "reward_eval" and "math500" in s.label]
    assert judged == ["a", "b"], "the model that the phase began with, and its own"
    assert found["b/gsm8k/sampled/reward_eval"].inputs["previous"] is found["a/gsm8k/sampled/reward_eval"]
    whole = ("evaluation.samples=4", "reward_model.kind=outcome", f"reward_model.run={other_run}", "iterations.count=1")
    plan = plan_of(*whole, "phases=[{name: a}, {name: b, reward_model: {run: null}}]")
    trained = [s.label for s in plan.stages if s.kind == "reward_train"]
    assert trained == ["b/reward_train"], "a phase without `run` trains its own"


def test_examples_for_validation_problems_come_from_their_source():
    held = "evaluation.benchmarks=[{name: held, source: {source: validation}}]"
    gsm8k = ("data.train={source: gsm8k, split: train, limit: 99}", "data.validation=9")
    found = stages(plan_of(held, *gsm8k, "evaluation.prompt=few_shot"))
    assert found["shots/held"].config["count"] == 8
    assert found["shots/held"].inputs["problems"].kind == "validation"
    assert found["problems/held-training"].config["split"] == "train"


def test_reward_models_that_cannot_be_used(other_run: Path, home: Path, tmp_path: Path):
    cases = [
        (tmp_path / "none", InputError, "not the folder of a run"),
        (write_plan(tmp_path / "without", home, []), InputError, "trains no reward model"),
        (write_plan(tmp_path / "far", tmp_path, [{"kind": "reward_train", "key": "b" * 32}]), InputError, "set RATCHET_HOME"),
        (write_plan(tmp_path / "begun", home, [{"kind": "reward_train", "key": "c" * 32}]), InputError, "ratchet resume"),
    ]
    for folder, error, message in cases:
        with pytest.raises(error, match=message):
            plan_of(*WANTED, f"reward_model.run={folder}")
    with pytest.raises(ConfigError, match=r"set reward_model\.kind=outcome"):
        plan_of("evaluation.samples=4", "reward_model.kind=process", f"reward_model.run={other_run}")
    manifest = home / "store" / "reward_train" / ("b" * 32) / "manifest.json"
    manifest.write_text(manifest.read_text().replace("f" * 32, "e" * 32))
    with pytest.raises(ConfigError, match="another base model"):
        plan_of(*WANTED, f"reward_model.run={other_run}")


def test_an_evaluation_takes_the_reward_model_of_the_last_phase_that_has_one(tmp_path: Path):
    searched = "rollouts.allocation=sequential"  # of the whole run: only the phase that trains the model must not search
    process = "{name: a, rollouts: {allocation: fixed}, reward_model: {kind: process}}"
    recipe = load_recipe("demo", [f"phases=[{process}, {{name: b}}]", searched])
    folder = RunFolder.create(tmp_path / "run", recipe).path
    found = evaluation_recipe(str(folder), "gsm8k", None, 0, []).reward_model
    assert (found.kind, found.run) == ("process", str(folder))
