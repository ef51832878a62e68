"""Optimisers over float32 copies of what is trained.

Adapters live in the model's own precision: a float32 adapter on a bfloat16 base would turn every input of every
projection into a float32 copy, kept for the backward pass. The optimiser works on float32 copies (masters), to
which gradients are added micro-batch by micro-batch, so small updates and small gradients are not rounded away.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from configs.errors import ConfigError
from configs.schema import TrainingSection


class Optimizer:
    """Trainable parameters, their float32 masters, and the rule that moves them.

    A parameter that is float32 already is its own master.
    """

    def __init__(self, parameters: dict[str, torch.nn.Parameter], settings: TrainingSection) -> None:
        self.parameters = parameters
        self.masters = {
            name: p if p.dtype == torch.float32 else torch.nn.Parameter(p.detach().float())
            for name, p in parameters.items()
        }
        self.max_norm = settings.max_grad_norm
        self.rule = _rule(list(self.masters.values()), settings)
        for name, p in parameters.items():
            if self.masters[name] is not p:
                p.register_post_accumulate_grad_hook(self._collector(self.masters[name]))

    @staticmethod
    def _collector(master: torch.nn.Parameter) -> Callable[[torch.Tensor], None]:
        def collect(p: torch.Tensor) -> None:
            assert p.grad is not None
            if master.grad is None:
                master.grad = p.grad.float()
            else:
                master.grad += p.grad
            p.grad = None

        return collect

    def step(self, rate: float) -> float:
        """One update with the gradients collected; the gradient norm before clipping. Clears the gradients."""
        for group in self.rule.param_groups:
            group["lr"] = rate
        norm = torch.nn.utils.clip_grad_norm_(list(self.masters.values()), self.max_norm).item()
        if math.isfinite(norm):
            self.rule.step()
            self.publish()
        self.clear()
        return norm

    def publish(self) -> None:
        """Copy the masters into the model."""
        with torch.no_grad():
            for name, p in self.parameters.items():
                if self.masters[name] is not p:
                    p.copy_(self.masters[name])

    def clear(self) -> None:
        """Forget the gradients."""
        self.rule.zero_grad(set_to_none=True)


def _rule(parameters: list[torch.nn.Parameter], settings: TrainingSection) -> torch.optim.Optimizer:
    if settings.optimizer == "paged_adamw_8bit":
        if not torch.cuda.is_available():
            raise ConfigError("training.optimizer is `paged_adamw_8bit`, which needs a GPU: set training.optimizer=adamw")
        from bitsandbytes.optim.adamw import PagedAdamW8bit

        return PagedAdamW8bit(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    # On a GPU, torch's default would hold the square roots of all second moments at once: 4 bytes a parameter.
    return torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.999),
        fused=parameters[0].is_cuda or None,
    )
