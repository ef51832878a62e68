"""Supervised fine-tuning on completions: minimise the mean negative log-likelihood of completion tokens.

Loss of a batch = sum_i w_i sum_t -log pi(y_it | x_i, y_i<t) / sum_i w_i |y_i|, prompts carry no loss.
One example is `prompt_ids` followed by `token_ids`; the end token is part of `token_ids`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from configs.errors import InputError, RatchetError
from configs.keys import derive_seed
from configs.rows import Example
from configs.schema import TrainingSection
from trainers.checkpoint import load_checkpoint, save_checkpoint, saving
from trainers.logits import logits_before
from trainers.model import load_for_training, save_trained, trainable
from trainers.schedule import learning_rate

Report = Callable[[dict[str, float]], None]


def train_sft(
    examples: Sequence[Example],
    settings: TrainingSection,
    *,
    base: Path,
    dtype: str,
    start: Path | None,
    seed: int,
    work: Path,
    output: Path,
    report: Report,
) -> list[dict[str, float]]:
    """Train and write the result into `output`; continue from a checkpoint in `work` where there is one.

    Returns one record for each optimiser step: step, epoch, loss (nats a token), learning_rate,
    gradient_norm (before clipping), tokens (completion tokens). The same inputs give the same bytes, also
    when the training was interrupted. Raises SaveError when the disk is full or not writable.
    """
    if not examples:
        raise InputError("no training examples: nothing was selected")
    torch.manual_seed(derive_seed(seed, "torch"))
    model = load_for_training(base, dtype, settings.adapter, settings.lora, start, derive_seed(seed, "lora"))
    if settings.gradient_checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    parameters = trainable(model)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.999)
    )
    plan = batch_plan(len(examples), settings.epochs, settings.batch_size, seed)
    state = load_checkpoint(work, parameters, optimizer) or {"step": 0, "history": []}
    history: list[dict[str, float]] = state["history"]
    autocast = settings.adapter == "full" and dtype == "bfloat16"
    for step in range(state["step"], len(plan)):
        rate = learning_rate(step, len(plan), settings.learning_rate, settings.schedule, settings.warmup_ratio)
        for group in optimizer.param_groups:
            group["lr"] = rate
        epoch, indices = plan[step]
        record = _step(model, optimizer, [examples[i] for i in indices], settings, autocast)
        if not math.isfinite(record["loss"]) or not math.isfinite(record["gradient_norm"]):
            raise RatchetError(f"training diverged at step {step + 1}: {record}; lower training.learning_rate")
        history.append({"step": step + 1, "epoch": epoch, "learning_rate": rate, **record})
        report({"done": step + 1, "total": len(plan), **record})
        if (step + 1) % settings.checkpoint_every == 0 and step + 1 < len(plan):
            save_checkpoint(work, step + 1, parameters, optimizer, {"history": history})
    with saving(output):
        save_trained(model, output, base, dtype)
    return history


def batch_plan(count: int, epochs: int, batch_size: int, seed: int) -> list[tuple[int, list[int]]]:
    """(epoch, example indices) of every optimiser step: a seeded shuffle each epoch, the last batch may be short."""
    plan = []
    for epoch in range(epochs):
        order = list(range(count))
        random.Random(derive_seed(seed, "order", epoch)).shuffle(order)
        plan += [(epoch, order[i : i + batch_size]) for i in range(0, count, batch_size)]
    return plan


def micro_batches(examples: Sequence[Example], budget: int) -> list[list[Example]]:
    """Examples of similar length together, each group at most `budget` tokens when padded (or one example)."""
    groups: list[list[Example]] = []
    for example in sorted(examples, key=lambda e: (-_length(e), e.id)):
        last = groups[-1] if groups else None
        if last is not None and _length(last[0]) * (len(last) + 1) <= budget:
            last.append(example)
        else:
            groups.append([example])
    return groups


def completion_nll(model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
    """Summed weighted negative log-likelihood (nats) of the completion tokens of a padded batch."""
    where = next(model.parameters()).device
    width = max(_length(e) for e in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    weights = torch.zeros(len(examples), width)
    for row, e in enumerate(examples):
        end = _length(e)
        ids[row, :end] = torch.tensor(e.prompt_ids + e.token_ids)
        mask[row, :end] = 1
        weights[row, len(e.prompt_ids) : end] = e.weight
    ids, mask, weights = ids.to(where), mask.to(where), weights.to(where)
    target = torch.zeros_like(mask, dtype=torch.bool)
    for row, e in enumerate(examples):
        target[row, len(e.prompt_ids) : _length(e)] = True
    logits = logits_before(model, ids, mask, target)
    losses = torch.nn.functional.cross_entropy(logits.float(), ids[target], reduction="none")
    return (losses * weights[target]).sum()


def _step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    examples: Sequence[Example],
    settings: TrainingSection,
    autocast: bool,
) -> dict[str, float]:
    """One optimiser step over `examples`; loss, gradient norm and token count."""
    tokens = sum(len(e.token_ids) for e in examples)
    normaliser = sum(e.weight * len(e.token_ids) for e in examples)
    total = 0.0
    kind = next(model.parameters()).device.type
    for group in micro_batches(examples, settings.micro_batch_tokens):
        with torch.autocast(kind, torch.bfloat16, enabled=autocast):
            loss = completion_nll(model, group) / normaliser
        loss.backward()
        total += loss.item()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm).item()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"loss": total, "gradient_norm": norm, "tokens": float(tokens)}


def _length(example: Example) -> int:
    return len(example.prompt_ids) + len(example.token_ids)


def metrics_of(history: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Summary of a training for the manifest."""
    return {
        "steps": len(history),
        "first_loss": history[0]["loss"],
        "last_loss": history[-1]["loss"],
        "tokens": sum(h["tokens"] for h in history),
    }
