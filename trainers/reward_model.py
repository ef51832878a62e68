"""Outcome reward model: the listwise loss of the Qwen2.5-Math report (arXiv 2409.12122, section 3.1).

With k right and m - k wrong solutions of problem x and a scalar score r at the last token of each:

    L(x) = - 1 / (k (m - k)) * sum over right y+, wrong y- of  log sigmoid( r(x, y+) - r(x, y-) )

and the mean over the problems of a batch. All m solutions go through the model in one forward pass with the prompt
computed once, so that the k (m - k) differences cost m scores. The report has m = 6; here groups may differ in size.
It does not give learning rate or epochs.

`pairs` is the control arm: Bradley-Terry on single pairs, L = - log sigmoid(r+ - r-). Each epoch pairs the solutions
of a problem anew, min(k, m - k) disjoint pairs; a pair is a group of two, for which the formulas agree.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import torch
from torch.nn.functional import softplus

from configs.errors import InputError
from configs.keys import derive_seed
from configs.rows import Group
from configs.schema import RewardModelSection, TrainingSection
from trainers.loop import Record, Stats
from trainers.reward_groups import GroupTraining, responses


class Outcome:
    """The objective. Raises InputError for a group whose solutions are all right or all wrong."""

    def __init__(self, section: RewardModelSection, seed: int) -> None:
        self.pairs, self.seed = section.loss == "pairs", seed

    def epoch(self, group: Group, epoch: int) -> list[Group]:
        right, wrong = _sides(group)
        if not self.pairs:
            return [group]
        rng = random.Random(derive_seed(self.seed, "pairs", group.problem, epoch))
        rng.shuffle(right)
        rng.shuffle(wrong)
        return [subgroup(group, pair) for pair in zip(right, wrong, strict=False)]

    def weight(self, group: Group) -> float:
        return 1.0

    def loss(self, group: Group, scores: Sequence[torch.Tensor]) -> tuple[torch.Tensor, Stats]:
        values = torch.cat(list(scores))
        right, wrong = (values[numbers] for numbers in _sides(group))
        differences = right[:, None] - wrong[None, :]
        loss = softplus(-differences).mean()
        return loss, {
            "groups": torch.ones_like(loss), "margin": differences.mean(), "right": right.mean(), "wrong": wrong.mean(),
            "accuracy": (differences > 0).float().mean() + 0.5 * (differences == 0).float().mean(),
        }

    def record(self, sums: Record) -> Record:
        means = {name: sums[name] / sums["groups"] for name in ("accuracy", "margin", "right", "wrong")}
        return {"groups": sums["groups"], **means}


def outcome_reward_model(
    groups: Sequence[Group], settings: TrainingSection, section: RewardModelSection, seed: int
) -> GroupTraining:
    """The method for `trainers.loop.train`."""
    for group in groups:
        _sides(group)
    return GroupTraining(groups, settings, Outcome(section, seed), seed)


def subgroup(group: Group, numbers: Sequence[int]) -> Group:
    """The same problem with some of its solutions, each with one mark."""
    chosen = [responses(group)[i] for i in numbers]
    return msgspec.structs.replace(
        group, samples=[group.samples[i] for i in numbers], models=[group.models[i] for i in numbers],
        token_ids=[t for r in chosen for t in r.token_ids], lengths=[len(r.token_ids) for r in chosen],
        marks=[m for r in chosen for m in r.marks], labels=[group.labels[i] for i in numbers], counts=[1] * len(numbers),
    )


def _sides(group: Group) -> tuple[list[int], list[int]]:
    """Numbers of the right and of the wrong solutions."""
    if set(group.counts) != {1}:
        raise InputError(f"{group.id}: an outcome reward model scores each solution once, at its last token")
    right = [i for i, label in enumerate(group.labels) if label > 0.5]
    wrong = [i for i, label in enumerate(group.labels) if label <= 0.5]
    if not right or not wrong:
        alike = "right" if right else "wrong"
        raise InputError(f"{group.id}: all {len(group.labels)} solutions are {alike}: there is nothing to compare")
    return right, wrong
