"""`training.compile`: the decoder layers compiled, all by one graph, so that the host has fewer kernels to ask for."""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from configs.errors import ConfigError


def compile_layers(model: Any, device: torch.device) -> None:
    """Compile the decoder layers of `model`, for any width of a row. Raises ConfigError where nothing can be compiled."""
    # What was compiled for another model counts towards dynamo's limit, behind which layers stay as they are.
    torch.compiler.reset()
    try:
        torch.compile(lambda x: x.sin() + 1.0)(torch.ones(8, device=device))
    except Exception as e:  # a missing compiler, headers or triton: every one has its own error
        raise ConfigError(
            "training.compile needs a C++ compiler, and triton on a GPU: apt-get install g++, or set "
            f"training.compile=false ({str(e).strip().splitlines()[0]})"
        ) from e
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.compile(dynamic=True)
    # Frozen embeddings would give the first layer an input without a gradient, and so a graph of its own.
    embeddings = model.get_input_embeddings()
    embeddings.register_forward_hook(lambda _module, _args, out: out.requires_grad_(torch.is_grad_enabled()))
