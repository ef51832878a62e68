"""Log-probabilities of given next tokens without the logits of all tokens in memory.

Logits exist for a few hundred tokens at a time. With a frozen output projection W (adapters, evaluation) the
gradient is prepared in the forward pass, while a tile's probabilities p are at hand: d log p(y) / dh = W_y - p W
needs no upstream gradient, so that the backward pass is one elementwise product and the tile is computed once,
not twice. With a trainable W the backward pass computes the tiles again.
"""

from __future__ import annotations

from typing import Any

import torch

from configs.errors import InputError

TILE_BYTES = 512 << 20  # logits in memory at once, in float32


class Scale:
    """What a model does to its logits behind the projection: multiplication and soft-capping."""

    def __init__(self, config: Any) -> None:
        config = config.get_text_config()
        self.cap: float | None = getattr(config, "final_logit_softcapping", None)
        divisor = getattr(config, "logits_scaling", None)
        self.factor = float(getattr(config, "logit_scale", None) or (1.0 / divisor if divisor else 1.0))

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        logits = logits * self.factor if self.factor != 1.0 else logits
        return self.cap * torch.tanh(logits / self.cap) if self.cap else logits


def check_head(model: torch.nn.Module, scale: Scale) -> None:
    """Raise InputError if the model turns hidden states into logits in a way not known here."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    seen: list[torch.Tensor] = []
    handle = head.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    try:
        with torch.no_grad():
            logits = model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=head.weight.device), use_cache=False).logits
    finally:
        handle.remove()
    with torch.no_grad():
        ours = scale(torch.nn.functional.linear(seen[-1], head.weight, head.bias).float())
    if not torch.allclose(ours[:, -1], logits[:, -1].float(), rtol=2e-2, atol=2e-2):
        raise InputError(
            f"models of type {model.config.model_type} change their logits in a way that is not known here: "  # type: ignore[union-attr]
            "extend trainers/head.py"
        )


def token_logprobs(hidden: torch.Tensor, head: Any, targets: torch.Tensor, scale: Scale) -> torch.Tensor:
    """log p(targets) [n], float32, from `hidden` [n, size] in front of the output projection `head`."""
    weight, bias = head.weight, getattr(head, "bias", None)
    if weight.requires_grad or bias is not None or scale.cap or scale.factor != 1.0:
        return _recomputed(hidden, weight, bias, targets, scale)
    return _FrozenHead.apply(hidden, weight, targets)  # type: ignore[return-value]


def _tile(vocabulary: int) -> int:
    return max(64, TILE_BYTES // (4 * vocabulary))


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
        weight = weight.to(hidden.dtype)
        wanted = ctx.needs_input_grad[0]
        result = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        direction = torch.empty_like(hidden) if wanted else None
        for begin in range(0, len(targets), _tile(len(weight))):
            part = slice(begin, begin + _tile(len(weight)))
            logits = _project(hidden[part], weight)
            where = targets[part, None]
            normaliser = torch.logsumexp(logits, -1, keepdim=True)
            result[part] = (logits.gather(1, where) - normaliser)[:, 0]
            if direction is not None:
                # 1 - p(y) before rounding: for sure tokens it is tiny, and the difference of two products is noise
                excess = logits.sub_(normaliser).exp_().neg_()
                excess.scatter_add_(1, where, torch.ones_like(where, dtype=excess.dtype))
                torch.mm(excess.to(hidden.dtype), weight, out=direction[part])
        ctx.save_for_backward(direction)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        (direction,) = ctx.saved_tensors
        return (gradients[0][:, None] * direction).to(direction.dtype), None, None


def _project(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Logits in float32, on a GPU without rounding them to bfloat16 in between."""
    if hidden.is_cuda and hidden.dtype != torch.float32:
        return torch.mm(hidden, weight.t(), out_dtype=torch.float32)
    return (hidden @ weight.t()).float()


def _recomputed(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor, scale: Scale
) -> torch.Tensor:
    def tile(h: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = scale(torch.nn.functional.linear(h, weight, bias).float())
        return logits.gather(1, y[:, None])[:, 0] - torch.logsumexp(logits, -1)

    size = _tile(len(weight))
    parts = [(hidden[i : i + size], targets[i : i + size]) for i in range(0, len(targets), size)]
    if len(parts) == 1:  # fits: nothing to compute again
        return tile(*parts[0])
    return torch.cat([torch.utils.checkpoint.checkpoint(tile, h, y, use_reentrant=False) for h, y in parts])  # type: ignore[misc]
