"""REINFORCE (Williams 1992): the reward itself, or its difference to the mean reward of the whole batch."""

from __future__ import annotations

import torch


def reinforce(rewards: torch.Tensor, batch_mean: float = 0.0) -> torch.Tensor:
    """r - batch_mean [samples]; a batch mean of 0 is plain REINFORCE. The mean includes the sample itself, which
    shrinks the gradient by 1/N of it, as everywhere where it is used."""
    return rewards - batch_mean
