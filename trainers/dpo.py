"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290) with the terms that RISE adds (2410.06638).

With D(y) = log pi(y|c) - log pi_ref(y|c), summed over the tokens of y, and m = D(chosen) - D(rejected):

    sigmoid       -(1 - e) log sigmoid(beta m) - e log sigmoid(-beta m)      e: label smoothing (Mitchell's cDPO)
    sigmoid_norm  the same with D divided by the number of tokens of each side
    ipo           (D(chosen)/|chosen| - D(rejected)/|rejected| - 1/(2 beta))^2   (Azar et al. 2023, per token)
    + nll * mean over the batch's chosen tokens of -log pi

The reference is the model at the start of the training; its log-probabilities are computed once for each pair
(`reference_logprobs`) and come with the pairs. All pairs of a problem go through the model together: prompt,
shared steps and the equal beginning of both sides are computed once, so tokens before the first difference have
no margin gradient by construction. Neither paper weighs or masks tokens.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from configs.errors import InputError, RatchetError
from configs.keys import derive_seed
from configs.rows import Pair
from configs.schema import DpoSection, TrainingSection
from trainers.loop import Record, Report, Stats
from trainers.packing import TokenSequence, budgeted, to_device, unique_tokens
from trainers.policy import Policy

Reference = Mapping[str, tuple[float, float]]  # pair id -> log pi_ref of the chosen and the rejected side
_MONITORS = ("margin", "accuracy", "chosen", "rejected")


@dataclass(frozen=True)
class _Micro:
    groups: list[list[Pair]]
    pairs: int  # of the whole batch
    chosen_tokens: int  # of the whole batch
    tokens: int


class DirectPreferenceOptimization:
    """The method for `trainers.loop.train`. `batch_size` counts pairs; pairs of a problem stay in one batch where
    they fit, because they share their prefix."""

    def __init__(
        self, pairs: Sequence[Pair], reference: Reference, settings: TrainingSection, seed: int
    ) -> None:
        if not pairs:
            raise InputError("no preference pairs: nothing was paired")
        self.settings, self.dpo, self.reference = settings, settings.dpo, reference
        training, self.validation = split_by_problem(pairs, self.dpo.validation_fraction, seed)
        if not training:
            raise InputError("training.dpo.validation_fraction leaves no pair to train on")
        self._plan = _plan(training, settings.epochs, settings.batch_size, seed)
        self.steps = len(self._plan)
        self._start = self._validation_start()

    def batch(self, step: int) -> tuple[int, list[_Micro]]:
        epoch, pairs = self._plan[step]
        return epoch, micro_batches(pairs, self.settings)

    def loss(self, policy: Policy, micro: _Micro) -> tuple[torch.Tensor, Stats]:
        pairs = [p for g in micro.groups for p in g]
        chosen, rejected = pair_logprobs(policy, micro.groups)
        reference = to_device(torch.tensor([self.reference[p.id] for p in pairs]), chosen.device)
        lengths = to_device(torch.tensor([[len(p.chosen_ids), len(p.rejected_ids)] for p in pairs]), chosen.device)
        change = torch.stack([chosen, rejected], 1) - reference
        losses = preference_loss(change, lengths, self.dpo)
        loss = losses.sum() / micro.pairs - self.dpo.nll * chosen.sum() / micro.chosen_tokens
        return loss, _monitor(pairs, change.detach(), self.dpo.beta, micro.tokens)

    def record(self, sums: Record) -> Record:
        kinds = sorted(name.split("/")[0] for name in sums if name.endswith("/pairs"))
        record = {"loss": sums["loss"], "tokens": sums["tokens"], "pairs": sum(sums[f"{k}/pairs"] for k in kinds)}
        for name in _MONITORS:
            record[name] = sum(sums[f"{k}/{name}"] for k in kinds) / record["pairs"]
            if len(kinds) > 1:
                record |= {f"{k}/{name}": sums[f"{k}/{name}"] / sums[f"{k}/pairs"] for k in kinds}
        return record

    def after(self, policy: Policy, step: int) -> Record:
        """Validation at the end of each epoch."""
        last_of_epoch = step + 1 == self.steps or self._plan[step + 1][0] != self._plan[step][0]
        if not self.validation or not last_of_epoch:
            return {}
        totals: Record = {}
        with policy.evaluating():
            for micro in micro_batches(self.validation, self.settings):
                loss, stats = self.loss(policy, micro)
                for name, value in {"loss": loss, **stats}.items():
                    totals[name] = totals.get(name, 0.0) + value.item()
        record = self.record(totals)
        if self.dpo.stop_if_worse_than_start and record["loss"] > self._start:
            raise RatchetError(
                f"stopped after step {step + 1}: the loss on {len(self.validation)} held-out pairs is {record['loss']:.4f}, "
                f"at the start it was {self._start:.4f}. Lower training.learning_rate or raise training.dpo.beta; "
                "training.dpo.stop_if_worse_than_start=false goes on regardless"
            )
        return {f"validation/{k}": v for k, v in record.items() if k != "tokens"} | {"validation/start_loss": self._start}

    def _validation_start(self) -> float:
        """The validation loss of the reference itself: all margins are zero."""
        if not self.validation:
            return 0.0
        lengths = torch.tensor([[len(p.chosen_ids), len(p.rejected_ids)] for p in self.validation])
        losses = preference_loss(torch.zeros(len(self.validation), 2), lengths, self.dpo)
        nll = -sum(self.reference[p.id][0] for p in self.validation) / sum(len(p.chosen_ids) for p in self.validation)
        return losses.mean().item() + self.dpo.nll * nll


def preference_loss(change: torch.Tensor, lengths: torch.Tensor, dpo: DpoSection) -> torch.Tensor:
    """Losses [pairs] from D of both sides [pairs, 2] and their numbers of tokens [pairs, 2]."""
    scaled = change if dpo.loss == "sigmoid" else change / lengths
    delta = scaled[:, 0] - scaled[:, 1]
    if dpo.loss == "ipo":
        return (delta - 1.0 / (2.0 * dpo.beta)) ** 2
    e = dpo.label_smoothing
    return -(1.0 - e) * logsigmoid(dpo.beta * delta) - e * logsigmoid(-dpo.beta * delta)


def pair_logprobs(policy: Policy, groups: Sequence[Sequence[Pair]]) -> tuple[torch.Tensor, torch.Tensor]:
    """log pi of the chosen and of the rejected sides [pairs] each, in the order of the groups."""
    packed = policy.pack([[s for p in group for s in _sides(p)] for group in groups])
    sums = policy.sums(packed, policy.logprobs(packed))
    return sums[0::2], sums[1::2]


def reference_logprobs(
    policy: Policy, pairs: Sequence[Pair], settings: TrainingSection, report: Report | None = None
) -> dict[str, tuple[float, float]]:
    """What the policy as it is says of each pair, without gradients."""
    result: dict[str, tuple[float, float]] = {}
    with policy.evaluating():
        for micro in micro_batches(pairs, settings):
            chosen, rejected = pair_logprobs(policy, micro.groups)
            ids = [p.id for g in micro.groups for p in g]
            result |= dict(zip(ids, zip(chosen.tolist(), rejected.tolist(), strict=True), strict=True))
            if report:
                report({"done": len(result), "total": len(pairs)})
    return result


def micro_batches(pairs: Sequence[Pair], settings: TrainingSection) -> list[_Micro]:
    """Pairs grouped by problem, groups put together up to `micro_batch_tokens` distinct tokens."""
    budget, share = settings.micro_batch_tokens, settings.prefix_sharing
    groups: list[list[Pair]] = []
    sizes: list[int] = []
    for group in _by_problem(pairs):
        size = _size(group, share)
        parts = [group] if size <= budget else [[p] for p in group]
        groups += parts
        sizes += [size] if len(parts) == 1 else [_size(g, share) for g in parts]
    chosen = sum(len(p.chosen_ids) for p in pairs)
    return [
        _Micro([groups[g] for g in part], len(pairs), chosen, sum(sizes[g] for g in part))
        for part in budgeted(sizes, budget)
    ]


def split_by_problem(pairs: Sequence[Pair], fraction: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Training and validation pairs; no problem is in both."""
    problems = sorted({p.problem for p in pairs})
    random.Random(derive_seed(seed, "validation")).shuffle(problems)
    held = set(problems[: round(fraction * len(problems))])
    return [p for p in pairs if p.problem not in held], [p for p in pairs if p.problem in held]


def _plan(pairs: Sequence[Pair], epochs: int, batch_size: int, seed: int) -> list[tuple[int, list[Pair]]]:
    """(epoch, pairs) of every optimiser step: problems in seeded order, batches cut from their pairs."""
    groups = _by_problem(pairs)
    plan = []
    for epoch in range(epochs):
        order = list(groups)
        random.Random(derive_seed(seed, "order", epoch)).shuffle(order)
        flat = [p for group in order for p in group]
        plan += [(epoch, flat[i : i + batch_size]) for i in range(0, len(flat), batch_size)]
    return plan


def _monitor(pairs: Sequence[Pair], change: torch.Tensor, beta: float, tokens: int) -> Stats:
    """Sums by kind of pair: margin (beta m), accuracy, and how far both sides moved from the start (nats)."""
    margin = beta * (change[:, 0] - change[:, 1])
    columns = torch.stack([margin, (margin > 0).float(), change[:, 0], change[:, 1]], 1)
    stats = {"tokens": columns.new_full((), tokens)}
    for kind in sorted({p.kind for p in pairs}):
        numbers = torch.tensor([i for i, p in enumerate(pairs) if p.kind == kind])
        mine = columns[to_device(numbers, columns.device)]
        stats[f"{kind}/pairs"] = columns.new_full((), len(mine))
        stats |= {f"{kind}/{name}": mine[:, i].sum() for i, name in enumerate(_MONITORS)}
    return stats


def _sides(pair: Pair) -> tuple[TokenSequence, TokenSequence]:
    start = len(pair.context_ids)
    return TokenSequence(pair.context_ids + pair.chosen_ids, start), TokenSequence(pair.context_ids + pair.rejected_ids, start)


def _size(group: Sequence[Pair], share: bool) -> int:
    return unique_tokens([s for p in group for s in _sides(p)], share)


def _by_problem(pairs: Sequence[Pair]) -> list[list[Pair]]:
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.problem, []).append(pair)
    return list(groups.values())
