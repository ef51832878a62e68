"""Models for training: loading, adapters, saving. Weights load from safetensors only; remote code never runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from configs.errors import InputError
from configs.schema import LoraSection

if TYPE_CHECKING:
    from peft import PeftModel


def load_for_training(
    path: Path, dtype: str, adapter: str, lora: LoraSection, start: Path | None, seed: int
) -> PreTrainedModel | PeftModel:
    """The model in `path` with its trainable parameters marked.

    lora: base weights frozen in `dtype`, adapter weights in float32; `start` continues an earlier adapter.
    full: all weights trainable in float32 (the forward pass runs under autocast when `dtype` is bfloat16).
    """
    full = adapter == "full"
    model: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32 if full else getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
    )
    model.config.use_cache = False
    if full:
        if start is not None:
            raise InputError(f"training.adapter is `full`, but {start} is a LoRA adapter: set training.adapter=lora")
        return model.to(device()).train()
    from peft import LoraConfig, PeftModel, get_peft_model

    if start is not None:
        return PeftModel.from_pretrained(model, str(start), is_trainable=True, use_safetensors=True).to(device()).train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # the only randomness here: the initial A matrices
        peft_model = get_peft_model(
            model,
            LoraConfig(
                r=lora.r, lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a float works
                lora_dropout=lora.dropout, target_modules=lora.targets,
                task_type="CAUSAL_LM",
            ),
        )
    return peft_model.to(device()).train()


def save_trained(model: PreTrainedModel | PeftModel, folder: Path, base: Path, dtype: str) -> None:
    """Write the result: an adapter's own files, or full weights in `dtype` with the tokenizer beside them."""
    from peft import PeftModel

    if isinstance(model, PeftModel):
        model.save_pretrained(str(folder), safe_serialization=True)
        (folder / "README.md").unlink(missing_ok=True)
        # Neither the path of the base model nor the order of a set may reach the artefact's bytes.
        file = folder / "adapter_config.json"
        config = json.loads(file.read_text()) | {"base_model_name_or_path": None}
        if isinstance(config["target_modules"], list):
            config["target_modules"].sort()
        file.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        return
    from transformers import AutoTokenizer

    model.to(getattr(torch, dtype)).save_pretrained(folder, safe_serialization=True)
    AutoTokenizer.from_pretrained(base, trust_remote_code=False).save_pretrained(folder)


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Trainable parameters by name, in a fixed order."""
    return {name: p for name, p in sorted(model.named_parameters()) if p.requires_grad}


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
