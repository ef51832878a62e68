"""An exported adapter and an exported merged model in the engines: both say what the run's own adapter says."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from typer.testing import CliRunner

from configs.load import validate
from configs.schema import PromptSection
from data_gen.engine import Completion, EngineConfig, Request, open_engine
from data_gen.procedural import generate
from data_gen.prompts import PromptEncoder
from pipelines.cli import app
from pipelines.models import ResolvedModel
from pipelines.plan import Plan
from pipelines.runfolder import RunFolder
from pipelines.stage import Stage
from pipelines.store import Store

Drawn = dict[str, Completion]


@pytest.fixture(scope="module")
def run(bundled: ResolvedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of the real model whose one iteration has trained a random adapter that visibly changes it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    root = tmp_path_factory.mktemp("run")
    store, train = Store(root / "store"), Stage("train", "iteration1/train", {}, given_key="adapter")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(bundled.path),
            LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"),
        )
    artefact = store.artefact("train", train.key)
    model.save_pretrained(artefact.model)
    recipe = validate({"name": "random", "data": {"train": {"source": "gsm8k"}}, "training": {"lora": {"r": 8}}}, "recipe")
    metrics = {"steps": 0, "examples": 0, "first_loss": 0.0, "last_loss": 0.0, "last": {}}
    store.finish(artefact, {"config": {"training": recipe.training.model_dump()}, "metrics": metrics, "software": {}})
    folder = RunFolder.create(root / "run", recipe)
    folder.write_plan(Plan(recipe, bundled, [train], [train]), store)
    return folder.path


def _draw(kind: str, model: Path, adapter: Path | None, requests: list[Request]) -> Drawn:
    engine = open_engine(EngineConfig(
        kind=kind, model=str(model), dtype="float32", batch_size=8, max_model_len=256, gpu_memory=0.5,
        max_lora_rank=8 if adapter else 0,
    ))  # fmt: skip
    try:
        engine.set_adapter(adapter)
        return {c.request: c for group in engine.generate(requests) for c in group}
    finally:
        engine.close()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "kind", [pytest.param("transformers", marks=pytest.mark.slow), pytest.param("vllm", marks=pytest.mark.vllm)]
)
def test_exports_are_served_as_they_are(kind: str, run: Path, bundled: ResolvedModel, tmp_path: Path) -> None:
    encoder = PromptEncoder(bundled.path, PromptSection())
    requests = [
        Request(id=p.id, prompt_ids=encoder.encode(p.question), seeds=[0], temperature=0.0, top_p=1.0, max_tokens=8)
        for p in generate(4, "train", 3)
    ]
    for what in ("adapter", "model"):
        done = CliRunner().invoke(app, ["export", str(run), "--what", what, "--to", str(tmp_path / what)])
        assert done.exit_code == 0, (done.output, done.exception)
    base = _draw("transformers", bundled.path, None, requests)
    expected = _draw("transformers", bundled.path, run.parent / "store" / "train" / "adapter" / "model", requests)
    for found in (
        _draw(kind, bundled.path, tmp_path / "adapter", requests), _draw(kind, tmp_path / "model", None, requests),
    ):  # fmt: skip
        assert statistics.mean(found[k].token_ids == expected[k].token_ids for k in expected) >= 0.75  # a tie may flip
        for key, completion in found.items():
            assert completion.logprobs[0] == pytest.approx(expected[key].logprobs[0], abs=2e-3)
            assert abs(completion.logprobs[0] - base[key].logprobs[0]) > 1e-2
