"""Supervised fine-tuning on completions: minimise the mean negative log-likelihood of completion tokens.

Loss of a batch = sum_i w_i sum_t v_it -log pi(y_it | x_i, y_i<t) / sum_i w_i sum_t v_it; v_it is 1 but for examples with a
weight for each token, as advantage-weighted regression has them. One example is `prompt_ids` followed by `token_ids`; the
end token is part of `token_ids`. Prompts carry no loss unless `prompt_weight` gives their tokens, from the second on, that
weight: "instruction modelling" (Shi et al. 2024, arXiv:2405.14394, weight 1), which they find to help where solutions are
short beside their prompts and examples are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from configs.errors import InputError
from configs.rows import Example
from configs.schema import TrainingSection
from trainers.loop import Record, Stats, batch_plan
from trainers.packing import TokenSequence, budgeted, to_device, unique_tokens
from trainers.policy import Policy


@dataclass(frozen=True)
class _Micro:
    examples: list[Example]
    normaliser: float  # of the whole batch
    tokens: int


class SupervisedFineTuning:
    """The method for `trainers.loop.train`. `first_epoch`: epochs that earlier stages of an online training have had.
    Raises InputError when there is nothing to learn from."""

    def __init__(self, examples: Sequence[Example], settings: TrainingSection, seed: int, first_epoch: int = 0) -> None:
        if not examples:
            raise InputError("no training examples: nothing was selected")
        for e in (e for e in examples if e.token_weights is not None):
            mine = e.token_weights or []
            if len(mine) != len(e.token_ids) or not sum(mine) > 0.0 or min(mine) < 0.0:
                raise InputError(f"example {e.id}: one weight for each token is needed, none below 0 and not all 0")
        self.examples, self.settings = examples, settings
        self._plan = batch_plan(len(examples), settings.epochs, settings.batch_size, seed, settings.steps, first_epoch)
        self.steps = len(self._plan)

    def batch(self, step: int) -> tuple[int, list[_Micro]]:
        epoch, numbers = self._plan[step]
        examples = [self.examples[i] for i in numbers]
        weight = self.settings.prompt_weight
        normaliser = sum(e.weight * sum(_token_weights(e, weight)) for e in examples)
        groups = _by_problem(examples)
        sizes = [unique_tokens([_sequence(e, weight) for e in g], self.settings.prefix_sharing) for g in groups]
        return epoch, [
            _Micro([e for g in part for e in groups[g]], normaliser, sum(sizes[g] for g in part))
            for part in budgeted(sizes, self.settings.micro_batch_tokens)
        ]

    def loss(self, policy: Policy, micro: _Micro) -> tuple[torch.Tensor, Stats]:
        total = weighted_nll(policy, micro.examples, self.settings.prompt_weight) / micro.normaliser
        return total, {"tokens": total.new_full((), sum(len(e.token_ids) for e in micro.examples))}

    def record(self, sums: Record) -> Record:
        return sums

    def after(self, policy: Policy, step: int) -> Record:
        return {}


def weighted_nll(policy: Policy, examples: Sequence[Example], prompt_weight: float = 0.0) -> torch.Tensor:
    """Summed weighted negative log-likelihood (nats) of the completion tokens, and of the prompts' where they have a weight."""
    groups = _by_problem(examples)
    packed = policy.pack([[_sequence(e, prompt_weight) for e in g] for g in groups])
    weights = to_device(torch.tensor([e.weight for g in groups for e in g]), policy.device)
    logprobs = policy.logprobs(packed)
    if prompt_weight or any(e.token_weights for e in examples):
        each = torch.tensor([w for g in groups for e in g for w in _token_weights(e, prompt_weight)])
        logprobs = logprobs * to_device(each, policy.device)
    return -(policy.sums(packed, logprobs) * weights).sum()


def _token_weights(example: Example, prompt_weight: float) -> list[float]:
    """Of all tokens that carry loss, as many as `_sequence` wants the log-probabilities of."""
    prompt = [prompt_weight] * (len(example.prompt_ids) - 1) if prompt_weight else []
    return prompt + (example.token_weights or [1.0] * len(example.token_ids))


def _by_problem(examples: Sequence[Example]) -> list[list[Example]]:
    """Examples of one problem together: they share their prompt."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.problem, []).append(example)
    return list(groups.values())


def _sequence(example: Example, prompt_weight: float) -> TokenSequence:
    return TokenSequence(example.prompt_ids + example.token_ids, 1 if prompt_weight else len(example.prompt_ids))
