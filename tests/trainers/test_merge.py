"""Merging an adapter: golden weights, and logits beside the adapter's own forward pass."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainers.checkpoint import SaveError
from trainers.merge import save_merged

IDS = torch.arange(3, 67).reshape(2, 32)


def base_and_adapter(tiny: Path, folder: Path, dtype: str, tied: bool, targets: Any) -> tuple[Path, Path]:
    """The tiny model in `dtype`, with tied embeddings or without, and a random adapter on `targets`."""
    base, adapter = folder / "base", folder / "adapter"
    shutil.copytree(tiny, base)
    (base / "model.safetensors").unlink()
    model: Any = AutoModelForCausalLM.from_pretrained(tiny, dtype=getattr(torch, dtype))
    if tied:
        model.config.tie_word_embeddings = True
        model.tie_weights()
        assert model.lm_head.weight is model.model.embed_tokens.weight
    model.save_pretrained(base)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
        peft = get_peft_model(model, config)
    for name, p in peft.named_parameters():
        if "lora" in name:
            p.data *= 0.1
    peft.save_pretrained(str(adapter))
    return base, adapter


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits.float()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("targets", ["all-linear", ["lm_head", "q_proj"], ["embed_tokens", "q_proj"]], ids=str)
def test_the_merged_model_says_what_the_adapter_says(tiny_model: Path, tmp_path: Path, targets: Any, tied: bool) -> None:
    """Also where the adapter changes one of two tied embeddings: the other must stay."""
    base, adapter = base_and_adapter(tiny_model, tmp_path, "float32", tied, targets)
    assert save_merged(base, adapter, tmp_path / "out") == "float32"
    plain = AutoModelForCausalLM.from_pretrained(base)
    before = logits(plain)
    expected = logits(PeftModel.from_pretrained(plain, str(adapter)))
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"))
    assert (expected - before).abs().max() > 0.1
    torch.testing.assert_close(merged, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_the_base_plus_the_scaled_product(tiny_model: Path, tmp_path: Path, dtype: str) -> None:
    """W + alpha/r B A, computed in float32 and rounded to the base's type; nothing else has changed."""
    base, adapter = base_and_adapter(tiny_model, tmp_path, dtype, False, "all-linear")
    assert save_merged(base, adapter, tmp_path / "out") == dtype
    old, new = load_file(base / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    low = load_file(adapter / "adapter_model.safetensors")
    assert old.keys() == new.keys()
    for name, before in old.items():
        key = f"base_model.model.{name.removesuffix('.weight')}.lora_"
        if f"{key}A.weight" not in low:
            assert torch.equal(new[name], before), name
            continue
        delta = 2.0 * low[f"{key}B.weight"].float() @ low[f"{key}A.weight"].float()
        expected = before + delta.to(before.dtype)
        torch.testing.assert_close(new[name], expected, atol=1e-6 if dtype == "float32" else 0.0, rtol=0.01)
        assert not torch.equal(new[name], before), name


def test_tokenizer_template_and_generation_config_come_along(tiny_model: Path, tmp_path: Path) -> None:
    """The generation config byte for byte, also one with settings that transformers would not write."""
    base, adapter = base_and_adapter(tiny_model, tmp_path, "float32", False, ["q_proj"])
    config = json.loads((base / "generation_config.json").read_text()) | {"temperature": 0.7, "do_sample": False}
    (base / "generation_config.json").write_text(json.dumps(config))
    save_merged(base, adapter, tmp_path / "out")
    assert (tmp_path / "out" / "generation_config.json").read_bytes() == (base / "generation_config.json").read_bytes()
    ours, theirs = (AutoTokenizer.from_pretrained(p) for p in (tmp_path / "out", base))
    message = [{"role": "user", "content": "3 + 4 = ?"}]
    assert ours.apply_chat_template(message, tokenize=False) == theirs.apply_chat_template(message, tokenize=False)
    assert ours("ä 12 <end>")["input_ids"] == theirs("ä 12 <end>")["input_ids"] and ours.eos_token_id == theirs.eos_token_id
    assert not [p for p in (tmp_path / "out").iterdir() if p.suffix in (".bin", ".pt", ".pkl")]


def test_a_disk_error_leaves_nothing(tiny_model: Path, tmp_path: Path) -> None:
    base, adapter = base_and_adapter(tiny_model, tmp_path, "float32", False, ["q_proj"])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SaveError):
        save_merged(base, adapter, tmp_path / "file" / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "base", "file"]
