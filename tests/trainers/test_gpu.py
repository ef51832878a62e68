"""What only a GPU can show: flex attention, the 8-bit paged optimiser, memory errors."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import LlamaConfig, LlamaForCausalLM

from configs.errors import RatchetError
from configs.schema import TrainingSection
from tests.trainers.test_dpo import _Stop, _train, make_pair
from trainers import recomputation
from trainers.attention import IMPLEMENTATION
from trainers.loop import open_policy
from trainers.model import trainable
from trainers.packing import TokenSequence
from trainers.policy import Policy

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("wide")
    config = LlamaConfig(
        vocab_size=1024, hidden_size=192, intermediate_size=256, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _groups(seed: int) -> list[list[TokenSequence]]:
    rng = random.Random(seed)

    def ids(n: int) -> list[int]:
        return [rng.randrange(1024) for _ in range(n)]

    groups = []
    for _ in range(rng.randint(3, 9)):
        context, step = ids(rng.randint(20, 200)), ids(30)
        groups.append([
            TokenSequence(context + step + ids(50), len(context)), TokenSequence(context + ids(90), len(context)),
            TokenSequence(context + step[:20] + ids(12), len(context)),
        ])
    return groups


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
def test_flex_equals_sdpa(model_folder: Path, dtype: torch.dtype, tolerance: float) -> None:
    """Log-probabilities and gradients, several shapes with one compilation."""
    for seed in range(4):
        results = []
        for attention in ("sdpa", "flex"):
            model = LlamaForCausalLM.from_pretrained(
                model_folder, dtype=dtype, attn_implementation=IMPLEMENTATION[attention]
            ).cuda()
            policy = Policy(model, attention, share=attention == "flex")
            logprobs = policy.logprobs(policy.pack(_groups(seed)))
            (logprobs * torch.linspace(-1, 1, len(logprobs), device="cuda")).sum().backward()
            results.append((logprobs.detach(), [p.grad for p in model.parameters() if p.grad is not None]))
        (plain, plain_gradients), (flex, flex_gradients) = results
        assert (plain - flex).abs().max() < 10 * tolerance
        for a, b in zip(plain_gradients, flex_gradients, strict=True):
            assert (a.float() - b.float()).norm() < tolerance * a.float().norm()


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_compiled_layers_compute_the_same(model_folder: Path, adapter: str) -> None:
    """Flex attention inside the layers' graph; several widths with a few compilations."""
    results = []
    for on in (False, True):
        settings = TrainingSection.model_validate({"adapter": adapter, "compile": on, "lora": {"r": 8}})
        policy = open_policy(settings, model_folder, "bfloat16", None, 0)
        counters.clear()
        values = []
        for seed in range(6):
            logprobs = policy.logprobs(policy.pack(_groups(seed)))
            logprobs.mean().backward()
            values.append(logprobs.detach())
        gradients = [p.grad for p in trainable(policy.model).values() if p.grad is not None]
        results.append((values, gradients))
    assert counters["stats"]["unique_graphs"] <= 2
    (plain, plain_gradients), (compiled, compiled_gradients) = results
    for a, b in zip(plain, compiled, strict=True):
        assert abs(a.mean() - b.mean()) < 1e-2 and (a - b).abs().max() < 0.3
    for a, b in zip(plain_gradients, compiled_gradients, strict=True):
        assert (a.float() - b.float()).norm() < 5e-2 * a.float().norm() + 1e-6


@pytest.mark.parametrize("adapter", ["full", "lora", "qlora"])
def test_layers_computed_again_in_tiles_have_the_same_gradients(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, adapter: str
) -> None:
    """With flex attention, and MLPs of 100 tokens at a time."""
    monkeypatch.setattr(recomputation, "TILE_BYTES", 100 * 4 * 256 * 2)
    results = []
    for on in (False, True):
        settings = TrainingSection.model_validate({"adapter": adapter, "gradient_checkpointing": on, "lora": {"r": 8}})
        policy = open_policy(settings, model_folder, "bfloat16", None, 0)
        logprobs = policy.logprobs(policy.pack(_groups(1)))
        logprobs.mean().backward()
        results.append((logprobs.detach(), [p.grad for p in trainable(policy.model).values() if p.grad is not None]))
    (plain, plain_gradients), (again, gradients) = results
    assert (plain - again).abs().max() < 0.3
    for a, b in zip(plain_gradients, gradients, strict=True):
        assert (a.float() - b.float()).norm() < 5e-2 * a.float().norm() + 1e-6


PAIRS = [make_pair(i, i // 2, 10 + i, i % 3, 5 + i % 4, 6) for i in range(12)]


@pytest.mark.parametrize(("adapter", "optimizer"), [("lora", "adamw"), ("qlora", "paged_adamw_8bit")])
def test_interrupted_training_continues(model_folder: Path, tmp_path: Path, adapter: str, optimizer: str) -> None:
    """On a GPU sums may be taken in another order: the same figures up to rounding."""
    settings = TrainingSection.model_validate({
        "method": "dpo", "adapter": adapter, "optimizer": optimizer, "epochs": 3, "batch_size": 4, "checkpoint_every": 2,
        "learning_rate": 1e-3, "lora": {"r": 16},
    })
    calm = _train(model_folder, tmp_path / "calm", settings, pairs=PAIRS, dtype="bfloat16")
    with pytest.raises(_Stop):
        _train(model_folder, tmp_path / "cut", settings, 5, pairs=PAIRS, dtype="bfloat16")
    resumed = _train(model_folder, tmp_path / "cut", settings, pairs=PAIRS, dtype="bfloat16")
    assert len(resumed) == len(calm)
    for a, b in zip(resumed, calm, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=2e-2)
    assert calm[-1]["loss"] < calm[0]["loss"]


def test_memory_running_out_names_the_settings(model_folder: Path, tmp_path: Path) -> None:
    long = [make_pair(i, i, 4000, 0, 4000, 4000) for i in range(24)]
    settings = TrainingSection(method="dpo", micro_batch_tokens=400_000, batch_size=24, adapter="full")
    reserved = torch.cuda.memory_reserved() / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(reserved + 0.01)
    try:
        with pytest.raises(RatchetError, match=r"set training.micro_batch_tokens=200000 or .*gradient_checkpointing=true"):
            _train(model_folder, tmp_path, settings, pairs=long)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
