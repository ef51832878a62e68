"""The update of online reinforcement learning, for all estimators: scores, advantages, losses, anchor, checkpoints.

Where one optimiser step uses a whole batch and no KL is asked for, a sample goes through the model once: its
log-probabilities before the update are those of the very forward pass that is differentiated. Otherwise a pass
without gradients comes first. Samples without advantage are left out of the passes but counted in the means, so
leaving them out changes no gradient.

The reference of the KL terms is a copy of what is trained (an adapter's few megabytes, or all weights with
`adapter: full`): the weights at the start, or with `anchor_decay` their exponential moving average (T1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from configs.errors import RatchetError
from configs.schema import TrainingSection
from trainers.checkpoint import load_checkpoint, save_checkpoint, saving
from trainers.estimators import token_advantages
from trainers.loop import Record, Stats
from trainers.model import trainable
from trainers.optimizer import Optimizer
from trainers.packing import Packed, TokenSequence, budgeted, unique_tokens
from trainers.policy import Policy
from trainers.policy_loss import importance_weights, k3, surrogate, token_weights
from trainers.rollouts import Group, Trajectory, advantages_of_tokens, batch_mean
from trainers.schedule import learning_rate


@dataclass
class _Micro:
    """Samples that go through the model together, grouped by problem; tensors are [tokens] in that order."""

    groups: list[list[tuple[int, int]]]  # (group, sample) numbers of the batch
    packed: Packed
    sampler: torch.Tensor
    old: torch.Tensor | None = None
    old_untempered: torch.Tensor | None = None
    reference: torch.Tensor | None = None
    initial: torch.Tensor | None = None
    advantages: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def samples(self) -> list[tuple[int, int]]:
        return [place for g in self.groups for place in g]


@dataclass(frozen=True)
class _Totals:
    """Of one optimiser step's share of the batch, samples without advantage included."""

    tokens: int
    sequences: int


class PolicyGradient:
    """A policy with its optimiser, reference and anchor. `temperature` is the one that samples are drawn at."""

    def __init__(self, policy: Policy, settings: TrainingSection, temperature: float) -> None:
        self.policy, self.settings, self.temperature = policy, settings, temperature
        self.rl = settings.rl
        self.parameters = trainable(policy.model)
        self.optimizer = Optimizer(self.parameters, settings)
        keep = settings.adapter != "full" or self.rl.kl != "none" or self.rl.anchor_decay is not None
        self.initial = {n: p.detach().clone() for n, p in self.parameters.items()} if keep else None
        self.anchor = None
        if self.rl.anchor_decay is not None:
            self.anchor = {n: p.detach().float().clone() for n, p in self.parameters.items()}

    # -- one step ---------------------------------------------------------------------------------------------

    def update(self, groups: Sequence[Group], step: int) -> Record:
        """Learn from a batch in `rl.updates` optimiser steps; what to report of it. Raises RatchetError when the
        loss or the gradient is not finite."""
        shares = [list(groups[i :: self.rl.updates]) for i in range(min(self.rl.updates, len(groups)))]
        mean = batch_mean(groups, self.settings)
        plans = [self._plan(share, mean) for share in shares]  # all scores are taken before anything moves
        sums: Stats = {}
        norms = []
        for number, (share, (micros, totals)) in enumerate(zip(shares, plans, strict=True)):
            if not micros:
                continue
            for micro in micros:
                loss, stats = self._loss(micro, totals)
                loss.backward()
                for name, value in {"loss": loss.detach(), **stats}.items():
                    sums[name] = sums[name] + value if name in sums else value
            norms.append(self._move(step * self.rl.updates + number))
            if not math.isfinite(norms[-1]) or not math.isfinite(float(sums["loss"])):
                raise RatchetError(
                    f"training diverged at step {step + 1} (loss {float(sums['loss'])}, gradient norm {norms[-1]}, "
                    f"{len(share)} problems); lower training.learning_rate"
                )
        names = sorted(sums)
        values = torch.stack([sums[n].float() for n in names]).tolist() if names else []
        return self._record(dict(zip(names, values, strict=True)), norms)

    def _plan(self, groups: Sequence[Group], mean: float) -> tuple[list[_Micro], _Totals]:
        """Micro-batches of one optimiser step, scored, with advantages on their tokens."""
        rl = self.rl
        everything = rl.kl != "none" or rl.entropy > 0
        worth = [advantages_of_tokens(g, self.settings, mean) for g in groups]
        chosen = [[i for i, a in enumerate(mine) if everything or bool((a != 0).any())] for mine in worth]
        totals = _Totals(sum(len(s.token_ids) for g in groups for s in g.samples), sum(len(g.samples) for g in groups))
        micros = self._micros(groups, chosen)
        self._score(micros)
        if rl.kl == "sequence":
            sums = self._log_ratio_sums(micros)
            worth = [
                advantages_of_tokens(g, self.settings, mean, torch.tensor([sums[k, i] for i in range(len(g.samples))]))
                for k, g in enumerate(groups)
            ]
        for micro in micros:
            self._spread(micro, worth)
        return micros, totals

    def _micros(self, groups: Sequence[Group], chosen: Sequence[Sequence[int]]) -> list[_Micro]:
        """Samples put together up to `micro_batch_tokens` distinct tokens; the largest micro-batch comes first, so
        that a setting which does not fit fails at once."""
        budget, share = self.settings.micro_batch_tokens, self.settings.prefix_sharing
        chunks: list[list[tuple[int, int]]] = []
        sizes: list[int] = []
        for k, numbers in enumerate(chosen):
            for chunk in _chunks(groups[k], numbers, budget, share):
                chunks.append([(k, i) for i in chunk])
                sizes.append(unique_tokens([_sequence(groups[k], i) for i in chunk], share))
        micros = []
        parts = budgeted(sizes, budget)
        for part in sorted(parts, key=lambda p: -sum(sizes[c] for c in p)):
            mine = [chunks[c] for c in part]
            packed = self.policy.pack([[_sequence(groups[k], i) for k, i in chunk] for chunk in mine])
            sampler = torch.tensor([x for chunk in mine for k, i in chunk for x in groups[k].samples[i].logprobs])
            micros.append(_Micro(mine, packed, sampler.to(self.policy.device)))
        return micros

    def _score(self, micros: Sequence[_Micro]) -> None:
        """Values before the update, and under the reference, where the loss or a monitor needs them."""
        rl = self.rl
        with self.policy.evaluating():
            if rl.updates > 1 or rl.kl in ("token", "to_go", "sequence"):
                for micro in micros:
                    values = self.policy.values(micro.packed, self.temperature)
                    micro.old, micro.old_untempered = values.logprobs, values.untempered
            if rl.kl != "none":
                with self.holding(self.anchor or self.initial):
                    for micro in micros:
                        micro.reference = self.policy.values(micro.packed, self.temperature).logprobs
            if self.initial is not None and micros:  # a monitor: the distance travelled, on one micro-batch
                if rl.kl != "none" and self.anchor is None:
                    micros[0].initial = micros[0].reference
                else:
                    with self.holding(self.initial):
                        micros[0].initial = self.policy.values(micros[0].packed, self.temperature).logprobs

    def _log_ratio_sums(self, micros: Sequence[_Micro]) -> dict[tuple[int, int], float]:
        found: dict[tuple[int, int], float] = {}
        for micro in micros:
            assert micro.old is not None and micro.reference is not None
            sums = self.policy.sums(micro.packed, micro.old - micro.reference).tolist()
            found |= dict(zip(micro.samples, sums, strict=True))
        return found

    def _spread(self, micro: _Micro, worth: Sequence[Sequence[torch.Tensor]]) -> None:
        """Advantages of the tokens of each sample -> of the micro-batch's, with the KL that each token answers for."""
        mine = [worth[k][i] for k, i in micro.samples]
        micro.advantages = torch.cat(mine).to(micro.packed.owner.device)
        if self.rl.kl not in ("token", "to_go"):
            return
        assert micro.old is not None and micro.reference is not None
        counts = [len(a) for a in mine]
        parts = zip(micro.advantages.split(counts), (micro.old - micro.reference).split(counts), strict=True)
        micro.advantages = torch.cat([token_advantages(a, k, self.rl.kl_coefficient, self.rl.kl) for a, k in parts])

    def _loss(self, micro: _Micro, totals: _Totals) -> tuple[torch.Tensor, Stats]:
        """This micro-batch's share of the loss, and sums for the record."""
        rl, packed = self.rl, micro.packed
        values = self.policy.values(packed, self.temperature, rl.entropy > 0)
        old = values.logprobs.detach() if micro.old is None else micro.old
        before = values.untempered if micro.old_untempered is None else micro.old_untempered
        per_token, cut = surrogate(values.logprobs, old, micro.advantages, rl.clip, rl.clip_high or rl.clip)
        ratio = importance_weights(before, micro.sampler, rl.importance_cap or math.inf)
        if rl.importance_cap is not None:
            per_token = per_token * ratio
        if rl.kl == "loss":
            assert micro.reference is not None
            per_token = per_token + rl.kl_coefficient * k3(micro.reference, values.logprobs)
        if rl.entropy > 0:
            per_token = per_token - rl.entropy * values.entropy
        weights = token_weights(packed.owner, packed.sequences, rl.loss, totals.tokens, totals.sequences)
        with torch.no_grad():
            stats = {
                "learned_tokens": weights.new_full((), len(weights)),
                "learned_samples": weights.new_full((), packed.sequences),
                "entropy": values.entropy.sum(), "clipped": cut.sum(),
                "mismatch_kl": k3(before, micro.sampler).sum(),
                "mismatch_abs": (before - micro.sampler).abs().sum(),
            }
            if rl.importance_cap is not None:
                stats["importance_capped"] = (ratio >= rl.importance_cap).sum()
            if micro.reference is not None:
                stats["kl_reference"] = k3(micro.reference, old).sum()
            if micro.initial is not None:
                stats |= {"kl_initial": k3(micro.initial, old).sum(), "initial_tokens": stats["learned_tokens"]}
        return (per_token * weights).sum(), stats

    def _move(self, number: int) -> float:
        """One optimiser step and the anchor's; the gradient norm before clipping."""
        s = self.settings
        total = self.rl.steps * self.rl.updates
        norm = self.optimizer.step(learning_rate(number, total, s.learning_rate, s.schedule, s.warmup_ratio))
        if self.anchor is not None and self.rl.anchor_decay is not None:
            with torch.no_grad():
                for name, master in self.optimizer.masters.items():
                    self.anchor[name].lerp_(master.float(), 1.0 - self.rl.anchor_decay)
        return norm

    def _record(self, sums: Record, norms: Sequence[float]) -> Record:
        tokens = sums.get("learned_tokens", 0.0)
        record = {
            "loss": sums.get("loss", 0.0), "gradient_norm": max(norms, default=0.0),
            "learned_samples": sums.get("learned_samples", 0.0), "learned_tokens": tokens, "updates": float(len(norms)),
        }
        for name in ("entropy", "clipped", "mismatch_kl", "mismatch_abs", "importance_capped", "kl_reference"):
            if name in sums:
                record[name] = sums[name] / tokens
        if sums.get("initial_tokens"):
            record["kl_initial"] = sums["kl_initial"] / sums["initial_tokens"]
        return record

    # -- weights ----------------------------------------------------------------------------------------------

    @contextmanager
    def holding(self, weights: Mapping[str, torch.Tensor] | None) -> Iterator[None]:
        """With other values of what is trained; nothing is copied where they have its precision."""
        assert weights is not None
        own = {name: p.data for name, p in self.parameters.items()}
        try:
            for name, p in self.parameters.items():
                p.data = weights[name].to(p.dtype)
            yield
        finally:
            for name, p in self.parameters.items():
                p.data = own[name]

    def logprobs_of(self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> list[list[float]]:
        """Natural logs at temperature 1 of the tokens of completions, as a sampler reports them."""
        sequences = [TokenSequence([*p, *c], len(p)) for p, c in zip(prompts, completions, strict=True)]
        with self.policy.evaluating():
            packed = self.policy.pack([[s] for s in sequences])
            flat = self.policy.logprobs(packed)
        return [part.tolist() for part in flat.split([len(c) for c in completions])]

    def save_weights(self, file: Path) -> None:
        """What is trained, in float32, as one file."""
        with saving(file.with_suffix(".tmp")) as temporary:
            save_file({n: p.detach().cpu().contiguous() for n, p in self.optimizer.masters.items()}, temporary / file.name)
        (file.with_suffix(".tmp") / file.name).replace(file)
        file.with_suffix(".tmp").rmdir()

    def load_weights(self, file: Path) -> None:
        """What `save_weights` has written."""
        tensors = load_file(file)
        with torch.no_grad():
            for name, p in self.optimizer.masters.items():
                p.copy_(tensors[name])
        self.optimizer.publish()

    def save(self, folder: Path, step: int, state: Mapping[str, Any]) -> None:
        """A checkpoint after `step` steps."""
        save_checkpoint(folder, step, self.optimizer.masters, self.optimizer.rule, state, self.anchor)

    def load(self, folder: Path) -> dict[str, Any] | None:
        """Go back to the latest checkpoint, if there is one; its state."""
        state = load_checkpoint(folder, self.optimizer.masters, self.optimizer.rule, self.anchor)
        self.optimizer.publish()
        return state


def _chunks(group: Group, numbers: Sequence[int], budget: int, share: bool) -> list[list[int]]:
    """The samples of a group, in parts that fit the budget; they stay together where they can."""
    parts: list[list[int]] = []
    for i in numbers:
        together = [_sequence(group, j) for j in [*(parts[-1] if parts else []), i]]
        if parts and unique_tokens(together, share) <= budget:
            parts[-1].append(i)
        else:
            parts.append([i])
    return parts


def _sequence(group: Group, number: int) -> TokenSequence:
    sample: Trajectory = group.samples[number]
    return TokenSequence(group.prompt_ids + sample.token_ids, len(group.prompt_ids))
