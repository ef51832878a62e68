from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.load import load_recipe
from pipelines.estimate import Device, estimate, estimate_table
from pipelines.models import model_for_plan
from pipelines.plan import build, resolve
from pipelines.runfolder import RunFolder
from pipelines.store import Store
from tests.conftest import TinyRun

CPU, GPU = Device("a CPU", 16 * 10**9, False), Device("a GPU", 80 * 10**9, True)


def estimated(recipe: Path, store: Path, *overrides: str, device: Device = CPU) -> dict[str, Any]:
    loaded = resolve(load_recipe(str(recipe), overrides), device.gpu)
    model, shape = model_for_plan(loaded.model)
    return estimate(build(loaded, model), Store(store), shape, device)


def by_label(e: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {s["label"]: s for s in e["stages"]}


def test_an_empty_store_gives_upper_bounds(tiny_recipe: Callable[..., Path], home: Path):
    e = estimated(tiny_recipe("training.epochs=3", "selection.max_per_problem=1"), home / "store")
    stages = by_label(e)
    assert not any(s["cached"] for s in stages.values())
    assert stages["initial/words/greedy/sample"]["tokens"] == 8 * 1 * 8
    assert (stages["iteration1/sample"]["rows"], stages["iteration1/sample"]["tokens"]) == (16 * 2, 16 * 2 * 8)
    assert stages["iteration1/verify"]["rows"] == 32
    assert stages["iteration1/select"]["rows"] == 16 * 1 + 16, "the human solutions come on top"
    assert stages["iteration1/train"]["tokens"] == 32 * 3 * 8
    assert e["tokens"] == sum(s["tokens"] for s in stages.values()) == 64 + 256 + 768 + 64
    assert e["rates"]["generate"]["source"] == e["rates"]["train"]["source"] == "guess"
    assert e["memory_fits"]


def test_slices_and_benchmarks_of_known_size_are_counted(tiny_recipe: Callable[..., Path], home: Path):
    recipe = tiny_recipe("iterations.count=2", "data.fresh_per_iteration=true")
    stages = by_label(estimated(recipe, home / "store"))
    assert stages["iteration1/sample"]["rows"] == stages["iteration2/sample"]["rows"] == 8 * 2
    benchmark = "evaluation.benchmarks=[{name: words, source: {source: gsm8k, split: test}}]"
    stages = by_label(estimated(recipe, home / "store", benchmark))
    assert stages["initial/words/greedy/sample"]["tokens"] == 1319 * 8


def test_variants_and_inverses_are_counted_by_problem(tiny_recipe: Callable[..., Path], home: Path):
    recipe = tiny_recipe("data.variants=2", "data.inverses=3")
    stages = by_label(estimated(recipe, home / "store"))
    assert stages["problems/variants"]["rows"] == 16 * (1 + 2)
    assert stages["problems/inverses"]["rows"] == 16 * (1 + 2 + 3)
    alone = by_label(estimated(recipe, home / "store", "data.variants=0"))
    assert alone["problems/inverses"]["rows"] == 16 * (1 + 3)


def test_after_a_run_everything_is_cached_and_costs_nothing(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RATCHET_HOME", str(tiny_run.home))
    e = estimated(tiny_run.recipe, tiny_run.store)
    assert all(s["cached"] for s in e["stages"])
    assert (e["tokens"], e["seconds"]) == (0, 0.0)


def test_after_a_run_rates_and_lengths_are_measured(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RATCHET_HOME", str(tiny_run.home))
    e = estimated(tiny_run.recipe, tiny_run.store, "sampling.temperature=0.25", device=Device.here())
    stages, rate = by_label(e), e["rates"]["generate"]
    samples = Store(tiny_run.store).manifests("sample")
    total = sum(m["metrics"]["tokens"] for m in samples)
    assert rate["source"] == e["rates"]["train"]["source"] == "measured"
    assert rate["mean_tokens"] == total / sum(m["metrics"]["samples"] for m in samples)
    assert rate["rate"] == pytest.approx(
        sum(m["timing"]["generated_tokens"] for m in samples) / sum(m["timing"]["generate_seconds"] for m in samples)
    )
    assert stages["initial/words/greedy/sample"]["cached"]
    assert stages["iteration1/sample"]["tokens"] == int(16 * 8 * rate["mean_tokens"]) < 16 * 8 * 32


def test_rates_of_another_device_are_not_used(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RATCHET_HOME", str(tiny_run.home))
    here, there = (
        estimated(tiny_run.recipe, tiny_run.store, "sampling.engine=transformers", device=d) for d in (Device.here(), GPU)
    )
    assert {r["source"] for r in here["rates"].values()} == {"measured"}
    assert {r["source"] for r in there["rates"].values()} == {"guess"}
    assert there["rates"]["generate"]["mean_tokens"] == here["rates"]["generate"]["mean_tokens"] is not None


def test_rates_of_another_model_are_not_used(tiny_run: TinyRun, tmp_path: Path, home: Path):
    shutil.copytree(load_model_folder(tiny_run), tmp_path / "other")
    (tmp_path / "other" / "generation_config.json").write_text("{}")
    e = estimated(tiny_run.recipe, tiny_run.store, f"model.name={tmp_path / 'other'}")
    assert e["rates"]["generate"]["source"] == e["rates"]["train"]["source"] == "guess"


def load_model_folder(run: TinyRun) -> Path:
    return Path(load_recipe(str(run.recipe)).model.name)


def test_phases_cost_what_their_own_settings_say(tiny_recipe: Callable[..., Path], home: Path):
    phases = "phases=[{name: short}, {name: long, training: {epochs: 4}}, {name: fixed, training: {steps: 5}}]"
    stages = by_label(estimated(tiny_recipe("training.epochs=1", phases), home / "store"))
    rows = stages["short/train"]["rows"]
    assert [stages[f"{name}/train"]["tokens"] for name in ("short", "long", "fixed")] == [rows * 8, 4 * rows * 8, 5 * 4 * 8]


def test_memory_is_that_of_the_largest_stage(tiny_recipe: Callable[..., Path], home: Path):
    def memory(*overrides: str, device: Device = CPU) -> dict[str, Any]:
        e = estimated(tiny_recipe(), home / "store", *overrides, device=device)
        assert e["memory"]["bytes"] == max(s["memory_bytes"] for s in e["stages"]) == sum(e["memory"]["parts"].values())
        return e["memory"]

    base = memory()
    parameters = 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 2 * 258 * 32 + 32
    assert base["stage"] == "iteration1/train"
    assert base["parts"]["weights"] == 4 * parameters
    assert base["parts"]["moments"] == 8 * parameters
    assert base["parts"]["sampler weights"] == 4 * parameters, "on a CPU the sampler stays in memory"
    assert "sampler weights" not in memory("executor.workers=2")["parts"], "workers are closed before the training"
    assert memory("training.adapter=lora", "training.lora.r=1")["parts"]["moments"] < 8 * parameters / 10


def test_stages_on_a_gpu_are_planned_without_one(tiny_recipe: Callable[..., Path], home: Path):
    stages = by_label(estimated(tiny_recipe("sampling.engine=auto"), home / "store", device=GPU))
    assert stages["iteration1/sample"]["memory_bytes"] == pytest.approx(0.6 * 80e9), "vLLM takes its share"
    assert stages["iteration1/verify"]["memory_bytes"] == 0
    small = Device("a small GPU", 10**6, True)
    assert not estimated(tiny_recipe(), home / "store", device=small)["memory_fits"]


def test_a_reference_pass_needs_less_than_its_training(tiny_recipe: Callable[..., Path], home: Path):
    dpo = ("training.method=dpo", "pairs.kind=rise", "training.adapter=lora")
    stages = by_label(estimated(tiny_recipe(), home / "store", *dpo))
    assert 0 < stages["iteration1/reference"]["memory_bytes"] < stages["iteration1/train"]["memory_bytes"]


def test_the_table_shows_every_stage_and_the_sums(tiny_recipe: Callable[..., Path], home: Path):
    e = estimated(tiny_recipe(), home / "store")
    lines = estimate_table(e)
    for stage in e["stages"]:
        assert any(stage["label"] in line and stage["key"][:12] in line for line in lines)
    assert any(f"{e['tokens']:,} tokens" in line and "guess" in line for line in lines)
    assert "fits in 16.0 GB" in lines[-1] and e["memory"]["stage"] in lines[-1]
    assert e["shape_from"] in lines[1]


def test_a_run_does_not_depend_on_its_estimate(tiny_recipe: Callable[..., Path], tiny_model: Path, tmp_path: Path):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    loaded = resolve(load_recipe(str(tiny_recipe(f"model.name={folder}")), []))
    plan, store = build(loaded, model_for_plan(loaded.model)[0]), Store(tmp_path / "store")
    run = RunFolder.create(tmp_path / "run", loaded)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "of_tomorrow"}))
    assert "of_tomorrow" in (run.estimate_plan(plan, store) or "") and run.estimate() == {}
    (folder / "config.json").write_text(json.dumps(config))
    assert run.estimate_plan(plan, store) is None
    first = run.estimate()
    assert [s["key"] for s in first["stages"]] == [s.key for s in plan.stages] and first["memory"]["bytes"] > 0
    (folder / "config.json").unlink()
    assert run.estimate_plan(plan, store) is None and run.estimate() == first, "a resume leaves the first one"
