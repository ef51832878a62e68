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
    sampler's natural logs at temperature 1. `advantages` [T], where given (from the values of steps), are learned from
    in place of what the method makes of the reward."""

    token_ids: list[int]
    logprobs: list[float]
    reward: float
    right: bool
    truncated: bool
    advantages: list[float] | None = None

    def __post_init__(self) -> None:
        if self.advantages is not None and len(self.advantages) != len(self.token_ids):
            raise ValueError(f"{len(self.advantages)} advantages for {len(self.token_ids)} tokens")


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


def advantages_of_tokens(
    group: Group, settings: TrainingSection, batch_mean: float = 0.0, kl: torch.Tensor | None = None
) -> list[torch.Tensor]:
    """Of each sample, advantages [T] before any KL per token: its own ones, else the sample's advantage on all tokens."""
    own = [None if s.advantages is None else torch.tensor(s.advantages) for s in group.samples]
    if kl is not None and any(a is not None for a in own):
        raise ValueError(f"problem {group.problem}: advantages of tokens do not go with the KL of whole sequences")
    if all(a is not None for a in own):
        return [a for a in own if a is not None]
    each = advantages(group, settings, batch_mean, kl)
    pairs = zip(own, each, group.samples, strict=True)
    return [e.expand(len(s.token_ids)) if a is None else a for a, e, s in pairs]


def useful(group: Group, settings: TrainingSection) -> bool:
    """Whether the rewards alone give the group a gradient. With REINFORCE: whether anything was rewarded; with values of
    steps: whether the rewards differ, for groups of equal rewards are not rolled out."""
    if settings.rl.step_rollouts:
        return bool(group.rewards.min() < group.rewards.max())
    return bool(advantages(group, settings).abs().max() > 0)


def batch_mean(groups: Sequence[Group], settings: TrainingSection) -> float:
    """The mean reward of the batch where it is the baseline, else 0."""
    if settings.method != "reinforce" or settings.rl.baseline == "none":
        return 0.0
    rewards = [s.reward for g in groups for s in g.samples]
    return sum(rewards) / max(1, len(rewards))
