"""RLOO (Kool et al. 2019; Ahmadian et al. 2024, arXiv 2402.14740): the mean reward of the other samples as baseline.

    A_i = r_i - (1/(n-1)) sum_{j != i} r_j
"""

from __future__ import annotations

import torch


def rloo(rewards: torch.Tensor) -> torch.Tensor:
    """Leave-one-out differences [samples]; they sum to zero. A single sample has no baseline and is worth nothing."""
    n = len(rewards)
    if n < 2:
        return torch.zeros_like(rewards)
    return rewards - (rewards.sum() - rewards) / (n - 1)
