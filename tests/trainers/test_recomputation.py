"""Gradient checkpointing in halves: the same figures and gradients as without it, in less memory."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from configs.schema import TrainingSection
from trainers import recomputation
from trainers.loop import open_policy
from trainers.model import trainable
from trainers.packing import TokenSequence
from trainers.policy import Policy

SIZES: dict[str, Any] = {
    "vocab_size": 99, "hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.2,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=True), "mistral": MistralConfig(**SIZES, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES), "qwen3": Qwen3Config(**SIZES, head_dim=8),
}  # fmt: skip
TILE = 5 * 4 * 96 * 4  # five tokens in float32


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, config in CONFIGS.items():
        torch.manual_seed(2)
        folders[name] = tmp_path_factory.mktemp(name)
        AutoModelForCausalLM.from_config(config).save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="module")
def wide_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for blocks of 64 weights."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("wide")
    config = LlamaConfig(**{**SIZES, "hidden_size": 128, "intermediate_size": 256}, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def _groups() -> list[list[TokenSequence]]:
    rng = random.Random(0)
    heads = [[rng.randrange(99) for _ in range(4)] for _ in range(3)]
    return [[TokenSequence([*h, *(rng.randrange(99) for _ in range(rng.randint(3, 20)))], 5) for _ in range(2)] for h in heads]


def _open(model: Path, adapter: str, dtype: str, checkpointing: bool, **more: Any) -> Policy:
    lora = {"r": 4, **more}
    section = {"adapter": adapter, "gradient_checkpointing": checkpointing, "lora": lora, "attention": "sdpa"}
    policy = open_policy(TrainingSection.model_validate(section), model, dtype, None, 0)
    for name, p in trainable(policy.model).items():  # B begins as zero, and A would have no gradient
        if "lora_B" in name:
            torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(1))
    return policy


def _figures(policy: Policy) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    logprobs = policy.logprobs(policy.pack(_groups()))
    logprobs.mean().backward()
    return logprobs.detach(), {n: p.grad for n, p in trainable(policy.model).items() if p.grad is not None}


@pytest.mark.parametrize("tile", [TILE, recomputation.TILE_BYTES])
@pytest.mark.parametrize(("adapter", "dtype"), [("lora", "float32"), ("full", "float32"), ("full", "bfloat16")])
@pytest.mark.parametrize("name", CONFIGS)
def test_figures_and_gradients_are_those_without_it(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str, adapter: str, dtype: str, tile: int
) -> None:
    monkeypatch.setattr(recomputation, "TILE_BYTES", tile)
    (plain, gradients), (again, others) = (_figures(_open(models[name], adapter, dtype, on)) for on in (False, True))
    tolerance = 1e-4 if dtype == "float32" else 3e-2
    torch.testing.assert_close(plain, again, rtol=tolerance, atol=tolerance)
    assert gradients.keys() == others.keys() and gradients
    for parameter, gradient in gradients.items():
        error = (gradient - others[parameter]).norm() / gradient.norm().clamp(min=1e-9)
        assert error < (1e-4 if dtype == "float32" else 3e-2), parameter


def test_dropout_is_the_same_in_both_passes(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Against autograd through the same tiles, from the same random state."""
    monkeypatch.setattr(recomputation, "TILE_BYTES", TILE)
    policies = [_open(models["llama"], "lora", "float32", True, dropout=0.3) for _ in range(2)]
    torch.manual_seed(5)
    found = _figures(policies[0])

    def kept(attention: Any, mlp: Any, _module: Any, tile: int, hidden: torch.Tensor) -> torch.Tensor:
        states = attention(hidden).flatten(0, 1)
        parts = [mlp(states[None, part])[0] for part in recomputation.tiles(len(states), tile)]
        return torch.cat(parts).view_as(hidden)

    monkeypatch.setattr(recomputation._Layer, "apply", kept)
    torch.manual_seed(5)
    expected = _figures(policies[1])
    torch.testing.assert_close(found[0], expected[0])
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)
    torch.manual_seed(6)
    assert not torch.allclose(_figures(policies[1])[0], expected[0]), "dropout does something"


def test_of_a_layer_only_its_input_is_kept(models: dict[str, Path]) -> None:
    sizes: dict[bool, int] = {}
    for on in (False, True):
        policy = _open(models["llama"], "lora", "float32", on)
        packed, kept = policy.pack(_groups()), []
        with saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):
            policy.hidden(packed)
        own = {p.data_ptr() for p in policy.model.parameters()}
        sizes[on] = sum({t.data_ptr(): t.nbytes for t in kept if t.data_ptr() not in own}.values())
        tokens = packed.ids.numel()
    assert sizes[True] < 0.2 * sizes[False]
    assert sizes[True] >= 3 * tokens * 32 * 4, "three layers' inputs"


def test_the_memory_of_a_backward_pass_has_one_tile_of_an_mlp(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than a tile's wide states live at a time."""
    widths: list[int] = []
    monkeypatch.setattr(recomputation, "TILE_BYTES", TILE)
    policy = _open(models["llama"], "lora", "float32", True)
    for layer in policy.model.get_decoder().layers:
        layer.mlp.act_fn.register_forward_hook(lambda _m, _i, out: widths.append(out.shape[:-1].numel()))
    tokens = policy.pack(_groups()).ids.numel()
    _figures(policy)
    assert max(widths) == 5 and sum(widths) == 2 * 3 * tokens, "once forward, once again, three layers"


def test_four_bit_weights_are_unpacked_once_for_all_tiles(
    wide_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same figures as without checkpointing; a layer's three products forward, and once more for its backward pass."""
    from bitsandbytes import functional

    monkeypatch.setattr(recomputation, "TILE_BYTES", 5 * 4 * 256 * 2)
    plain, gradients = _figures(_open(wide_models, "qlora", "bfloat16", False))
    policy, unpackings, whole = _open(wide_models, "qlora", "bfloat16", True), [], functional.dequantize_4bit
    mlps = [layer.mlp for layer in policy.model.get_decoder().layers]
    packed = {m.base_layer.weight.data.data_ptr() for mlp in mlps for m in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)}
    monkeypatch.setattr(functional, "dequantize_4bit", lambda w, *a: unpackings.append(w.data_ptr()) or whole(w, *a))
    again, others = _figures(policy)
    assert sum(place in packed for place in unpackings) == 2 * 3 * len(mlps)
    torch.testing.assert_close(plain, again, rtol=3e-2, atol=3e-2)
    for parameter, gradient in gradients.items():
        assert (gradient - others[parameter]).norm() < 3e-2 * gradient.norm() + 1e-6, parameter
    assert all("forward" not in vars(m.base_layer) for mlp in mlps for m in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))


def test_other_layers_are_checkpointed_whole(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    policy = _open(tmp_path, "full", "float32", True)
    assert all(block.gradient_checkpointing for block in policy.model.transformer.h)
    (_, gradients), (_, plain) = _figures(policy), _figures(_open(tmp_path, "full", "float32", False))
    for name, gradient in plain.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_nothing_is_recomputed_without_gradients(models: dict[str, Path]) -> None:
    policy = _open(models["qwen2"], "lora", "float32", True)
    with policy.evaluating():
        quiet = policy.logprobs(policy.pack(_groups()))
    torch.testing.assert_close(quiet, _figures(_open(models["qwen2"], "lora", "float32", False))[0], rtol=1e-4, atol=1e-4)
