"""The training loop that all methods share: micro-batches, updates, checkpoints, divergence and memory errors."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from configs.errors import RatchetError
from configs.keys import derive_seed
from configs.schema import TrainingSection
from trainers.attention import resolve_attention
from trainers.averaging import TailAverage
from trainers.checkpoint import Pace, load_checkpoint, save_checkpoint, saving
from trainers.compilation import compile_layers
from trainers.model import device, load_for_training, save_trained, trainable
from trainers.optimizer import Optimizer
from trainers.policy import Policy
from trainers.recomputation import recompute_layers
from trainers.schedule import Schedule

Report = Callable[[dict[str, float]], None]
Record = dict[str, float]
Stats = dict[str, torch.Tensor]


class Method(Protocol):
    """What a training method adds to the loop."""

    steps: int

    def batch(self, step: int) -> tuple[int, Sequence[Any]]:
        """Epoch, and the micro-batches of optimiser step `step` (from 0): a function of the step alone."""
        ...

    def loss(self, policy: Policy, micro: Any) -> tuple[torch.Tensor, Stats]:
        """This micro-batch's share of the batch's loss, and sums (detached scalars) to be reported."""
        ...

    def record(self, sums: Record) -> Record:
        """What to report of a step, from the sums over its micro-batches; `loss` among them."""
        ...

    def after(self, policy: Policy, step: int) -> Record:
        """Called after step `step`; what it returns joins the step's record. May raise to stop the training."""
        ...


class Part(Protocol):
    """What is trained together with the model and saved beside it, such as a reward head."""

    def attach(self, policy: Policy) -> None:
        """Put it into `policy.model`, so that its parameters are among the trainable ones."""
        ...

    def save(self, policy: Policy, folder: Path) -> None:
        """Take it out of the model again and write it into `folder`."""
        ...


@dataclass(frozen=True)
class Online:
    """A part of one training that goes through several stages: optimiser state, schedule, order of the data and random
    state are carried from stage to stage, so that the parts together are the whole, bit by bit.

    `before` holds the state that the stage before has left (None: this is the first), `after` is where this one leaves
    its own. `total` are the steps planned for all stages, `steps` and `epochs` those done before this one.
    """

    total: int
    after: Path
    before: Path | None = None
    steps: int = 0
    epochs: int = 0

    @classmethod
    def following(cls, total: int, after: Path, before: Path | None) -> Online:
        """With what the state in `before` says of itself. Raises RatchetError when there is none."""
        if before is None:
            return cls(total, after)
        found = sorted(before.glob("checkpoint-*/state.json"))
        if not found:
            raise RatchetError(f"{before}: no optimiser state to go on from; delete the folder {before.parent} and run again")
        state = json.loads(found[-1].read_text())
        return cls(total, after, before, state["step"], state["epochs"])


def train(
    method: Method,
    settings: TrainingSection,
    *,
    base: Path,
    dtype: str,
    start: Path | None,
    seed: int,
    work: Path,
    output: Path,
    report: Report,
    online: Online | None = None,
    part: Part | None = None,
) -> list[Record]:
    """Train and write the result into `output`; continue from a checkpoint in `work` where there is one.

    `base` holds the model's weights (`dtype` "float32" or "bfloat16"), `start` an adapter to go on from. `online`: the
    training is a part of a longer one.
    Returns one record for each optimiser step: step, epoch, learning_rate, gradient_norm (before clipping) and
    what the method reports. The same inputs give the same bytes, also when the training was interrupted.
    Raises SaveError when the disk is full or not writable, RatchetError when it diverges or memory runs out.
    """
    torch.manual_seed(derive_seed(seed, "torch"))
    with memory_errors(settings):
        policy = open_policy(settings, base, dtype, start, derive_seed(seed, "lora"))
        if part:
            part.attach(policy)
        optimizer = Optimizer(trainable(policy.model), settings)
        schedule = Schedule(settings, method.steps, online.steps, online.total) if online else Schedule(settings, method.steps)
        average = TailAverage(optimizer.masters, settings.average, method.steps) if settings.average else None
        extra = average.tensors if average else {}
        state = load_checkpoint(work, optimizer.masters, optimizer.rule, extra) or _begin(optimizer, online)
        optimizer.publish()
        history: list[Record] = state["history"]
        if (policy.device.type == "cuda" or settings.compile) and state["step"] < method.steps:
            _probe(method, policy, optimizer)
        pace = Pace(settings.checkpoint_every)
        for step in range(state["step"], method.steps):
            rate = schedule.rate(step)
            epoch, record = _step(method, policy, optimizer, step, rate)
            if average:
                average.after(step)
            if online and step + 1 == schedule.trunk:  # before any checkpoint that is as far: a resume finds both
                _carry_on(optimizer, online, step + 1, method.batch(method.steps - 1)[0] + 1)
            if average and step + 1 == method.steps:  # what is measured after the last step is what is saved
                average.apply()
                optimizer.publish()
            record |= method.after(policy, step)
            history.append({"step": step + 1, "epoch": epoch, "learning_rate": rate, **record})
            report({"done": step + 1, "total": method.steps, **record})
            if step + 1 < method.steps and pace.due(step + 1):
                with pace.saving():
                    save_checkpoint(work, step + 1, optimizer.masters, optimizer.rule, {"history": history}, extra)
    with saving(output):
        if part:
            part.save(policy, output)
        save_trained(policy.model, output, base, dtype)
    return history


def _begin(optimizer: Optimizer, online: Online | None) -> dict[str, Any]:
    """The state at the first step: what an earlier stage has left, if there was one."""
    if online and online.before:
        load_checkpoint(online.before, optimizer.masters, optimizer.rule)
    return {"step": 0, "history": []}


def _carry_on(optimizer: Optimizer, online: Online, steps: int, epochs: int) -> None:
    """Leave the state for the next stage; what an attempt that was killed has left goes first."""
    shutil.rmtree(online.after, ignore_errors=True)
    save_checkpoint(online.after, online.steps + steps, optimizer.masters, optimizer.rule, {"epochs": epochs})


def open_policy(settings: TrainingSection, base: Path, dtype: str, start: Path | None, seed: int) -> Policy:
    """The model to be trained, as a Policy."""
    attention = resolve_attention(settings.attention, settings.prefix_sharing, device())
    model = load_for_training(base, dtype, settings.adapter, settings.lora, start, seed, attention)
    if settings.gradient_checkpointing:
        model.enable_input_require_grads()
        if settings.compile or not recompute_layers(model):
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    # full fine-tuning keeps float32 weights, which bfloat16 matrix products use in rounded form
    autocast = settings.adapter == "full" and dtype == "bfloat16"
    policy = Policy(model, attention, settings.prefix_sharing, autocast)
    if settings.compile:
        compile_layers(model, policy.device)
    return policy


def _step(method: Method, policy: Policy, optimizer: Optimizer, step: int, rate: float) -> tuple[int, Record]:
    """One optimiser step; its epoch and record."""
    epoch, micro_batches = method.batch(step)
    sums: Stats = {}
    for micro in micro_batches:
        loss, stats = method.loss(policy, micro)
        loss.backward()
        for name, value in {"loss": loss.detach(), **stats}.items():
            sums[name] = sums[name] + value if name in sums else value
    names = sorted(sums)
    values = torch.stack([sums[n].float() for n in names]).tolist()  # one wait for the GPU a step
    record = method.record(dict(zip(names, values, strict=True)))
    record["gradient_norm"] = optimizer.step(rate)
    if not math.isfinite(record["loss"]) or not math.isfinite(record["gradient_norm"]):
        raise RatchetError(f"training diverged at step {step + 1}: {record}; lower training.learning_rate")
    return epoch, record


def _probe(method: Method, policy: Policy, optimizer: Optimizer) -> None:
    """Forward and backward through the largest micro-batch of the first steps before any work is done with them:
    a setting that does not fit fails now, and the allocator's largest blocks are there from the start. Kernels are chosen
    by the first shapes that they see: these are so the same after a resume."""
    candidates = [m for step in range(min(method.steps, 64)) for m in method.batch(step)[1]]
    with torch.random.fork_rng(devices=[policy.device] if policy.device.type == "cuda" else []):
        loss, _ = method.loss(policy, max(candidates, key=lambda m: m.tokens))
        loss.backward()
    optimizer.clear()


@contextmanager
def memory_errors(settings: TrainingSection) -> Iterator[None]:
    """Turn the allocator's errors into one that names the settings to change."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as e:
        if not isinstance(e, torch.OutOfMemoryError) and "can't allocate memory" not in str(e):
            raise
        ways = [f"training.micro_batch_tokens={max(1, settings.micro_batch_tokens // 2)}"]
        if not settings.gradient_checkpointing:
            ways.append("training.gradient_checkpointing=true")
        if settings.adapter == "full":
            ways.append("training.adapter=lora")
        elif settings.adapter == "lora":
            ways.append("training.adapter=qlora")
        raise RatchetError(f"out of memory while training: set {' or '.join(ways)} ({str(e).splitlines()[0]})") from e


def batch_plan(
    count: int, epochs: int, batch_size: int, seed: int, steps: int | None = None, first_epoch: int = 0
) -> list[tuple[int, list[int]]]:
    """(epoch, item numbers) of every optimiser step: a seeded shuffle each epoch, the last batch may be short.

    With `steps`, exactly so many, over as many epochs as they need; epochs are numbered from `first_epoch` on."""
    import random

    plan: list[tuple[int, list[int]]] = []
    epoch = first_epoch
    while len(plan) < steps if steps is not None else epoch < first_epoch + epochs:
        order = list(range(count))
        random.Random(derive_seed(seed, "order", epoch)).shuffle(order)
        plan += [(epoch, order[i : i + batch_size]) for i in range(0, count, batch_size)]
        epoch += 1
    return plan[:steps]


def metrics_of(history: Sequence[Record]) -> dict[str, Any]:
    """Summary of a training for the manifest: the last record's figures, and the first loss."""
    last = {k: v for k, v in history[-1].items() if k not in ("step", "epoch", "learning_rate", "loss", "tokens")}
    return {
        "steps": len(history),
        "first_loss": history[0]["loss"],
        "last_loss": history[-1]["loss"],
        "tokens": sum(h["tokens"] for h in history),
        "last": last,
    }
