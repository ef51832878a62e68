"""ReMax (Li et al. 2023, arXiv 2310.10505): the reward of the greedy completion as baseline.

    g = (1/N) sum_i sum_t grad log pi(a_t | x, a_<t) * ( r(x, a) - r(x, a_greedy) )

The baseline does not depend on the sampled tokens, so the gradient is unbiased without a critic. The greedy
completion is drawn from the same weights in the same batch, is shared by all samples of its problem (as in verl)
and never enters the loss. The paper's own code clips the difference (to 5) and decays it by gamma^(T-t) with
gamma = 0.99; here gamma is 1, as in the paper's formula, and clipping is an option.
"""

from __future__ import annotations

import torch


def remax(rewards: torch.Tensor, greedy: float, clip: float | None = None) -> torch.Tensor:
    """r - r(greedy) [samples]; with `clip`, the difference (not the reward) is kept within [-clip, clip]."""
    difference = rewards - greedy
    return difference if clip is None else difference.clamp(-clip, clip)
