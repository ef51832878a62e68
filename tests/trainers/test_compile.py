"""`training.compile`: figures and gradients as without it, one graph for all layers and widths, resume, clear errors."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import LlamaConfig, LlamaForCausalLM

from configs.errors import ConfigError
from configs.schema import TrainingSection
from tests.trainers.test_dpo import _Stop, _train
from trainers.compilation import compile_layers
from trainers.loop import open_policy
from trainers.model import trainable
from trainers.packing import TokenSequence
from trainers.policy import Policy


@pytest.fixture(scope="module")
def deep_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("deep")
    config = LlamaConfig(
        vocab_size=99, hidden_size=64, intermediate_size=96, num_hidden_layers=5, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True, initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _own_compilations() -> Any:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def _graphs() -> int:
    return counters["stats"]["unique_graphs"] - 1  # the first one is the trial


def _groups(seed: int, count: int) -> list[list[TokenSequence]]:
    rng = random.Random(seed)
    return [[TokenSequence([rng.randrange(99) for _ in range(rng.randint(20, 250))], 5)] for _ in range(count)]


def _figures(settings: TrainingSection, model: Path, dtype: str) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Log-probabilities and gradients for several numbers of rows and widths."""
    policy = open_policy(settings, model, dtype, None, 0)
    result = []
    for seed, count in enumerate((7, 9, 4, 12)):
        logprobs = policy.logprobs(policy.pack(_groups(seed, count)))
        logprobs.mean().backward()
        gradients = {n: p.grad for n, p in trainable(policy.model).items() if p.grad is not None}
        policy.model.zero_grad()
        result.append((logprobs.detach(), gradients))
    return result


@pytest.mark.parametrize(("adapter", "dtype", "checkpointing"), [("full", "bfloat16", False), ("lora", "float32", True)])
def test_compiled_layers_compute_the_same(deep_model: Path, adapter: str, dtype: str, checkpointing: bool) -> None:
    settings = {"adapter": adapter, "gradient_checkpointing": checkpointing, "lora": {"r": 4}}
    plain, compiled = (
        _figures(TrainingSection.model_validate({**settings, "compile": on}), deep_model, dtype) for on in (False, True)
    )
    assert _graphs() == 1
    tolerance = 1e-4 if dtype == "float32" else 3e-2
    for (values, gradients), (others, other_gradients) in zip(plain, compiled, strict=True):
        torch.testing.assert_close(values, others, rtol=tolerance, atol=tolerance)
        assert gradients.keys() == other_gradients.keys() != set()
        for name, gradient in gradients.items():
            assert (gradient - other_gradients[name]).norm() <= tolerance * gradient.norm() + 1e-7, name


def test_interrupted_training_ends_with_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    settings = TrainingSection.model_validate({
        "method": "dpo", "compile": True, "epochs": 3, "batch_size": 2, "checkpoint_every": 2, "learning_rate": 1e-3,
        "lora": {"dropout": 0.1, "r": 4}, "dpo": {"validation_fraction": 0.25},
    })
    calm = _train(tiny_model, tmp_path / "calm", settings)
    with pytest.raises(_Stop):
        _train(tiny_model, tmp_path / "cut", settings, 3)
    torch.compiler.reset()  # as in a new process
    assert _train(tiny_model, tmp_path / "cut", settings) == calm
    for file in sorted((tmp_path / "calm" / "model").iterdir()):
        assert file.read_bytes() == (tmp_path / "cut" / "model" / file.name).read_bytes(), file.name


def test_flex_attention_joins_the_layers_graph(deep_model: Path) -> None:
    """Forward alone, which is what it can do on a CPU; a new mask for every width, and no graph for it."""
    results = []
    for attention, compiled in (("sdpa", False), ("flex", True)):
        settings = TrainingSection.model_validate({"adapter": "full", "attention": attention, "compile": compiled})
        policy: Policy = open_policy(settings, deep_model, "float32", None, 0)
        with policy.evaluating():
            results.append([policy.logprobs(policy.pack(_groups(seed, 3 + seed))) for seed in range(4)])
    for plain, flex in zip(*results, strict=True):
        torch.testing.assert_close(plain, flex, rtol=1e-4, atol=1e-4)
    assert _graphs() == 1


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "no-such-compiler"))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    with pytest.raises(ConfigError, match=r"training\.compile needs a C"):
        compile_layers(None, torch.device("cpu"))
