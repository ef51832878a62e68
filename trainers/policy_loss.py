"""Policy-gradient losses on tokens, and what the sampler's and the trainer's probabilities differ by.

All functions are pure; tensors are [tokens] of a packed micro-batch unless said otherwise.
"""

from __future__ import annotations

import torch


def surrogate(
    logprobs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, clip_low: float, clip_high: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A) with rho = pi / pi_old, and where clipping took the gradient away.

    PPO's clipped objective (Schulman et al. 2017, eq. 7) for several updates a batch. In the first update rho is 1
    and the gradient is that of -A log pi: plain policy gradient.
    """
    ratio = (logprobs - old).exp()
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    cut = ((advantages > 0) & (ratio > 1.0 + clip_high)) | ((advantages < 0) & (ratio < 1.0 - clip_low))
    return -torch.minimum(ratio * advantages, clipped * advantages), cut


def importance_weights(trainer: torch.Tensor, sampler: torch.Tensor, cap: float) -> torch.Tensor:
    """min(pi_trainer / pi_sampler, cap): truncated importance sampling (Ionides 2008; for a sampler whose kernels or
    precision differ from the trainer's: Yao et al. 2025). Both are log-probabilities of the same weights."""
    return (trainer - sampler).exp().clamp(max=cap)


def k3(other: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """exp(d) - d - 1 with d = log other - log own, for tokens drawn from `own`: an unbiased, never negative estimate
    of KL(own || other) (Schulman 2020). Differentiable in `own`, as GRPO uses it."""
    difference = other - own
    return difference.exp() - difference - 1.0


def token_weights(owner: torch.Tensor, sequences: int, mode: str, total_tokens: int, total_sequences: int) -> torch.Tensor:
    """Weights of the tokens in the batch's loss. `owner` [tokens] says whose each is; totals are of the whole batch.

    sequence_sum: 1 / sequences (the policy gradient itself; ReMax's formula). token_mean: 1 / tokens (ReMax's code,
    DAPO). sequence_mean: 1 / (tokens of the sequence * sequences) (GRPO as published: short answers weigh more).
    """
    if mode == "token_mean":
        return torch.full(owner.shape, 1.0 / total_tokens, device=owner.device)
    if mode == "sequence_sum":
        return torch.full(owner.shape, 1.0 / total_sequences, device=owner.device)
    lengths = torch.bincount(owner, minlength=sequences)
    return 1.0 / (lengths[owner] * float(total_sequences))
