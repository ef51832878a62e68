"""T1 (Hou et al. 2025, arXiv 2501.11651): leave-one-out for the rewards and for the KL penalties ("on-policy KL
normalisation"), one advantage for all tokens of a sample.

    A_i = (r_i - mean_{j != i} r_j) - beta * (KL_i - mean_{j != i} KL_j)

Rewards hold the penalties already (-1 for overlong, repetitive or garbled text, see `rewards.penalties`); KL_i is
summed over the sample's tokens, against the moving anchor. The order penalise, leave one out, subtract is our
reading; since leaving one out is linear it equals RLOO on r - beta KL, which is also what TRL's RLOO does.
"""

from __future__ import annotations

import torch

from trainers.estimators.rloo import rloo


def t1(rewards: torch.Tensor, kl: torch.Tensor, beta: float) -> torch.Tensor:
    """Advantages [samples] from rewards [samples] and summed KL estimates [samples]."""
    return rloo(rewards) - beta * rloo(kl)
