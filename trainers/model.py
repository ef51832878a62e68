"""Models for training: loading, adapters, saving. Weights load from safetensors only; remote code never runs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from configs.errors import ConfigError, InputError
from configs.schema import LoraSection
from trainers.attention import IMPLEMENTATION

if TYPE_CHECKING:
    from peft import PeftModel


def load_for_training(
    path: Path, dtype: str, adapter: str, lora: LoraSection, start: Path | None, seed: int, attention: str = "sdpa"
) -> PreTrainedModel | PeftModel:
    """The model in `path` with its trainable parameters marked.

    lora: base weights frozen and adapter weights trainable, both in `dtype` (the optimiser keeps float32 copies);
    `start` continues an earlier adapter.
    qlora: the same on a base quantised to 4-bit NormalFloat with double quantisation (Dettmers et al. 2023).
    full: all weights trainable in float32 (the forward pass runs under autocast when `dtype` is bfloat16).
    """
    full = adapter == "full"
    more: dict[str, Any] = {}
    if adapter == "qlora":
        more = {"quantization_config": _nf4(dtype), "device_map": {"": device()}}
    model: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32 if full else getattr(torch, dtype), use_safetensors=True, trust_remote_code=False,
        attn_implementation=IMPLEMENTATION[attention], **more,
    )
    model.config.use_cache = False
    if full:
        if start is not None:
            raise InputError(f"training.adapter is `full`, but {start} is a LoRA adapter: set training.adapter=lora")
        return model.to(device()).train()
    from peft import LoraConfig, PeftModel, get_peft_model

    if start is not None:
        started = PeftModel.from_pretrained(
            model, str(start), is_trainable=True, use_safetensors=True, autocast_adapter_dtype=False
        )
        return _ready(started, dtype)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # the only randomness here: the initial A matrices
        peft_model = get_peft_model(
            model,
            LoraConfig(
                r=lora.r, lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a float works
                lora_dropout=lora.dropout, target_modules=lora.targets,
                task_type="CAUSAL_LM",
            ),
            autocast_adapter_dtype=False,
        )
    return _ready(peft_model, dtype)


def _ready(model: PeftModel, dtype: str) -> PeftModel:
    """On the device, adapter weights in `dtype` also where the base is quantised."""
    for parameter in trainable(model).values():
        parameter.data = parameter.data.to(getattr(torch, dtype))
    return model.to(device()).train()


def _nf4(dtype: str) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("training.adapter is `qlora`, which needs bitsandbytes: pip install '.[qlora]', or set lora")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


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
