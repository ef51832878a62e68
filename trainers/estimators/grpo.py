"""GRPO (Shao et al. 2024, arXiv 2402.03300): rewards standardised within the samples of a problem.

    A_i = (r_i - mean r) / (std r + 1e-6)

The standard deviation has n - 1 in the denominator, as in verl and TRL (whose epsilon is 1e-4). Without it (`std`
false) this is Dr. GRPO (Liu et al. 2025, arXiv 2503.20783), which is RLOO up to the factor (n - 1) / n.
"""

from __future__ import annotations

import torch

EPSILON = 1e-6


def grpo(rewards: torch.Tensor, std: bool = True) -> torch.Tensor:
    """Standardised rewards [samples]; equal rewards, or a single sample, are worth nothing."""
    centred = rewards - rewards.mean()
    if not std or len(rewards) < 2:
        return centred
    return centred / (rewards.std() + EPSILON)
