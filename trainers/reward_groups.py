"""Training on groups of scored solutions: what outcome and process reward models have in common.

A batch is `batch_size` problems. All solutions of a problem go through the model in one forward pass with their
prompt computed once; a group larger than `micro_batch_tokens` is a micro-batch of its own, because its loss
compares its members with one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from configs.errors import InputError
from configs.rows import Group
from configs.schema import TrainingSection
from trainers.loop import Record, Stats, batch_plan
from trainers.packing import budgeted, unique_tokens
from trainers.policy import Policy
from trainers.reward_head import Response, mark_scores


class Objective(Protocol):
    """What a kind of reward model adds."""

    def epoch(self, group: Group, epoch: int) -> list[Group]:
        """The groups that a problem gives to an epoch."""
        ...

    def weight(self, group: Group) -> float:
        """By how much a group counts in the batch's mean."""
        ...

    def loss(self, group: Group, scores: Sequence[torch.Tensor]) -> tuple[torch.Tensor, Stats]:
        """Loss of a group times its weight, from the raw scores [marks] of its solutions, and sums to be reported."""
        ...

    def record(self, sums: Record) -> Record:
        """Means from the sums over a batch."""
        ...


@dataclass(frozen=True)
class _Micro:
    groups: list[Group]
    normaliser: float  # of the whole batch
    tokens: int


class GroupTraining:
    """The method for `trainers.loop.train`; problems of split "validation" are measured after each epoch."""

    def __init__(self, groups: Sequence[Group], settings: TrainingSection, objective: Objective, seed: int) -> None:
        self.settings, self.objective = settings, objective
        self.training = [g for g in groups if g.split == "train"]
        self.validation = [g for g in groups if g.split == "validation"]
        if not self.training:
            raise InputError("no groups to train a reward model on: sample more problems, or more solutions of each")
        self._plan = batch_plan(len(self.training), settings.epochs, settings.batch_size, seed)
        self.steps = len(self._plan)

    def batch(self, step: int) -> tuple[int, list[_Micro]]:
        epoch, numbers = self._plan[step]
        return epoch, self._micros([g for i in numbers for g in self.objective.epoch(self.training[i], epoch)])

    def _micros(self, groups: Sequence[Group]) -> list[_Micro]:
        normaliser = sum(self.objective.weight(g) for g in groups)
        sizes = [unique_tokens([r.sequence for r in responses(g)], self.settings.prefix_sharing) for g in groups]
        return [
            _Micro([groups[i] for i in part], normaliser, sum(sizes[i] for i in part))
            for part in budgeted(sizes, self.settings.micro_batch_tokens)
        ]

    def loss(self, policy: Policy, micro: _Micro) -> tuple[torch.Tensor, Stats]:
        scores = mark_scores(policy, [responses(g) for g in micro.groups])
        results = [self.objective.loss(g, s) for g, s in zip(micro.groups, scores, strict=True)]
        total = torch.stack([loss for loss, _ in results]).sum() / micro.normaliser
        stats = {name: torch.stack([s[name].detach().float() for _, s in results]).sum() for name in results[0][1]}
        return total, stats | {"tokens": total.new_full((), micro.tokens)}

    def record(self, sums: Record) -> Record:
        return {"loss": sums["loss"], "tokens": sums["tokens"], **self.objective.record(sums)}

    def after(self, policy: Policy, step: int) -> Record:
        """Validation at the end of each epoch."""
        last_of_epoch = step + 1 == self.steps or self._plan[step + 1][0] != self._plan[step][0]
        if not self.validation or not last_of_epoch:
            return {}
        totals: Record = {}
        with policy.evaluating():
            for micro in self._micros(self.validation):
                loss, stats = self.loss(policy, micro)
                for name, value in {"loss": loss, **stats}.items():
                    totals[name] = totals.get(name, 0.0) + value.item()
        return {f"validation/{k}": v for k, v in self.record(totals).items() if k != "tokens"}


def responses(group: Group) -> list[Response]:
    """The solutions of a group."""
    result, token, mark = [], 0, 0
    for length, count in zip(group.lengths, group.counts, strict=True):
        ids, marks = group.token_ids[token : token + length], group.marks[mark : mark + count]
        result.append(Response(group.prompt_ids, ids, marks))
        token, mark = token + length, mark + count
    return result
