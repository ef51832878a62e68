"""A KL penalty in the reward, token by token.

k_t = log pi_old(a_t) - log pi_ref(a_t) is the unbiased estimate of the divergence at token t. Token t may answer for
its own k_t alone (`token`: ReMax's published code) or for all that follow it (`to_go`: the gradient of the summed
penalty; verl's ReMax). The greedy baseline carries no KL in either.
"""

from __future__ import annotations

import torch


def token_advantages(advantage: torch.Tensor, kl: torch.Tensor, coefficient: float, mode: str) -> torch.Tensor:
    """Advantages [tokens] of one sample from its advantages before the KL ([tokens], or one scalar tensor) and k [tokens]."""
    if mode == "token":
        return advantage - coefficient * kl
    if mode == "to_go":
        return advantage - coefficient * kl.flip(0).cumsum(0).flip(0)
    return advantage.expand(len(kl))
