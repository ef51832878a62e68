from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import load_recipe
from configs.schema import ModelSection
from pipelines.models import ResolvedModel, resolve_model
from pipelines.plan import Builder, Plan, build, resolve
from pipelines.plan_pairs import values
from pipelines.stage import Stage, kinds

MODEL = ResolvedModel("m", Path("/nowhere"), "f" * 32)
TWO = ("iterations.count=2", "model.dtype=float32", "sampling.engine=transformers")


def plan_of(*overrides: str, model: ResolvedModel = MODEL) -> Plan:
    return build(resolve(load_recipe("demo", [*TWO, *overrides])), model)


def keys(plan: Plan) -> dict[str, str]:
    return {s.label: s.key for s in plan.stages}


def changed(*overrides: str) -> set[str]:
    """Labels whose key an override changes."""
    before, after = keys(plan_of()), keys(plan_of(*overrides))
    assert before.keys() == after.keys()
    return {label for label in before if before[label] != after[label]}


def stage(plan: Plan, label: str) -> Stage:
    return next(s for s in plan.stages if s.label == label)


def test_the_stages_come_in_order_of_their_inputs():
    plan = plan_of()
    seen: set[str] = set()
    for s in plan.stages:
        assert {i.key for i in s.inputs.values()} <= seen
        seen.add(s.key)
    assert [s.label for s in plan.stages][:6] == [
        "problems/word-problems", "initial/word-problems/greedy/sample", "initial/word-problems/greedy/verify",
        "initial/word-problems/greedy", "problems/train", "problems/clean",
    ]
    assert [s.label for s in plan.trained] == ["iteration1/train", "iteration2/train"]


def test_keys_are_the_same_in_another_process():
    code = """
import sys
from pathlib import Path
from configs.load import load_recipe
from pipelines.models import ResolvedModel
from pipelines.plan import build, resolve
plan = build(resolve(load_recipe("demo", sys.argv[1:])), ResolvedModel("m", Path("/else"), "f" * 32))
print(*(f"{s.label} {s.key}" for s in plan.stages), sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", code, *TWO], capture_output=True, text=True, check=True)
    assert dict(line.split(" ") for line in done.stdout.splitlines()) == keys(plan_of())


def test_the_temperature_changes_sampling_and_what_follows_only():
    labels = changed("sampling.temperature=0.9")
    assert {"iteration1/sample", "iteration1/verify", "iteration1/select", "iteration1/train"} <= labels
    assert all(label.startswith(("iteration1/", "iteration2/")) for label in labels)
    assert {label for label in keys(plan_of()) if label.startswith("iteration")} == labels


@pytest.mark.parametrize(
    "overrides",
    [
        ("executor.kind=ray", "executor.workers=4", "executor.threads=2", "executor.attempts=1"),
        ("sampling.gpu_memory=0.3",), ("training.checkpoint_every=1",), ("name=other",), ("model.name=hub/other",),
    ],
)
def test_how_and_where_it_runs_changes_no_key(overrides: tuple[str, ...]):
    assert changed(*overrides) == set()


@pytest.mark.parametrize(
    ("override", "first", "untouched"),
    [
        ("rewards.mode=lenient", "iteration1/verify", "iteration1/sample"),
        ("selection.max_per_problem=1", "iteration1/select", "iteration1/verify"),
        ("training.epochs=1", "iteration1/train", "iteration1/select"),
        ("evaluation.mode=strict", "initial/word-problems/greedy/verify", "iteration2/train"),
        ("data.lcs_ratio=0.5", "problems/clean", "initial/word-problems/greedy"),
        ("data.train.seed=8", "problems/train", "problems/word-problems"),
        ("data.prompt.prefill='A: '", "initial/word-problems/greedy/sample", "problems/clean"),
        ("model.dtype=bfloat16", "initial/word-problems/greedy/sample", "problems/clean"),
        ("seed=1", "iteration1/sample", "initial/word-problems/greedy/verify"),
    ],
)
def test_a_setting_changes_the_stage_that_reads_it_and_none_before(override: str, first: str, untouched: str):
    labels = changed(override)
    assert first in labels
    assert untouched not in labels


def test_another_model_changes_everything_but_the_problems():
    before, after = keys(plan_of()), keys(plan_of(model=ResolvedModel("m", MODEL.path, "0" * 32)))
    assert {label for label in before if before[label] == after[label]} == {
        "problems/word-problems", "problems/train", "problems/clean"
    }


def test_the_schemes_differ_in_what_training_gets():
    star, rest, rft = (plan_of(f"iterations.scheme={s}") for s in ("star", "rest_em", "iterative_rft"))
    for plan in (star, rest):
        assert "model" not in stage(plan, "iteration2/train").inputs, "from the initial weights"
    assert stage(rft, "iteration2/train").inputs["model"].label == "iteration1/train"
    assert "model" not in stage(rft, "iteration1/train").inputs
    limits = [stage(p, "iteration1/select").config["max_per_problem"] for p in (star, rest, rft)]
    assert limits == [1, 4, 4]
    for plan in (star, rest, rft):
        assert stage(plan, "iteration2/sample").inputs["model"].label == "iteration1/train", "samples of the latest"
        evaluated = stage(plan, "iteration2/word-problems/greedy/sample")
        assert evaluated.inputs["model"].label == "iteration2/train"


def test_with_human_solutions_alone_nothing_is_sampled_to_train_on():
    human = ("selection.max_per_problem=0", "selection.include_human=true")
    plan = plan_of(*human)
    assert [s.label for s in plan.stages if s.label.startswith("iteration1/")][:2] == ["iteration1/select", "iteration1/train"]
    assert not [s for s in plan.stages if s.kind in ("sample", "verify") and "word-problems" not in s.label]
    slices = [stage(plan, f"iteration{i}/select") for i in (1, 2)]
    assert all(list(s.inputs) == ["problems"] for s in slices)
    assert [(s.config["offset"], s.config["count"]) for s in slices] == [(0, 256), (256, 256)]
    assert stage(plan, "iteration2/train").inputs["model"].label == "iteration1/train"
    star = plan_of(*human, "iterations.scheme=star", "data.fresh_per_iteration=false")
    assert stage(star, "iteration1/select").config["max_per_problem"] == 0
    assert star.trained[0] is star.trained[1], "the same problems from the same weights"
    measured = plan_of(*human, "exploration.measure=true")
    assert "samples" in stage(measured, "iteration1/select").inputs, "something else wants the samples"


def test_step_rollouts_change_the_key_of_online_training_only_where_they_are_used():
    online = ("training.method=reinforce", "data.fresh_per_iteration=false", "sampling.shots=[]")
    train = stage(plan_of(*online), "iteration1/train")
    assert "step_rollouts" not in train.config["training"]["rl"]
    other = stage(plan_of(*online, "training.rl.step_rollouts=4"), "iteration1/train")
    assert other.config["training"]["rl"]["step_rollouts"] == 4 and other.key != train.key


def test_worked_examples_are_shown_while_sampling_early_iterations_only():
    plan = plan_of("sampling.shots_iterations=1")
    assert len(stage(plan, "iteration1/sample").config["shots"]) == 4
    assert stage(plan, "iteration2/sample").config["shots"] == []
    assert stage(plan, "initial/word-problems/greedy/sample").config["shots"] == []


def test_fresh_slices_are_disjoint_and_within_the_limit():
    plan = plan_of("data.train.limit=101", "iterations.count=3")
    slices = [stage(plan, f"iteration{i}/sample").config for i in (1, 2, 3)]
    rows = [range(c["offset"], c["offset"] + c["count"]) for c in slices]
    assert [len(r) for r in rows] == [33, 33, 33]
    assert len({i for r in rows for i in r}) == 99
    assert max(max(r) for r in rows) < 101
    every = plan_of("data.fresh_per_iteration=false")
    assert stage(every, "iteration2/sample").config["count"] is None


def test_evaluation_is_greedy_with_one_answer_and_sampled_on_request():
    plan = plan_of("evaluation.samples=3")
    greedy = stage(plan, "initial/word-problems/greedy/sample").config
    sampled = stage(plan, "initial/word-problems/sampled/sample").config
    assert (greedy["temperature"], greedy["n"], greedy["max_tokens"]) == (0.0, 1, 96)
    assert (sampled["temperature"], sampled["n"]) == (0.7, 3)


def test_nothing_is_trained_without_iterations():
    plan = plan_of("iterations.count=0", "data.fresh_per_iteration=false")
    assert plan.trained == []
    assert {s.label.split("/")[0] for s in plan.stages} == {"problems", "initial"}


def test_a_model_moved_elsewhere_keeps_its_keys(tiny_model: Path, tmp_path: Path, home: Path):
    moved = tmp_path / "moved"
    shutil.copytree(tiny_model, moved)
    here, there = (resolve_model(ModelSection(name=str(p))) for p in (tiny_model, moved))
    assert keys(plan_of(model=here)) == keys(plan_of(model=there))
    (moved / "generation_config.json").write_text("{}")
    assert resolve_model(ModelSection(name=str(moved))).fingerprint != here.fingerprint


def test_own_problems_are_keyed_by_content_and_name_not_by_place(tmp_path: Path):
    def key(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        source = f"data.train={{source: jsonl, limit: 8, path: {path}}}"
        return keys(plan_of(source))["problems/train"]

    line = '{"question": "1+1?", "answer": "2"}\n'
    first = key("a/own.jsonl", line)
    assert key("b/own.jsonl", line) == first
    assert key("a/own.jsonl", line.replace("2", "3")) != first
    assert key("a/other.jsonl", line) != first, "row ids begin with the name of the file"


def test_a_missing_file_of_problems_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"problems/train: .*none\.jsonl does not exist"):
        plan_of(f"data.train={{source: jsonl, limit: 8, path: {tmp_path / 'none.jsonl'}}}")


def test_resolving_settles_what_depends_on_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    source = "data={train: {source: jsonl, limit: 8, path: own.jsonl}}"
    resolved = resolve(load_recipe("demo", [source, "model.name=model"]))
    assert resolved.sampling.engine in ("transformers", "vllm")
    assert resolved.model.dtype in ("float32", "bfloat16")
    assert isinstance(resolved.executor.threads, int)
    assert resolved.data.train.path == str(tmp_path / "own.jsonl"), "a resume may come from another folder"
    assert resolved.model.name == str(tmp_path / "model")
    assert resolve(resolved) == resolved


BSTAR = ("iterations.scheme=bstar", "training.steps=10")


def test_the_sampling_of_bstar_has_its_temperature_from_the_balance():
    plan = plan_of(*BSTAR)
    sample = stage(plan, "iteration1/sample")
    assert sample.config["temperature"] is None
    assert sample.inputs["choice"].label == "iteration1/sweep4/balance"
    assert stage(plan, "iteration1/sweep2").inputs["before"].label == "iteration1/sweep1/balance"
    assert set(stage(plan, "iteration1/sweep3/balance").inputs) == {
        "problems", "before", *(f"{kind}{i}" for kind in ("samples", "verdicts") for i in (1, 2, 3))
    }
    assert stage(plan, "iteration1/select").kind == "select_balanced"


@pytest.mark.parametrize(
    ("override", "first", "untouched"),
    [
        ("balance.n_star=8", "iteration1/sweep1/balance", "iteration1/sweep1"),
        ("balance.temperatures=[0.5, 1.0]", "iteration1/sweep1", "problems/clean"),
        ("balance.risk=0.1", "iteration1/sweep1/balance", "iteration1/sweep1/verify"),
    ],
)
def test_a_setting_of_the_balance_changes_what_follows_and_nothing_before(override: str, first: str, untouched: str):
    before, after = keys(plan_of(*BSTAR)), keys(plan_of(*BSTAR, override))
    labels = {label for label in before if before[label] != after[label]}
    assert {first, "iteration1/sample", "iteration1/train"} <= labels
    assert untouched not in labels


@pytest.mark.parametrize("kind", ["outcome", "process"])
def test_a_reward_model_is_there_before_the_sweep_that_it_scores(kind: str):
    measured = ("exploration.measure=true", "evaluation.samples=4")
    scored = (*BSTAR, *measured, "balance.scorer=reward_model", f"reward_model.kind={kind}")
    plan = plan_of(*scored)
    scores = stage(plan, "iteration1/sweep2/balance").inputs["scores2"]
    model = stage(plan, "iteration1/reward_train")
    assert scores.kind == "reward_score" and scores.inputs["reward_model"] is model
    first = model.inputs["groups"].inputs["samples0"]
    assert first.label == "iteration1/reward/sample" and first.config["temperature"] == 0.7 and "choice" not in first.inputs
    assert stage(plan, "iteration1/select").inputs["scores"].label == "iteration1/reward_score"
    assert stage(plan, "iteration1/select").config["aggregation"] == "minimum"
    labels = [s.label for s in plan.stages]
    assert len(set(labels)) == len(labels) and "iteration2/reward/sample" not in labels
    assert stage(plan, "initial/word-problems/sampled/exploration").inputs["scores"].inputs["reward_model"] is model
    again = plan_of(*scored, "reward_model.retrain=true")
    assert set(stage(again, "iteration2/reward_data").inputs) >= {"samples0", "samples1", "verdicts1"}


def test_rollouts_at_a_temperature_that_is_not_known_yet_are_refused():
    plan = plan_of(*BSTAR)
    b = Builder(plan.recipe, MODEL, [], None)
    samples, problems = stage(plan, "iteration1/sample"), stage(plan, "problems/clean")
    with pytest.raises(ConfigError, match="temperature is chosen while the run goes on"):
        values(b, "iteration1", problems, samples, stage(plan, "iteration1/verify"), plan.recipe.rollouts)


def test_settings_that_say_nothing_are_no_part_of_a_key():
    """Artefacts keep their keys when the schema gets new settings."""
    plain = stage(plan_of(), "iteration1/train")
    assert not {"steps", "infinite", "rl", "compile"} & set(plain.config["training"])
    assert not {"label", "min_reward"} & set(stage(plan_of(), "iteration1/select").config)
    assert keys(plan_of("training.infinite.constant=0.3", "training.rl.steps=7")) == keys(plan_of())
    assert "iteration1/train" in changed("training.steps=7")
    assert "iteration1/train" in changed("training.schedule=infinite")
    assert "iteration1/train" in changed("training.compile=true")


def test_the_fixed_temperature_is_none_of_bstars_business():
    before, after = keys(plan_of(*BSTAR)), keys(plan_of(*BSTAR, "sampling.temperature=0.3"))
    assert before == after


def test_online_schemes_go_on_from_the_last_iteration_with_one_schedule():
    plan = plan_of("iterations.scheme=online_rft", "training.steps=10")
    first, second = (stage(plan, f"iteration{i}/train") for i in (1, 2))
    assert (first.config["online"], second.config["online"]) == ({"total": 20, "first": True}, {"total": 20, "first": False})
    assert second.inputs["model"] is first and "model" not in first.inputs
    assert stage(plan, "iteration1/select").kind == "select"
    assert "online" not in stage(plan_of(), "iteration1/train").config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("iterations.scheme=bstar",), "set `training.steps`"),
        (("iterations.scheme=online_rft", "training.schedule=constant"), "`training.warmup_ratio: 0`"),
        (("balance.temperatures=[1.0, 0.5]",), "`temperatures` must ascend"),
        (("balance.rounds=[0.5]",), "the last of `rounds` must be 1"),
        (("balance.n_star=auto",), "set `target`"),
        (("training={method: dpo, steps: 3}", "pairs.kind=rise"), "`steps` belongs to `method: sft`"),
        (("training={method: remax, schedule: infinite}", "sampling.shots=[]"), "does not exist for method `remax`"),
        (("training={method: remax, steps: 3}", "sampling.shots=[]"), "`rl.steps` for online methods"),
        (("balance.scorer=reward_model",), "needs `reward_model.kind`"),
        ((*BSTAR, "selection.advantage_weights=0.5"), "selects by its own reward"),
        ((*BSTAR, "selection.prefer=reward", "reward_model.kind=outcome"), "selects by its own reward"),
    ],
)
def test_settings_of_online_schemes_that_do_not_fit_are_refused(overrides: tuple[str, ...], message: str):
    with pytest.raises(ConfigError, match=message):
        load_recipe("demo", list(overrides))


def test_a_constant_rate_needs_no_plan():
    plan = plan_of("iterations.scheme=online_rft", "training.schedule=constant", "training.warmup_ratio=0")
    assert stage(plan, "iteration2/train").config["online"]["total"] == 0


def test_metrics_of_exploration_are_measured_where_asked_for():
    assert not [s for s in plan_of().stages if s.kind == "exploration"]
    plan = plan_of("exploration.measure=true", "evaluation.samples=4", "balance.scorer=confidence")
    labels = [s.label for s in plan.stages if s.kind == "exploration"]
    assert labels == [
        "initial/word-problems/sampled/exploration", "iteration1/exploration", "iteration1/word-problems/sampled/exploration",
        "iteration2/exploration", "iteration2/word-problems/sampled/exploration",
    ]
    assert set(stage(plan, "iteration1/exploration").inputs) == {"problems", "samples", "verdicts", "examples", "scores"}


def test_all_kinds_of_stages_are_known_also_when_one_was_imported_before() -> None:
    code = "import pipelines.stages.train; from pipelines.stage import kinds; print(*sorted(kinds()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found == sorted(kinds()) and {"problems", "sample", "train"} <= set(found)
