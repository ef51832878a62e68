"""Gradient checkpointing (Chen et al. 2016, arXiv:1604.06174) of decoder layers in two halves, the second tile by tile.

Of a layer only its input is kept. Its backward pass computes the attention half again, with all that autograd needs of it,
and then the MLP half for some tokens at a time: forward, backward, next tile. Usual checkpointing computes a whole layer again
before its backward pass begins, and most of what that holds are the MLP's wide states. Nothing is computed more often than
there; what changes is the order, so gradients differ by rounding alone. 4-bit weights of an MLP are unpacked once for all of
its tiles.

MLPs work on each token by itself, which is what makes tiles possible (as in ALST, Bekman et al. 2025, arXiv:2506.13996, there
for long sequences).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from trainers.tiling import product_dtype, tiles
from trainers.unpacking import unpacked

TILE_BYTES = 256 << 20  # of an MLP's wide states; smaller tiles would make its matrix products slow
_WIDE = 4  # states as wide as the MLP that autograd keeps of each token
# Layers of this form: x + attention(norm(x)), then h + mlp(norm(h)).
_KNOWN = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")

Half = Callable[[torch.Tensor], torch.Tensor]


def recompute_layers(model: Any) -> bool:
    """Have all decoder layers of `model` computed again in the backward pass; False, and nothing changed, where a layer is of
    another form."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers or any(type(layer).__name__ not in _KNOWN for layer in layers):
        return False
    for layer in layers:
        layer.forward = functools.partial(_forward, layer, layer.forward)
    return True


def _forward(layer: Any, plain: Callable[..., torch.Tensor], hidden_states: torch.Tensor, **inputs: Any) -> torch.Tensor:
    """In place of the layer's own forward pass, `plain`, which does where no backward pass will follow."""
    if not (torch.is_grad_enabled() and hidden_states.requires_grad):
        return plain(hidden_states, **inputs)

    def attention(x: torch.Tensor) -> torch.Tensor:
        return x + layer.self_attn(hidden_states=layer.input_layernorm(x), **inputs)[0]

    def mlp(h: torch.Tensor) -> torch.Tensor:
        return h + layer.mlp(layer.post_attention_layernorm(h))

    wide = _WIDE * layer.mlp.gate_proj.out_features * product_dtype(hidden_states).itemsize
    result = _Layer.apply(attention, mlp, layer.mlp, max(1, TILE_BYTES // wide), hidden_states)
    assert isinstance(result, torch.Tensor)
    return result


class _Layer(torch.autograd.Function):
    """attention, then mlp, whose weights are in `module`, on hidden states [rows, width, size]."""

    @staticmethod
    def forward(
        ctx: Any, attention: Half, mlp: Half, module: torch.nn.Module, tile: int, hidden: torch.Tensor
    ) -> torch.Tensor:
        ctx.halves, ctx.module, ctx.tile, ctx.state = (attention, mlp), module, tile, _State(hidden.device)
        ctx.save_for_backward(hidden)
        states = attention(hidden).flatten(0, 1)
        out = torch.empty_like(states)
        with unpacked(module):
            for part in tiles(len(states), tile):
                out[part] = mlp(states[None, part])[0]
        return out.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, None, None, None, torch.Tensor | None]:
        (hidden,), (gradient,) = ctx.saved_tensors, gradients
        attention, mlp = ctx.halves
        start = hidden.detach().requires_grad_()
        with ctx.state.again():
            with ctx.state.computing():
                middle = attention(start)
            states, incoming = middle.detach().flatten(0, 1), gradient.flatten(0, 1)
            outgoing = torch.empty_like(states)
            with unpacked(ctx.module):
                for part in tiles(len(states), ctx.tile):
                    own = states[None, part].requires_grad_()
                    with ctx.state.computing():
                        out = mlp(own)
                    torch.autograd.backward(out, incoming[None, part])
                    assert own.grad is not None
                    outgoing[part] = own.grad[0]
        torch.autograd.backward(middle, outgoing.view_as(middle))
        return None, None, None, None, start.grad


class _State:
    """What a computation must find again to give the same numbers: random states (of dropout) and autocast."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.random = torch.get_rng_state()
        self.random_cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        kind = device.type
        self.autocast = (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind), torch.is_autocast_cache_enabled())

    @contextmanager
    def again(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[] if self.random_cuda is None else [self.device]):
            torch.set_rng_state(self.random)
            if self.random_cuda is not None:
                torch.cuda.set_rng_state(self.random_cuda, self.device)
            yield

    @contextmanager
    def computing(self) -> Iterator[None]:
        on, dtype, cached = self.autocast
        with torch.enable_grad(), torch.autocast(self.device.type, dtype, enabled=on, cache_enabled=cached):
            yield
