"""Process reward model: a score at the last token of every step (Math-Shepherd, arXiv 2312.08935, section 3.3).

A step's label comes from rollouts that continue after it: `soft`, the share that ends right, or `hard`, whether any
does (their equations 3 and 4). With raw score s at the step's last token

    L = - ( y log sigmoid(s) + (1 - y) log sigmoid(-s) )     the mean over all steps of a batch.

Math-Shepherd predicts one of two words with the language model's own head; here the scalar head of the outcome model
is used, whose sigmoid is the probability. A solution's score puts its steps together: the minimum (B-STaR, arXiv
2412.17256), the product, or the last one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from configs.errors import InputError
from configs.rows import Group
from configs.schema import RewardModelSection, TrainingSection
from trainers.loop import Record, Stats
from trainers.packing import to_device
from trainers.reward_groups import GroupTraining


class Process:
    """The objective. A hard label is 1 where any rollout ended right."""

    def __init__(self, section: RewardModelSection) -> None:
        self.hard = section.labels == "hard"

    def epoch(self, group: Group, epoch: int) -> list[Group]:
        return [group]

    def weight(self, group: Group) -> float:
        return float(len(group.marks))

    def loss(self, group: Group, scores: Sequence[torch.Tensor]) -> tuple[torch.Tensor, Stats]:
        values = torch.cat(list(scores))
        labels = to_device(torch.tensor(group.labels, dtype=values.dtype), values.device)
        hard = (labels > 0.0).float()
        targets = hard if self.hard else labels
        loss = binary_cross_entropy_with_logits(values, targets, reduction="sum")
        agree = (values > 0.0) == (hard > 0.5 if self.hard else labels > 0.5)
        brier = (torch.sigmoid(values) - targets).square().sum()
        steps = loss.new_full((), len(labels))
        return loss, {"steps": steps, "accuracy": agree.float().sum(), "brier": brier, "positive": targets.sum()}

    def record(self, sums: Record) -> Record:
        means = {name: sums[name] / sums["steps"] for name in ("accuracy", "brier", "positive")}
        return {"steps": sums["steps"], **means}


def process_reward_model(
    groups: Sequence[Group], settings: TrainingSection, section: RewardModelSection, seed: int
) -> GroupTraining:
    """The method for `trainers.loop.train`. Raises InputError for labels that are no probabilities."""
    for group in groups:
        if not all(0.0 <= label <= 1.0 for label in group.labels):
            raise InputError(f"{group.id}: step values must lie between 0 and 1")
    return GroupTraining(groups, settings, Process(section), seed)
