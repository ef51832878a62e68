"""The mean of the weights of the last steps (stochastic weight averaging, Izmailov et al. 2018, arXiv:1803.05407; of the latest
checkpoints, Kaddour 2022, arXiv:2209.14981).

Departure: every step counts, not the ends of cycles or epochs, and the schedule stays the recipe's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch


class TailAverage:
    """The uniform mean of the trained weights after each of the last `share` of `steps` steps, in float32.

    `tensors` belong into every checkpoint: the mean so far, by name; how many steps it has follows from the step.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], share: float, steps: int) -> None:
        self.first = steps - max(1, math.ceil(share * steps))  # steps before the first one that counts
        self._parameters = parameters
        self.tensors = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}

    @torch.no_grad()
    def after(self, step: int) -> None:
        """Take in the weights after step `step` (from 0)."""
        if step >= self.first:
            for name, mean in self.tensors.items():
                mean.lerp_(self._parameters[name].detach().float(), 1.0 / (step - self.first + 1))

    @torch.no_grad()
    def apply(self) -> None:
        """Put the mean in place of the weights."""
        for name, mean in self.tensors.items():
            self._parameters[name].copy_(mean)
