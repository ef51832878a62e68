"""The online loop: draw, judge, learn, hand the weights to the sampler, again.

A step is a function of the weights and of the state in the last checkpoint; what it draws is journalled. A run that
was killed goes back to the checkpoint, reads the samples drawn since then from their journals and ends with the same
weights (with the transformers engine on a CPU to the bit; a GPU's kernels do not promise as much).
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from configs.errors import InputError, RatchetError
from configs.schema import TrainingSection
from data_gen.engine import Engine
from pipelines.online.curriculum import Curriculum
from pipelines.online.rollouts import Collector, Round
from pipelines.online.step_values import credit_steps
from pipelines.online.weights import WeightSync
from pipelines.store import Journal
from trainers.checkpoint import Pace
from trainers.policy_gradient import PolicyGradient
from trainers.rollouts import Group, useful

Record = dict[str, float]
_WINDOW = 10  # steps over which the share of answers that could not be judged is taken
_MONITORS = ("reward", "greedy_reward", "kl_initial", "mismatch_kl", "entropy", "tokens_sampled", "zero_groups")


class OnlineLoop:
    """Everything of one training; `run` brings it from its checkpoint (or the start) to its end."""

    def __init__(
        self, trainer: PolicyGradient, sync: WeightSync, collector: Collector, engine: Engine, curriculum: Curriculum,
        validation: Sequence[str], work: Path, max_failure_rate: float,
    ) -> None:  # fmt: skip
        self.trainer, self.sync, self.collector, self.engine = trainer, sync, collector, engine
        self.curriculum, self.validation, self.work = curriculum, list(validation), work
        self.settings: TrainingSection = trainer.settings
        self.rl = self.settings.rl
        self.max_failure_rate = max_failure_rate
        self.history: list[Record] = []
        self.best: tuple[float, int] | None = None  # validation accuracy and step
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def run(self, report: Callable[[Record], None]) -> list[Record]:
        """All steps; the trainer holds the result: the last weights, or with validation the best ones."""
        first = self._restore()
        self._timed("swap", lambda: self.sync.publish(first))
        if first == 0 and self.validation:
            self._validate(0)
        pace = Pace(self.settings.checkpoint_every)
        for step in range(first, self.rl.steps):
            record = self._step(step)
            self.history.append(record)
            report({"done": step + 1, "total": self.rl.steps, **{k: record[k] for k in _MONITORS if k in record}})
            if step + 1 < self.rl.steps and pace.due(step + 1):
                with pace.saving():
                    self._checkpoint(step + 1)
        if self.best is not None:
            self.trainer.load_weights(self._best_file(self.best[1]))
        return self.history

    def _step(self, step: int) -> Record:
        groups, drawn, counts = self._draw(step)
        record: Record = {"step": step + 1, **_monitor(groups, drawn, counts)}
        self._check_failures(step, record)
        if self.rl.share_gpu == "sleep":
            self.engine.rest()
        learned = self._timed("update", lambda: self.trainer.update(groups, step)) if groups else {}
        if self.rl.share_gpu == "sleep" and torch.cuda.is_available():
            torch.cuda.empty_cache()  # the engine wants its memory back
        record |= learned
        if learned.get("updates"):
            record |= self._timed("swap", lambda: self.sync.publish(step + 1))
        if self.validation and ((step + 1) % self.rl.validate_every == 0 or step + 1 == self.rl.steps):
            record["validation_accuracy"] = self._timed("validate", lambda: self._validate(step + 1))
        return record

    def _draw(self, step: int) -> tuple[list[Group], list[Group], Record]:
        """The batch to learn from, all groups drawn for it, and counts. Groups whose samples all do as well as each
        other (or as the greedy one) teach nothing: they are drawn again from other problems, up to `oversampling`
        times the batch, and fill the batch up in the end."""
        size = self.settings.batch_size
        limit = math.ceil(size * self.rl.oversampling)
        journal = Journal(self._journal(step))
        asked: set[str] = set()
        good: list[Group] = []
        rest: list[Group] = []
        total = Round()
        number = 0
        while len(good) < size and len(asked) < min(limit, len(self.curriculum.problems)):
            share = max(0.25, len(good) / len(asked)) if asked else 1.0
            wanted = min(math.ceil((size - len(good)) / share), limit - len(asked))
            names = self.curriculum.draw(wanted, asked)
            asked |= set(names)
            found = self.collector.collect(step, number, names, journal)
            number += 1
            for group in found.groups:
                (good if useful(group, self.settings) else rest).append(group)
                self.curriculum.measure(group.problem, sum(s.right for s in group.samples), len(group.samples))
            total.answers += found.answers
            total.unjudged += found.unjudged
            total.penalties += found.penalties
            for phase, seconds in found.seconds.items():
                self.seconds[phase] += seconds
        batch = good[:size]
        batch += rest[: size - len(batch)]
        counts: Record = {}
        if self.rl.step_rollouts:
            batch, counts = self._timed("rollouts", lambda: credit_steps(self.collector, step, batch, journal))
        journal.close()
        counts |= {
            "answers": total.answers, "unjudged": total.unjudged, "groups": len(good) + len(rest), "rounds": number,
            "zero_groups": len(rest), "surplus_groups": max(0, len(good) - size),
            **{f"penalty_{k}": total.penalties[k] for k in self.rl.penalties},
        }
        return batch, good + rest, counts

    def _check_failures(self, step: int, record: Record) -> None:
        recent = [*self.history[-_WINDOW + 1 :], record]
        failed = sum(r["unjudged"] + r.get("rollouts_unjudged", 0) for r in recent)
        answers = sum(r["answers"] + r.get("rollouts", 0) for r in recent)
        if failed > max(2.0, self.max_failure_rate * answers):
            raise RatchetError(
                f"step {step + 1}: {failed:.0f} of the last {answers:.0f} answers could not be judged (timeout, error or "
                f"bad gold answer), more than rewards.max_failure_rate={self.max_failure_rate}; see {self._journal(step)}"
            )

    def _validate(self, step: int) -> float:
        """Greedy accuracy on the held-out problems; the best weights so far are kept, of equals the later ones."""
        accuracy = self.collector.accuracy(self.validation)
        if self.best is None or accuracy >= self.best[0]:
            self.trainer.save_weights(self._best_file(step))
            self.best = (accuracy, step)
        return accuracy

    def _restore(self) -> int:
        """Back to the last checkpoint; the number of steps done."""
        state = self.trainer.load(self.work)
        if state is None:
            return 0
        self.history = state["history"]
        self.best = tuple(state["best"]) if state["best"] else None
        self.sync.floor = state["floor"]
        self.seconds.update(state["seconds"])
        self.curriculum.restore(state["curriculum"])
        return state["step"]

    def _checkpoint(self, step: int) -> None:
        state: Mapping[str, Any] = {
            "history": self.history, "best": self.best, "floor": self.sync.floor, "seconds": self.seconds,
            "curriculum": self.curriculum.state(),
        }
        self.trainer.save(self.work, step, state)
        for old in self.work.glob("rollouts-*.jsonl"):
            if old < self._journal(step):
                old.unlink()
        for old in self.work.glob("best-*.safetensors"):
            if self.best and old < self._best_file(self.best[1]):
                old.unlink()

    def _journal(self, step: int) -> Path:
        return self.work / f"rollouts-{step:06d}.jsonl"

    def _best_file(self, step: int) -> Path:
        return self.work / f"best-{step:06d}.safetensors"

    def _timed(self, phase: str, work: Callable[[], Any]) -> Any:
        began = time.monotonic()
        try:
            return work()
        finally:
            self.seconds[phase] += time.monotonic() - began


def _monitor(groups: Sequence[Group], drawn: Sequence[Group], counts: Record) -> Record:
    """What the samples say; `groups` are learned from, `drawn` are all."""
    samples = [s for g in drawn for s in g.samples]
    if not samples:
        return counts
    n = len(samples)
    record: Record = {
        "tokens": sum(len(s.token_ids) for s in samples),
        "reward": sum(s.reward for s in samples) / n,
        "right": sum(s.right for s in samples) / n,
        "truncated": sum(s.truncated for s in samples) / n,
        "tokens_sampled": sum(len(s.token_ids) for s in samples) / n,
        "batch_groups": len(groups),
    }
    for name, right in (("tokens_right", True), ("tokens_wrong", False)):
        if mine := [len(s.token_ids) for s in samples if s.right is right]:
            record[name] = sum(mine) / len(mine)
    greedy = [(s, g.greedy) for g in drawn if g.greedy for s in g.samples]
    if greedy:
        baselines = [g.greedy for g in drawn if g.greedy]
        record |= {
            "greedy_reward": sum(b.reward for b in baselines) / len(baselines),
            "difference": sum(s.reward - b.reward for s, b in greedy) / n,
            "equal_to_greedy": sum(s.reward == b.reward for s, b in greedy) / n,
            "tokens_greedy": sum(b.tokens for b in baselines) / len(baselines),
        }
    return record | counts


def held_out(problems: Sequence[str], count: int, order: Callable[[list[str]], None]) -> tuple[list[str], list[str]]:
    """Problems to train on and to validate with, from a seeded order. Raises InputError when none is left."""
    shuffled = list(problems)
    order(shuffled)
    if count >= len(shuffled):
        raise InputError(f"training.rl.validation={count} leaves none of {len(shuffled)} problems to train on")
    held = set(shuffled[:count])
    return [p for p in problems if p not in held], shuffled[:count]
