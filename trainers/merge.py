"""An adapter merged into its base: W + scale * B A in the base's own precision, for tools that know no adapters.

The base is read unquantised, also where the adapter was trained over a 4-bit one: so the sampler of a run loads it, and so
the run's figures were measured.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from trainers.checkpoint import saving


def save_merged(base: Path, adapter: Path, folder: Path) -> str:
    """Write base and adapter as one model: safetensors, tokenizer with its chat template, generation config.

    Returns the data type of the weights, that of `base`. Each product B A is computed in float32 and rounded once. The
    base's own generation_config.json is kept byte for byte. Raises SaveError when the disk is full.
    """
    from peft import PeftModel

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype="auto", use_safetensors=True, trust_remote_code=False)
    _untie(model, adapter)
    merged: Any = PeftModel.from_pretrained(model, str(adapter), use_safetensors=True)  # casts the adapter to float32
    merged = merged.merge_and_unload(safe_merge=True)  # raises where a weight would not be finite
    # what is sampled with is the base's choice; a file with settings that contradict each other cannot be saved anew
    merged.generation_config = GenerationConfig.from_model_config(merged.config)
    with saving(folder):
        merged.save_pretrained(folder, safe_serialization=True)
        AutoTokenizer.from_pretrained(base, trust_remote_code=False).save_pretrained(folder)
        if (base / "generation_config.json").is_file():
            shutil.copyfile(base / "generation_config.json", folder / "generation_config.json")
    return str(merged.dtype).removeprefix("torch.")


def _untie(model: Any, adapter: Path) -> None:
    """Give input and output embeddings weights of their own where the adapter changes one of them.

    Tied weights are one matrix: merged into the one, the change would appear in the other too.
    """
    config = json.loads((adapter / "adapter_config.json").read_text())
    targets = config["target_modules"]
    ends = {name.rpartition(".")[2] for name in ([targets] if isinstance(targets, str) else targets)}
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if module is inputs or module is outputs}
    if outputs is not None and outputs.weight is inputs.weight and ends & names:
        outputs.weight = torch.nn.Parameter(inputs.weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False
