"""Finished runs of the tiny model that several files of tests read. Read-only."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from configs.load import validate
from configs.rows import Sample, VerdictRow
from configs.schema import ModelSection
from pipelines.cli import app
from pipelines.engines import close_engine
from pipelines.files import read_json, write_json
from pipelines.models import resolve_model
from pipelines.plan import Plan
from pipelines.progress import Reporter
from pipelines.runfolder import RunFolder
from pipelines.runner import run_plan
from pipelines.stage import Stage
from tests.conftest import TinyRun, run_recipe, write_tiny_recipe
from tests.pipelines.phase_world import write_phase_recipe
from tests.pipelines.rise_world import PROMPT
from tests.pipelines.step_world import StepWorld


@pytest.fixture(scope="session")
def lora_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Two iterations of a LoRA adapter on solutions that always say 5, measured greedily and by samples on problems whose
    answer is 5: the accuracy rises, because the words of the questions differ: it must be the answer that is learned."""
    root = tmp_path_factory.mktemp("lora")
    words = list(itertools.permutations(("eggs", "hens", "jars", "cups", "hats", "bags", "pens", "keys"), 2))[::5]
    for name, pairs in (("own", words), ("held", [("cows", "pigs")] * 12)):
        rows = [{"question": f"{i} {a}, {i * i} {b}?", "answer": 5, "solution": "#### 5"} for i, (a, b) in enumerate(pairs)]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    recipe = write_tiny_recipe(root / "lora.yaml", tiny_model, [
        f"data.train={{source: jsonl, path: {root / 'own.jsonl'}}}", "iterations.count=2", "evaluation.samples=2",
        f"evaluation.benchmarks=[{{name: held, source: {{source: jsonl, path: {root / 'held.jsonl'}}}}}]",
        "training={adapter: lora, lora: {r: 4, alpha: 8}, epochs: 100, batch_size: 12, learning_rate: 0.01, schedule: cosine}",
    ])  # fmt: skip
    return TinyRun(recipe, root / "run", root / "home", run_recipe(recipe, root))


@pytest.fixture(scope="session")
def pairs_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A run whose samples are given (the tiny model solves nothing in steps): they train a reward model and are scored by it,
    and their steps are rolled out, paired and learned from by DPO. Every stage after the samples is the real one."""
    root = tmp_path_factory.mktemp("pairs")
    world = StepWorld(root / "home" / "store", tiny_model)
    _measured(world)
    recipe = validate({
        "name": "pairs", "model": {"name": str(tiny_model), "dtype": "float32"}, "sampling": {"engine": "transformers"},
        "data": {"train": {"source": "procedural", "limit": 4}}, "pairs": {"kind": "per_step"},
        "reward_model": {"kind": "outcome"},
        "training": {"method": "dpo", "adapter": "lora", "lora": {"r": 2}, "epochs": 1},
    }, "the recipe")  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATCHET_HOME", str(root / "home"))
        model = resolve_model(ModelSection(name=str(tiny_model)))
        rollouts, steps = (replace(s, label=f"iteration1/{s.kind}") for s in world.value_stages(n=4, best_of=2))
        pairs = replace(world.step_pairs(rollouts, steps, "both"), label="iteration1/pairs")
        config: dict[str, Any] = {"training": recipe.training.model_dump(), "model": "m", "dtype": "float32", "seed": 3}
        paths, hints = {"base": str(tiny_model)}, {"train_threads": 1, "checkpoint_every": 100}
        reference = Stage("reference", "iteration1/reference", config, {"pairs": pairs}, paths, hints)
        train = Stage("train", "iteration1/train", config, {"pairs": pairs, "reference": reference}, paths, hints)
        problems = replace(world.inputs["problems"], label="problems/train")
        samples = replace(world.inputs["samples"], label="iteration1/sample", inputs={"problems": problems})
        verdicts = replace(
            world.inputs["verdicts"], label="iteration1/verify", inputs={"problems": problems, "samples": samples}
        )
        rewards = _reward_stages(problems, samples, verdicts, config, paths, hints)
        plan = Plan(recipe, model, [problems, samples, verdicts, *rewards, rollouts, steps, pairs, reference, train], [train])
        folder = RunFolder.create(root / "run", recipe)
        folder.write_plan(plan, world.store)
        run_plan(plan, world.store, folder, Reporter())
    close_engine()
    return TinyRun(root / "run" / "recipe.yaml", root / "run", root / "home", "")


@pytest.fixture(scope="session")
def phase_run(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The finished run of four phases. Read-only."""
    root = tmp_path_factory.mktemp("phases")
    recipe = write_phase_recipe(root / "phases.yaml", tiny_run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATCHET_HOME", str(root / "home"))
        result = CliRunner().invoke(app, ["run", str(recipe), "--run-dir", str(root / "run")])
    assert result.exit_code == 0, (result.output, result.exception)
    return TinyRun(recipe, root / "run", root / "home", result.output)


def _reward_stages(
    problems: Stage, samples: Stage, verdicts: Stage, config: dict[str, Any], paths: dict[str, str], hints: dict[str, Any]
) -> list[Stage]:
    """Groups of the samples, an outcome reward model on them, and its scores of the samples."""
    asked = {
        "kind": "outcome", "samples": 4, "similarity": 1.0, "truncated_negatives": True, "balance_difficulty": False,
        "min_groups": 1, "validation_fraction": 0.0, "prompt": PROMPT, "model": "m", "seed": 3,
    }
    inputs = {"problems": problems, "samples0": samples, "verdicts0": verdicts}
    groups = Stage("reward_data", "iteration1/reward_data", asked, inputs, paths)
    training = config["training"] | {"method": "reward_model"}
    settings = {**config, "training": training, "reward_model": {"kind": "outcome", "loss": "listwise", "labels": "soft"}}
    model = Stage("reward_train", "iteration1/reward_train", settings, {"groups": groups}, paths, hints)
    asked = {"training": training, "aggregation": "minimum", "prompt": PROMPT, "model": "m", "dtype": "float32"}
    inputs = {"samples": samples, "problems": problems, "reward_model": model}
    return [groups, model, Stage("reward_score", "iteration1/reward_score", asked, inputs, paths, hints)]


def _measured(world: StepWorld) -> None:
    """Give the samples and verdicts of a world the metrics that their stages would have written."""
    samples: list[Sample] = world.rows(world.store.artefact("sample", world.inputs["samples"].key), Sample)
    verdicts: list[VerdictRow] = world.rows(world.store.artefact("verify", world.inputs["verdicts"].key), VerdictRow)
    right = sum(v.outcome == "correct" for v in verdicts) / len(verdicts)
    metrics = {"sample": {"samples": len(samples), "mean_tokens": 9.0, "truncated": 0}, "verify": {"accuracy": right}}
    for name, kind in (("samples", "sample"), ("verdicts", "verify"), ("problems", "problems")):
        path = world.store.artefact(kind, world.inputs[name].key).path / "manifest.json"
        write_json(path, read_json(path) | {"metrics": metrics.get(kind, {}), "timing": {"seconds": 0.0}})
