"""Log-probabilities of given next tokens, and entropies, without the logits of all tokens in memory.

Logits exist for a few hundred tokens at a time. With a frozen output projection W (adapters, evaluation) the
gradient is prepared in the forward pass, while a tile's probabilities p are at hand: d log p(y) / dh = W_y - p W
needs no upstream gradient, so that the backward pass is one elementwise product and the tile is computed once,
not twice. The entropy H has such a direction too: d H / dh = -(p (log p + H)) W. With a trainable W the gradients of
h and W need g, the upstream one, sample by sample: the backward pass computes a tile's p again, in place of the logits,
and adds (g (1_y - p))^T h to the gradient of W in float32.

At a temperature T the policy is softmax(logits / T); the values at T = 1 come along, because that is what sampling
engines report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from configs.errors import InputError
from trainers.tiling import product_dtype, tiles

TILE_BYTES = 512 << 20  # logits in memory at once, in float32; what fits need not be computed again
FROZEN_BYTES = 256 << 20  # ... where nothing is computed again anyway
SUM_BYTES = 32 << 20  # what a tile adds to the gradient of the output projection at a time


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


class TokenValues(NamedTuple):
    """Per token, float32: log p(target) at the temperature asked for (differentiable), the same at temperature 1
    (not differentiable), and the entropy in nats at the temperature (differentiable where asked for)."""

    logprobs: torch.Tensor
    untempered: torch.Tensor
    entropy: torch.Tensor


def token_logprobs(hidden: torch.Tensor, head: Any, targets: torch.Tensor, scale: Scale) -> torch.Tensor:
    """log p(targets) [n], float32, from `hidden` [n, size] in front of the output projection `head`."""
    weight, bias = head.weight, getattr(head, "bias", None)
    if _unusual(bias, scale):
        return _recomputed(hidden, weight, bias, targets, scale)
    if weight.requires_grad:
        return _TrainedHead.apply(hidden, weight, targets, None)[0]  # type: ignore[index]
    return _FrozenHead.apply(hidden, weight, targets)  # type: ignore[return-value]


def token_values(
    hidden: torch.Tensor, head: Any, targets: torch.Tensor, scale: Scale, temperature: float, entropy_gradient: bool
) -> TokenValues:
    """As `token_logprobs`, with the policy's temperature and the entropies."""
    weight, bias = head.weight, getattr(head, "bias", None)
    if _unusual(bias, scale) or (weight.requires_grad and entropy_gradient):
        return _recomputed_values(hidden, weight, bias, targets, scale, temperature, entropy_gradient)
    if weight.requires_grad:
        return TokenValues(*_TrainedHead.apply(hidden, weight, targets, 1.0 / temperature))  # type: ignore[misc]
    return TokenValues(*_FrozenValues.apply(hidden, weight, targets, 1.0 / temperature, entropy_gradient))  # type: ignore[misc]


def _unusual(bias: torch.Tensor | None, scale: Scale) -> bool:
    return bias is not None or bool(scale.cap) or scale.factor != 1.0


def _tile(vocabulary: int, size: int) -> int:
    """Tokens whose logits take `size` bytes."""
    return max(64, size // (4 * vocabulary))


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        hidden = hidden.to(product_dtype(hidden))
        weight = weight.to(hidden.dtype)
        wanted = ctx.needs_input_grad[0]
        result = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        direction = torch.empty_like(hidden) if wanted else None
        tile = _tile(len(weight), FROZEN_BYTES)
        for part in tiles(len(targets), tile):
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


class _FrozenValues(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, factor: float, entropy_gradient: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = hidden.to(product_dtype(hidden))
        weight = weight.to(hidden.dtype)
        logprobs, untempered, entropy = torch.empty(3, len(targets), dtype=torch.float32, device=hidden.device)
        wanted = ctx.needs_input_grad[0]
        direction = torch.empty_like(hidden) if wanted else None
        widening = torch.empty_like(hidden) if wanted and entropy_gradient else None
        tile = _tile(len(weight), FROZEN_BYTES)
        for part in tiles(len(targets), tile):
            logits = _project(hidden[part], weight)
            where = targets[part, None]
            if factor != 1.0:
                untempered[part] = logits.gather(1, where)[:, 0] - torch.logsumexp(logits, -1)
                logits.mul_(factor)
            logits.sub_(torch.logsumexp(logits, -1, keepdim=True))  # log p from here on
            logprobs[part] = logits.gather(1, where)[:, 0]
            if factor == 1.0:
                untempered[part] = logprobs[part]
            p = logits.exp()
            entropy[part] = -(p * logits.clamp(min=-1e30)).sum(-1)  # p log p is 0 where p is
            if widening is not None:
                slope = logits.clamp_(min=-1e30).add_(entropy[part, None]).mul_(p).mul_(-factor)
                torch.mm(slope.to(hidden.dtype), weight, out=widening[part])
            if direction is not None:
                excess = p.neg_()
                excess.scatter_add_(1, where, torch.ones_like(where, dtype=excess.dtype))
                torch.mm(excess.mul_(factor).to(hidden.dtype), weight, out=direction[part])
        ctx.save_for_backward(direction, widening)
        ctx.mark_non_differentiable(untempered, *(() if entropy_gradient else (entropy,)))
        return logprobs, untempered, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None, None]:
        direction, widening = ctx.saved_tensors
        gradient = gradients[0][:, None] * direction
        if widening is not None:
            gradient = gradient + gradients[2][:, None] * widening
        return gradient.to(direction.dtype), None, None, None, None


class _TrainedHead(torch.autograd.Function):
    """`factor` None: log-probabilities alone; else 1 / temperature, and all three values, of which the log-probabilities at
    the temperature are differentiable. What fits into one tile is kept, not computed again. The backward pass adds to a
    gradient that W has already: it is for `backward()`, not for `torch.autograd.grad`."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, factor: float | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ctx.low, ctx.factor, ctx.tile = product_dtype(hidden), factor or 1.0, _tile(len(weight), TILE_BYTES)
        own, matrix = hidden.to(ctx.low), weight.to(ctx.low)
        logprobs, normalisers = torch.empty(2, len(targets), dtype=torch.float32, device=hidden.device)
        untempered, entropy = logprobs.new_empty(2, len(targets) if factor else 0)
        ctx.kept = None
        for part in tiles(len(targets), ctx.tile):
            logits, where = _project(own[part], matrix), targets[part, None]
            if ctx.factor != 1.0:
                untempered[part] = logits.gather(1, where)[:, 0] - torch.logsumexp(logits, -1)
                logits.mul_(ctx.factor)
            normalisers[part] = torch.logsumexp(logits, -1)
            logprobs[part] = logits.gather(1, where)[:, 0] - normalisers[part]
            if factor:
                if ctx.factor == 1.0:
                    untempered[part] = logprobs[part]
                logs = logits.sub_(normalisers[part, None]).clamp_(min=-1e30)  # p log p is 0 where p is
                entropy[part] = -logs.exp().mul_(logs).sum(-1)
            if len(targets) <= ctx.tile:
                ctx.kept = logits if factor else logits.sub_(normalisers[part, None])
        ctx.save_for_backward(hidden, weight, targets, normalisers)
        ctx.mark_non_differentiable(untempered, entropy)
        return logprobs, untempered, entropy

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator's own type
        ctx: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, None]:
        hidden, weight, targets, normalisers = ctx.saved_tensors
        own, matrix = hidden.to(ctx.low), weight.to(ctx.low)
        # What earlier micro-batches have left is added to in place: of a large vocabulary a second one would take gigabytes.
        former = weight.grad if weight.is_leaf and weight.dtype == torch.float32 else None
        of_hidden = torch.empty_like(own)
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if former is None else former
        for part in tiles(len(targets), ctx.tile):
            logs, ctx.kept = ctx.kept, None  # used up: a second backward pass would compute it again
            if logs is None:
                logs = _project(own[part], matrix).mul_(ctx.factor).sub_(normalisers[part, None])
            excess, where = logs.exp_().neg_(), targets[part, None]
            excess.scatter_add_(1, where, torch.ones_like(where, dtype=excess.dtype))  # 1 - p(y) before rounding
            low = excess.mul_(ctx.factor * gradients[0][part, None]).to(ctx.low)
            torch.mm(low, matrix, out=of_hidden[part])
            for rows in tiles(len(weight), SUM_BYTES // (4 * weight.shape[1])):
                of_weight[rows] += _project(low.t()[rows], own[part].t())
            del logs, excess, low  # before the next tile is computed
        return of_hidden.to(hidden.dtype), of_weight.to(weight.dtype) if former is None else None, None, None


def _project(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Logits in float32, on a GPU without rounding them to bfloat16 in between."""
    if hidden.is_cuda and hidden.dtype != torch.float32:
        return torch.mm(hidden, weight.t(), out_dtype=torch.float32)
    return (hidden @ weight.t()).float()


def _recompute(tile: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
    """`tile(*inputs)`, computed again in the backward pass; nothing in it is random."""
    return torch.utils.checkpoint.checkpoint(tile, *inputs, use_reentrant=False, preserve_rng_state=False)  # type: ignore


def _recomputed(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor, scale: Scale
) -> torch.Tensor:
    def tile(h: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = scale(torch.nn.functional.linear(h, weight, bias).float())
        return logits.gather(1, y[:, None])[:, 0] - torch.logsumexp(logits, -1)

    size = _tile(len(weight), TILE_BYTES)
    parts = [(hidden[part], targets[part]) for part in tiles(len(targets), size)]
    if len(parts) == 1:  # fits: nothing to compute again
        return tile(*parts[0])
    return torch.cat([_recompute(tile, h, y) for h, y in parts])


def _recomputed_values(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor, scale: Scale,
    temperature: float, entropy_gradient: bool,
) -> TokenValues:
    def tile(h: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = scale(torch.nn.functional.linear(h, weight, bias).float())
        with torch.no_grad():
            untempered = logits.gather(1, y[:, None])[:, 0] - torch.logsumexp(logits, -1)
        logs = torch.log_softmax(logits / temperature, -1)
        entropy = -(logs.exp() * logs).sum(-1)
        return torch.stack([logs.gather(1, y[:, None])[:, 0], untempered, entropy if entropy_gradient else entropy.detach()])

    size = _tile(len(weight), TILE_BYTES)
    parts = [(hidden[part], targets[part]) for part in tiles(len(targets), size)]
    columns = tile(*parts[0]) if len(parts) == 1 else torch.cat([_recompute(tile, h, y) for h, y in parts], 1)
    return TokenValues(columns[0], columns[1].detach(), columns[2] if entropy_gradient else columns[2].detach())
