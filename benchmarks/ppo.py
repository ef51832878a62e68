"""PPO with a critic, as the peer of ReMax in `benchmarks.policy_gradient` and for nothing else.

Same packed forward, same loss on tokens and same optimiser as ReMax here. What it has besides is what ReMax leaves
out: a critic as large as the policy with its own adapter and value head, a pass for the old values, generalised
advantage estimation (Schulman et al. 2016) and the clipped value loss. Old log-probabilities are always computed
before the update, since PPO reuses its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from configs.schema import TrainingSection
from trainers.model import trainable
from trainers.optimizer import Optimizer
from trainers.packing import Packed
from trainers.policy import Policy
from trainers.policy_gradient import PolicyGradient, _Micro, _Totals
from trainers.rollouts import Group

LAMBDA, VALUE_CLIP, VALUE_WEIGHT = 0.95, 0.2, 0.5


class Ppo:
    """`trainer` is the policy with its reference; `critic` a second model whose output projection is not used."""

    def __init__(self, trainer: PolicyGradient, critic: Policy, settings: TrainingSection) -> None:
        self.trainer, self.critic = trainer, critic
        size = critic.model.config.get_text_config().hidden_size
        self.head = torch.nn.Linear(size, 1, device=critic.device, dtype=torch.float32)
        torch.nn.init.zeros_(self.head.weight)
        parameters = trainable(critic.model) | {f"value.{n}": p for n, p in self.head.named_parameters()}
        self.optimizer = Optimizer(parameters, settings)
        self.rate = settings.learning_rate

    def values(self, packed: Packed) -> torch.Tensor:
        """Values [targets] of the states before them."""
        return self.head(self.critic._hidden(packed).float())[packed.places, 0]

    def update(self, groups: Sequence[Group], step: int) -> None:
        """One step of policy and critic."""
        trainer = self.trainer
        totals = _Totals(sum(len(s.token_ids) for g in groups for s in g.samples), sum(len(g.samples) for g in groups))
        micros = trainer._micros(groups, [range(len(g.samples)) for g in groups])
        trainer._score(micros)
        targets = [self._prepare(groups, m) for m in micros]
        for micro, (old, returns) in zip(micros, targets, strict=True):
            trainer._loss(micro, totals)[0].backward()
            value = self.values(micro.packed)
            held = old + (value - old).clamp(-VALUE_CLIP, VALUE_CLIP)
            loss = torch.maximum((value - returns) ** 2, (held - returns) ** 2).sum() / totals.tokens
            (VALUE_WEIGHT * loss).backward()
        trainer._move(step)
        self.optimizer.step(self.rate)

    def _prepare(self, groups: Sequence[Group], micro: _Micro) -> tuple[torch.Tensor, torch.Tensor]:
        """Old values and returns [targets]; puts the advantages into `micro`."""
        trainer = self.trainer
        with self.critic.evaluating():
            old = self.values(micro.packed)
        if micro.old is None:
            with trainer.policy.evaluating():
                scored = trainer.policy.values(micro.packed, trainer.temperature)
            micro.old, micro.old_untempered = scored.logprobs, scored.untempered
        penalty = torch.zeros_like(old)
        if micro.reference is not None:
            penalty = trainer.rl.kl_coefficient * (micro.old - micro.reference)
        counts = torch.bincount(micro.packed.owner, minlength=micro.packed.sequences).tolist()
        advantages = []
        for (k, i), v, p in zip(micro.samples, old.cpu().split(counts), penalty.cpu().split(counts), strict=True):
            rewards = -p
            rewards[-1] += groups[k].samples[i].reward
            advantages.append(gae(rewards, v))
        found = torch.cat(advantages).to(old.device)
        micro.advantages = (found - found.mean()) / (found.std() + 1e-8)
        return old, found + old


def gae(rewards: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Advantages [tokens] with gamma 1: discounted sums (by lambda) of r_t + V_{t+1} - V_t."""
    delta = (rewards + torch.cat([values[1:], values.new_zeros(1)]) - values).tolist()
    result, carried = [0.0] * len(delta), 0.0
    for t in reversed(range(len(delta))):
        carried = delta[t] + LAMBDA * carried
        result[t] = carried
    return torch.tensor(result)
