"""Models and adapters of real runs, exported with the command and loaded by transformers and PEFT."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from configs.errors import RatchetError
from pipelines.cli import app
from tests.conftest import TinyRun, run_recipe, write_tiny_recipe

IDS = torch.arange(3, 67).reshape(2, 32)


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A function: a run, what is behind it (`@1`) and options in; the exported folder out."""

    def call(run: TinyRun, *options: str, at: str = "", name: str = "out") -> Path:
        monkeypatch.setenv("RATCHET_HOME", str(run.home))
        done = CliRunner().invoke(app, ["export", f"{run.folder}{at}", "--to", str(tmp_path / name), *options])
        assert done.exit_code == 0, (done.output, done.exception)
        assert str(tmp_path / name) in done.output
        return tmp_path / name

    return call


def refusal(run: TinyRun, to: Path, *options: str, at: str = "", folder: Path | None = None) -> RatchetError:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATCHET_HOME", str(run.home))
        result = CliRunner().invoke(app, ["export", f"{folder or run.folder}{at}", "--to", str(to), *options])
    assert isinstance(result.exception, RatchetError), result
    return result.exception


def adapter_of(run: TinyRun, iteration: int) -> Path:
    plan = json.loads((run.folder / "plan.json").read_text())
    return run.store / "train" / plan["trained"][iteration - 1] / "model"


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits.float()


def with_adapter(base: Path, adapter: Path) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)))


def copied(run: TinyRun, folder: Path, **changes: Any) -> Path:
    """The run folder again, with other values in sections of its recipe; its artefacts stay where they are."""
    shutil.copytree(run.folder, folder, symlinks=True)
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    for section, values in changes.items():
        recipe[section] |= values
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def test_a_merged_model_loads_alone(lora_run: TinyRun, tiny_model: Path, export: Callable[..., Path]) -> None:
    folder = export(lora_run)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert model.dtype == torch.float32
    torch.testing.assert_close(logits(model), with_adapter(tiny_model, adapter_of(lora_run, 2)), atol=2e-4, rtol=1e-4)
    assert (logits(model) - logits(AutoModelForCausalLM.from_pretrained(tiny_model))).abs().max() > 0.5
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "user: x<end>\n"
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip


def test_every_iteration_can_be_had(lora_run: TinyRun, tiny_model: Path, export: Callable[..., Path]) -> None:
    metrics = [json.loads(line) for line in (lora_run.folder / "metrics.jsonl").read_text().splitlines()]
    accuracy = {m["stage"]: m["accuracy"] for m in metrics if m["kind"] == "score"}
    reached = [accuracy[f"iteration{i}/held/greedy"] for i in (1, 2)]
    assert max(reached) > accuracy["initial/held/greedy"]
    weights = {}
    for name in ("1", "2", "last", "best"):
        folder = export(lora_run, "--what", "adapter", at=f"@{name}", name=name)
        weights[name] = (folder / "adapter_model.safetensors").read_bytes()
    assert weights["1"] != weights["2"] == weights["last"]
    assert weights["best"] == weights["1" if reached[0] >= reached[1] else "2"]


def test_an_adapter_loads_in_peft_and_in_transformers(lora_run: TinyRun, tiny_model: Path, export: Callable[..., Path]) -> None:
    folder = export(lora_run, "--what", "adapter", at="@1")
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    expected = with_adapter(tiny_model, adapter_of(lora_run, 1))
    assert torch.equal(with_adapter(tiny_model, folder), expected)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.load_adapter(str(folder))
    assert torch.equal(logits(model), expected)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None and config["r"] == 4 and config["inference_mode"]
    named = export(lora_run, "--what", "adapter", "--base-model", "team/tiny", name="named")
    assert json.loads((named / "adapter_config.json").read_text())["base_model_name_or_path"] == "team/tiny"


def test_a_run_that_trained_all_weights(tiny_run: TinyRun, export: Callable[..., Path], tmp_path: Path) -> None:
    folder = export(tiny_run)
    ours, theirs = (load_file(p / "model.safetensors") for p in (folder, adapter_of(tiny_run, 1)))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert logits(AutoModelForCausalLM.from_pretrained(folder)).isfinite().all()
    error = refusal(tiny_run, tmp_path / "none", "--what", "adapter")
    assert "has no adapter: its training changed all weights; give --what model" in str(error)


def test_an_adapter_over_a_4_bit_base_merges_into_the_base_itself(
    tiny_model: Path, tmp_path: Path, export: Callable[..., Path]
) -> None:
    """As the run sampled and measured with it: over the base's own weights."""
    pytest.importorskip("bitsandbytes")
    recipe = write_tiny_recipe(tmp_path / "q.yaml", tiny_model, [
        "training={adapter: qlora, lora: {r: 4}, epochs: 1, batch_size: 8, learning_rate: 0.02}", "evaluation.benchmarks=[]",
    ])  # fmt: skip
    run = TinyRun(recipe, tmp_path / "run", tmp_path / "home", run_recipe(recipe, tmp_path))
    folder = export(run)
    merged = logits(AutoModelForCausalLM.from_pretrained(folder))
    torch.testing.assert_close(merged, with_adapter(tiny_model, adapter_of(run, 1)), atol=2e-4, rtol=1e-4)
    assert (merged - logits(AutoModelForCausalLM.from_pretrained(tiny_model))).abs().max() > 1e-2
    assert "trained over 4-bit weights, and measured and merged over the base's own" in (folder / "README.md").read_text()


def test_nothing_is_replaced_and_nothing_is_left_half_written(lora_run: TinyRun, tmp_path: Path) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty"
    full.mkdir()
    (full / "mine.txt").write_text("precious")
    assert "exists: remove it or choose another --to" in str(refusal(lora_run, full))
    assert [p.name for p in full.iterdir()] == ["mine.txt"]
    error = refusal(lora_run, tmp_path / "a.jsonl", "--what", "adapter")
    assert "--what adapter writes a folder; a file takes rows" in str(error)
    empty.mkdir()
    run = _with_broken_adapter(lora_run, tmp_path / "broken")
    error = refusal(lora_run, empty, folder=run)
    assert error.exit_code == 1 and "cannot be merged" in str(error)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken", "empty", "full"] and not list(empty.iterdir())


@pytest.mark.parametrize("what", ["model", "adapter"])
def test_the_empty_folder_that_one_is_in_can_be_given(
    lora_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    monkeypatch.setenv("RATCHET_HOME", str(lora_run.home))
    done = CliRunner().invoke(app, ["export", str(lora_run.folder), "--what", what, "--to", "."])
    assert done.exit_code == 0 and "`cd .` shows what it holds" in done.output, (done.output, done.exception)
    assert (tmp_path / "out" / "README.md").is_file() and [p.name for p in tmp_path.iterdir()] == ["out"]


def _with_broken_adapter(run: TinyRun, folder: Path) -> Path:
    """The run with a store of its own, in which a weight of the last adapter is not a number."""
    copied(run, folder)
    shutil.copytree(run.store, folder / "store")
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps(plan | {"store": str(folder / "store")}))
    file = folder / "store" / "train" / plan["trained"][1] / "model" / "adapter_model.safetensors"
    weights = load_file(file)
    next(iter(weights.values()))[0, 0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def test_another_base_than_the_runs_own_is_refused(lora_run: TinyRun, tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    weights = load_file(other / "model.safetensors")
    save_file({k: v + 1.0 for k, v in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    run = copied(lora_run, tmp_path / "run", model={"name": str(other)})
    error = refusal(lora_run, tmp_path / "out", folder=run)
    assert f"{other} has changed since {run} was run" in str(error) and error.exit_code == 2


def test_what_is_not_finished_is_said(lora_run: TinyRun, tmp_path: Path) -> None:
    run = _with_broken_adapter(lora_run, tmp_path / "run")
    plan = json.loads((run / "plan.json").read_text())
    (run / "store" / "train" / plan["trained"][1] / "manifest.json").unlink()
    error = refusal(lora_run, tmp_path / "out", folder=run)
    assert f"iteration2/train of {run} is not finished, or no longer in the store: ratchet resume {run}" in str(error)
    assert "is not a run folder" in str(refusal(lora_run, tmp_path / "out", folder=tmp_path / "none"))
    assert "owner/name" in str(refusal(lora_run, tmp_path / "out", "--base-model", "../x"))
    assert not (tmp_path / "out").exists()
