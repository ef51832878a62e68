"""Models and rows of a run of several phases, exported by number and by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from configs.errors import RatchetError
from configs.rows import Example, Pair
from pipelines.cli import app
from pipelines.export.base import base_of
from pipelines.export.card import Card
from pipelines.export.source import Source
from pipelines.store import Artefact, planned, read_rows
from tests.conftest import TinyRun
from tests.pipelines.test_export_weights import IDS

NAMES = ["sft", "rft1", "rft2", "dpo", "remax"]


@pytest.fixture
def at_home(phase_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> TinyRun:
    monkeypatch.setenv("RATCHET_HOME", str(phase_run.home))
    return phase_run


def export(run: TinyRun, at: str, to: Path, *options: str) -> str:
    done = CliRunner().invoke(app, ["export", f"{run.folder}{at}", "--to", str(to), *options])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def stored(run: TinyRun, label: str) -> Artefact:
    plan = json.loads((run.folder / "plan.json").read_text())
    stage = next(s for s in plan["stages"] if s["label"] == label)
    return planned(plan, stage)


def test_every_phase_has_its_model(at_home: TinyRun, tmp_path: Path) -> None:
    for number, name in enumerate(NAMES, 1):
        own = load_file(stored(at_home, f"{name}/train").model / "adapter_model.safetensors")
        for at in (f"@{number}", f"@{name}"):
            said = export(at_home, at, tmp_path / at, "--what", "adapter")
            assert f"{at_home.folder}@{name} ->" in said
            written = load_file(tmp_path / at / "adapter_model.safetensors")
            assert written.keys() == own.keys() and all(torch.equal(written[k], own[k]) for k in own)


def test_the_last_model_merged_is_base_and_adapter(at_home: TinyRun, tiny_model: Path, tmp_path: Path) -> None:
    export(at_home, "", tmp_path / "merged")
    base: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapter = stored(at_home, "remax/train").model
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto").eval()(IDS).logits
        beside = PeftModel.from_pretrained(base, str(adapter)).eval()(IDS).logits
    torch.testing.assert_close(merged.float(), beside.float(), atol=2e-4, rtol=1e-4)


def test_rows_are_those_that_the_phase_learned_from(at_home: TinyRun, tmp_path: Path) -> None:
    for at, what, label, row in (("sft", "sft", "sft/select", Example), ("dpo", "pairs", "dpo/pairs", Pair)):
        file = tmp_path / f"{at}.jsonl"
        export(at_home, f"@{at}", file, "--what", what)
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert [r["id"] for r in rows] == [r.id for r in read_rows(stored(at_home, label), row)] and rows
    with pytest.raises(RatchetError, match=r"run@rft1 was not trained on pairs \(training.method: sft\)"):
        invoke = ["export", f"{at_home.folder}@rft1", "--what", "pairs", "--to", str(tmp_path / "x.jsonl")]
        CliRunner().invoke(app, invoke, catch_exceptions=False)
    with pytest.raises(RatchetError, match=r"has iterations 1 to 5 \(sft, rft1, rft2, dpo, remax\), not `dpi`"):
        Source(f"{at_home.folder}@dpi")


def test_the_card_tells_of_all_phases_that_led_there(at_home: TinyRun, tmp_path: Path) -> None:
    source = Source(f"{at_home.folder}@dpo")
    Card(source, base_of(source, None), None).write(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["tags"] == ["ratchet", "reasoning", "sft", "dpo", "lora"]
    assert "# phases, iteration 4 (dpo)" in card and "- Iteration 4 (dpo) of 5." in card
    assert "- Trained before, in this order: sft (supervised fine-tuning), rft1 (supervised fine-tuning), rft2 (" in card
    training = card.partition("## Training")[2].partition("\n## ")[0]
    assert all(f"`{name}/train`" in training for name in NAMES[:4]) and "remax/" not in training
    assert "| **iteration 4 (dpo)** | held | greedy |" in card
    assert "- `held`: problems held out of the training problems" in card
    assert "/tmp" not in card and str(at_home.home.parent) not in card
