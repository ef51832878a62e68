"""What the online methods learn from: samples of a problem with their rewards, and which of them can teach anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from configs.schema import TrainingSection
from trainers.estimators import grpo, reinforce, remax, rloo, t1


@dataclass(frozen=True)
class Trajectory:
    """One sampled completion. `token_ids` [T] end with the end token if one was produced; `logprobs` [T] are the
    sampler's natural logs at temperature 1."""

    token_ids: list[int]
    logprobs: list[float]
    reward: float
    right: bool
    truncated: bool


@dataclass(frozen=True)
class Greedy:
    """The greedy completion of a problem: ReMax's baseline. Its tokens are not kept: they must not be learned."""

    reward: float
    tokens: int


@dataclass(frozen=True)
class Group:
    """All samples of one problem in one step."""

    problem: str
    prompt_ids: list[int]
    samples: list[Trajectory]
    greedy: Greedy | None = None

    @property
    def rewards(self) -> torch.Tensor:
        """Rewards [samples], float32."""
        return torch.tensor([s.reward for s in self.samples])


def advantages(
    group: Group, settings: TrainingSection, batch_mean: float = 0.0, kl: torch.Tensor | None = None
) -> torch.Tensor:
    """Advantages [samples] before any KL per token; `kl` [samples] sums the log ratios where T1 wants them."""
    rewards = group.rewards
    if settings.method == "remax":
        if group.greedy is None:
            raise ValueError(f"problem {group.problem} has no greedy baseline")
        return remax(rewards, group.greedy.reward, settings.rl.difference_clip)
    if settings.method == "rloo":
        return rloo(rewards) if kl is None else t1(rewards, kl, settings.rl.kl_coefficient)
    if settings.method == "grpo":
        return grpo(rewards, settings.rl.std)
    return reinforce(rewards, batch_mean)


def useful(group: Group, settings: TrainingSection) -> bool:
    """Whether the rewards alone give the group a gradient. With REINFORCE: whether anything was rewarded."""
    return bool(advantages(group, settings).abs().max() > 0)


def batch_mean(groups: Sequence[Group], settings: TrainingSection) -> float:
    """The mean reward of the batch where it is the baseline, else 0."""
    if settings.method != "reinforce" or settings.rl.baseline == "none":
        return 0.0
    rewards = [s.reward for g in groups for s in g.samples]
    return sum(rewards) / max(1, len(rewards))
