"""4-bit weights (QLoRA) unpacked once for several products. bitsandbytes unpacks a weight for each product, forward and
backward; where the same layer works on one tile of tokens after another, that takes longer than the products."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def unpacked(module: torch.nn.Module) -> Iterator[None]:
    """Within it, the 4-bit layers of `module` multiply with weights unpacked at the beginning, in the type that they compute
    in. The products are the same; the weights take 2 bytes each meanwhile."""
    layers = [m for m in module.modules() if _state(m) is not None]
    former = [vars(layer).get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.forward = functools.partial(_product, layer, _weight(layer))
        yield
    finally:
        for layer, forward in zip(layers, former, strict=True):
            if forward is not None:
                layer.forward = forward
            else:
                vars(layer).pop("forward", None)


def _state(module: torch.nn.Module) -> Any:
    """How the module's own weight is packed; None where it is not. An adapter around a layer shows the layer's weight as its
    own, so only registered parameters count."""
    return getattr(module._parameters.get("weight"), "quant_state", None)


def _weight(layer: Any) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit

    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return weight if layer.compute_dtype is None else weight.to(layer.compute_dtype)


def _product(layer: Any, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    bias = None if layer.bias is None else layer.bias.to(weight.dtype)
    return torch.nn.functional.linear(x.to(weight.dtype), weight, bias).to(x.dtype)
