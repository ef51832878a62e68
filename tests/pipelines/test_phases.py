"""Runs of several phases: their stages, their weights, what they are measured on, and one real run to its end."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from configs.errors import InputError
from configs.load import load_recipe
from configs.rows import Problem
from configs.schema import ModelSection
from pipelines.cli import app
from pipelines.compare import measured
from pipelines.contamination import check_run
from pipelines.models import ResolvedModel, resolve_model
from pipelines.plan import Plan, build, resolve
from pipelines.runfolder import RunFolder
from pipelines.stage import Stage
from pipelines.store import Artefact, Store, read_rows
from tests.conftest import TinyRun

MODEL = ResolvedModel("m", Path("/nowhere"), "f" * 32)


def _ratchet(home: Path, *arguments: Any, code: int = 0) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATCHET_HOME", str(home))
        result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output + (str(result.exception) if code else "")


def stages_of(run: TinyRun) -> list[dict[str, Any]]:
    return RunFolder(run.folder).plan()["stages"]


def artefact(run: TinyRun, label: str) -> Artefact:
    stage = next(s for s in stages_of(run) if s["label"] == label)
    return Store(run.store).artefact(stage["kind"], stage["key"])


def plan_of(run: TinyRun, *overrides: str) -> Plan:
    return build(resolve(load_recipe(str(run.recipe), overrides)), MODEL)


def stage(plan: Plan, label: str) -> Stage:
    return next(s for s in plan.stages if s.label == label)


def test_every_phase_goes_on_from_the_weights_of_the_one_before(phase_run: TinyRun) -> None:
    names = ["sft", "rft1", "rft2", "dpo", "remax"]
    trained = [artefact(phase_run, f"{name}/train") for name in names]
    starts = [t.manifest()["parents"].get("model", {}).get("key") for t in trained]
    assert starts == [None, *(t.key for t in trained[:-1])]
    reference = artefact(phase_run, "dpo/reference").manifest()["parents"]["model"]["key"]
    assert reference == trained[2].key, "pairs are compared with the model that the phase began with"
    weights = {(t.model / "adapter_model.safetensors").read_bytes() for t in trained}
    assert len(weights) == len(names), "each phase has learned something"


def test_human_solutions_are_learned_without_sampling(phase_run: TinyRun) -> None:
    metrics = artefact(phase_run, "sft/select").manifest()["metrics"]
    assert (metrics["examples"], metrics["human"], metrics["samples"]) == (12, 12, 0)
    assert not [s for s in stages_of(phase_run) if s["label"] == "sft/sample"]
    assert "sft/select: 12 examples, the solutions that came with 12 problems" in phase_run.output


def test_validation_problems_are_measured_and_never_trained_on(phase_run: TinyRun) -> None:
    held: list[Problem] = read_rows(artefact(phase_run, "problems/validation"), Problem)
    clean: list[Problem] = read_rows(artefact(phase_run, "problems/clean"), Problem)
    every: list[Problem] = read_rows(artefact(phase_run, "problems/train"), Problem)
    assert (len(held), len(clean), len(every)) == (4, 12, 16)
    assert {p.id for p in held} | {p.id for p in clean} == {p.id for p in every}
    for s in stages_of(phase_run):
        if s["kind"] in ("sample", "select", "train"):
            measured = "/held/" in s["label"]
            problems = s["inputs"].get("problems", "")
            assert (problems == artefact(phase_run, "problems/validation").key) is measured, s["label"]


def test_sets_for_the_end_are_measured_after_all_training(phase_run: TinyRun) -> None:
    labels = [s["label"] for s in stages_of(phase_run)]
    words = [i for i, label in enumerate(labels) if "/words/" in label]
    assert {labels[i].split("/")[0] for i in words} == {"initial", "remax"}
    assert min(words) > labels.index("remax/train")
    asked = [labels[i] for i in words if labels[i].endswith("/sample")]
    assert len(asked) == 2
    plan = plan_of(phase_run, "evaluation.initial=false")
    assert {s.label.split("/")[0] for s in plan.stages if "/words/" in s.label} == {"remax"}


def test_all_models_are_measured_alike_whatever_their_phase_samples(phase_run: TinyRun) -> None:
    plan = plan_of(phase_run)
    lengths = {s.config["max_tokens"] for s in plan.stages if s.label.endswith("/greedy/sample")}
    assert lengths == {32}
    assert stage(plan, "remax/train").config["sampling"]["max_tokens"] == 16


def test_a_setting_of_one_phase_leaves_the_phases_before_it_as_they_are(phase_run: TinyRun) -> None:
    before, after = ({s.label: s.key for s in plan_of(phase_run, *o).stages} for o in ((), ("phases.dpo.training.epochs=2",)))
    changed = {label for label in before if before[label] != after[label]}
    assert {"dpo/train", "remax/train", "dpo/held/greedy", "remax/words/greedy"} <= changed
    assert all(label.startswith(("dpo/", "remax/")) for label in changed)
    assert "dpo/reference" not in changed


def test_schemes_that_go_back_to_the_start_go_back_to_that_of_the_phase(phase_run: TinyRun) -> None:
    plan = plan_of(phase_run, "phases.rft.iterations.scheme=rest_em")
    for label in ("rft1/train", "rft2/train"):
        assert stage(plan, label).inputs["model"].label == "sft/train"
    assert stage(plan, "rft2/sample").inputs["model"].label == "rft1/train"
    assert stage(plan, "dpo/sample").inputs["model"].label == "rft2/train"


def test_rollouts_of_another_phase_are_used_again_only_when_drawn_alike(phase_run: TinyRun) -> None:
    def earlier(*overrides: str) -> list[str]:
        pairs = "{kind: per_step, per_step: {variant: pit}}"
        more = f"{{name: again, pairs: {pairs}, training: {{method: dpo}}, sampling: {{temperature: 0.6}}}}"
        data = [f"phases=[{{name: first, pairs: {pairs}, training: {{method: dpo}}, iterations: {{count: 2}}}}, {more}]"]
        rollouts = stage(plan_of(phase_run, *data, *overrides), "again/rollouts")
        return sorted(name for name in rollouts.inputs if name.startswith("earlier"))

    assert earlier("rollouts.policy=latest") == [], "another policy"
    plan = plan_of(
        phase_run, "phases=[{name: a, pairs: {kind: per_step}, training: {method: dpo}, iterations: {count: 2}}]"
    )
    assert "earlier0" in stage(plan, "a2/rollouts").inputs, "the same policy, the phase's start"


def test_a_phase_may_have_problems_of_its_own(phase_run: TinyRun) -> None:
    plan = plan_of(phase_run, "phases.rft.data={train: {limit: 10}}")
    labels = [s.label for s in plan.stages]
    assert {"problems/train", "problems/rft", "problems/clean", "problems/rft-clean"} <= set(labels)
    assert stage(plan, "rft1/sample").inputs["problems"].label == "problems/rft-clean"
    assert stage(plan, "dpo/sample").inputs["problems"].label == "problems/clean"
    cleaned = stage(plan, "problems/rft-clean").inputs
    assert {s.label for s in cleaned.values()} == {"problems/rft", "problems/validation", "problems/words"}


def test_validation_problems_are_kept_out_even_when_nothing_is_measured_on_them(phase_run: TinyRun) -> None:
    plan = plan_of(phase_run, "evaluation.benchmarks=[]")
    assert stage(plan, "problems/clean").inputs["validation"].label == "problems/validation"


def test_models_of_a_run_are_found_by_number_and_by_name(phase_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_HOME", str(phase_run.home))
    found = {n: resolve_model(ModelSection(name=f"{phase_run.folder}@{n}")) for n in ("1", "sft", "3", "rft2", "5")}
    assert found["1"].trained == found["sft"].trained == artefact(phase_run, "sft/train").key
    assert found["3"].trained == found["rft2"].trained == artefact(phase_run, "rft2/train").key
    assert [found[n].label for n in ("1", "rft2", "5")] == ["run@1", "run@rft2", "run@5"], "named after the run"
    assert measured(f"{phase_run.folder}@3").scores == measured(f"{phase_run.folder}@rft2").scores
    with pytest.raises(InputError, match=r"has evaluated iterations 0, 1 \(sft\), .*, 5 \(remax\), not dpi"):
        measured(f"{phase_run.folder}@dpi")
    message = _ratchet(phase_run.home, "plan", "demo", f"model.name={phase_run.folder}@dpi", code=1)
    assert "has iterations 1 to 5 (sft, rft1, rft2, dpo, remax), not `dpi`" in message


def test_any_model_of_the_run_can_be_evaluated(phase_run: TinyRun, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(phase_run.home, home)
    own = load_recipe(str(phase_run.recipe)).data.train.path
    benchmark = f"evaluation.benchmarks=[{{name: own, source: {{source: jsonl, path: {own}, limit: 3}}}}]"
    monkey = ("eval", phase_run.folder, "--iteration", "2", benchmark, "--run-dir", tmp_path / "eval")
    message = _ratchet(home, *monkey, code=1)
    assert "keeps its artefacts in" in message, "a copied store is not the run's"
    message = _ratchet(phase_run.home, *monkey)
    assert "\nrun@2        own " in message
    message = _ratchet(phase_run.home, "eval", phase_run.folder, "--iteration", "6", code=1)
    assert "has iterations 0 to 5, not 6" in message


def test_rows_of_all_phases_are_checked_against_every_evaluation_set(phase_run: TinyRun) -> None:
    found = check_run(phase_run.folder, None)
    assert set(found["rows"]) == {"sft/select", "rft1/select", "rft2/select", "dpo/pairs", "problems/clean"}
    assert {name: parts["question"]["checked"] for name, parts in found["benchmarks"].items()} == {"held": 4, "words": 8}
    assert not found["benchmarks"]["held"]["question"]["contained"], "what is held out is not trained on"


def test_the_run_is_reported_by_phase(phase_run: TinyRun) -> None:
    table = phase_run.output.partition("gain over initial")[2]
    rows = [line.split()[:2] for line in table.splitlines() if "greedy" in line]
    assert rows == [*([n, "held"] for n in ("initial", "sft", "rft1", "rft2", "dpo", "remax")),
                    ["initial", "words"], ["remax", "words"]]  # fmt: skip
    assert "44 of 44 stages done" in _ratchet(phase_run.home, "status", phase_run.folder)
