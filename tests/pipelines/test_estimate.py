from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.load import load_recipe
from pipelines.estimate import estimate, estimate_table
from pipelines.models import resolve_model
from pipelines.plan import build, resolve
from pipelines.store import Store
from tests.conftest import TinyRun


def estimated(recipe: Path, store: Path, *overrides: str) -> dict[str, Any]:
    loaded = resolve(load_recipe(str(recipe), overrides))
    return estimate(build(loaded, resolve_model(loaded.model)), Store(store))


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


def test_after_a_run_everything_is_cached_and_costs_nothing(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RATCHET_HOME", str(tiny_run.home))
    e = estimated(tiny_run.recipe, tiny_run.store)
    assert all(s["cached"] for s in e["stages"])
    assert (e["tokens"], e["seconds"]) == (0, 0.0)


def test_after_a_run_rates_and_lengths_are_measured(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RATCHET_HOME", str(tiny_run.home))
    e = estimated(tiny_run.recipe, tiny_run.store, "sampling.temperature=0.25")
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


def test_rates_of_another_model_are_not_used(tiny_run: TinyRun, tmp_path: Path, home: Path):
    shutil.copytree(load_model_folder(tiny_run), tmp_path / "other")
    (tmp_path / "other" / "generation_config.json").write_text("{}")
    e = estimated(tiny_run.recipe, tiny_run.store, f"model.name={tmp_path / 'other'}")
    assert e["rates"]["generate"]["source"] == e["rates"]["train"]["source"] == "guess"


def load_model_folder(run: TinyRun) -> Path:
    return Path(load_recipe(str(run.recipe)).model.name)


def test_memory_grows_with_what_needs_it(tiny_recipe: Callable[..., Path], home: Path):
    def memory(*overrides: str) -> dict[str, float]:
        return estimated(tiny_recipe(), home / "store", *overrides)["memory_bytes"]

    base = memory()
    parameters = 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 2 * 258 * 32 + 32
    assert base["sampler weights"] == pytest.approx(4 * parameters, rel=0.1)
    assert base["gradients and optimizer"] == pytest.approx(12 * parameters, rel=0.1)
    assert memory("sampling.batch_size=16")["KV cache"] == 2 * base["KV cache"]
    assert memory("executor.workers=2")["sampler weights"] == 2 * base["sampler weights"]
    assert memory("training.adapter=lora", "training.lora.r=1")["gradients and optimizer"] < 12 * parameters


def test_the_table_shows_every_stage_and_the_sums(tiny_recipe: Callable[..., Path], home: Path):
    e = estimated(tiny_recipe(), home / "store")
    lines = estimate_table(e)
    for stage in e["stages"]:
        assert any(stage["label"] in line and stage["key"][:12] in line for line in lines)
    assert any(f"{e['tokens']:,} tokens" in line and "guess" in line for line in lines)
    assert "fits in" in lines[-1]


def test_memory_of_models_by_what_their_config_tells(
    tiny_recipe: Callable[..., Path], tiny_model: Path, home: Path, tmp_path: Path
):
    """The same sizes under another family's names give the same; an unknown family gives no memory, and still a plan."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    usual = estimated(tiny_recipe(), home / "store")["memory_bytes"]

    def with_config(changed: dict[str, Any]) -> dict[str, Any]:
        (folder / "config.json").write_text(json.dumps(changed))
        return estimated(tiny_recipe(f"model.name={folder}"), home / "store")

    names = {"num_hidden_layers": "n_layer", "hidden_size": "n_embd", "num_attention_heads": "n_head"}
    assert with_config({names.get(k, k): v for k, v in config.items()})["memory_bytes"] == usual
    assert with_config({"dtype": config["dtype"], "text_config": config})["memory_bytes"] == usual
    unknown = with_config({k: v for k, v in config.items() if k != "num_hidden_layers"})
    assert (unknown["memory_bytes"], unknown["memory_fits"]) == ({}, None)
    assert "memory: not known" in estimate_table(unknown)[-1]
