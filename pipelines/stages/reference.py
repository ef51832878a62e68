"""Log-probabilities of preference pairs under the model that a training starts from, computed once.

Inputs: pairs, and optionally model (a training artefact to start from). Whatever trains on the same pairs from
the same weights (another beta, loss or learning rate) finds them in the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configs.rows import Pair, PairLogprobs
from configs.schema import TrainingSection
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register
from pipelines.stages.train import starting_weights
from pipelines.store import write_rows


class ReferenceStage:
    """config: training (what the forward pass depends on: adapter, lora, micro_batch_tokens, attention,
    prefix_sharing), model, dtype, seed."""

    name, version, where, device = "reference", 1, "workers", True

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        def run(shard: int, report: Report) -> ShardResult:
            import torch

            from trainers.dpo import reference_logprobs
            from trainers.loop import memory_errors, open_policy

            torch.set_num_threads(task.hints["train_threads"])
            settings = TrainingSection.model_validate(task.config["training"])
            base, start = starting_weights(task, settings)
            pairs: list[Pair] = task.rows("pairs", Pair)
            with memory_errors(settings):
                policy = open_policy(settings, base, task.config["dtype"], start, 0)
                values = reference_logprobs(policy, pairs, settings, report)
            rows = [
                PairLogprobs(
                    id=f"{p.id}/reference", parents=[p.id], stage="reference", pair=p.id,
                    chosen=values[p.id][0], rejected=values[p.id][1],
                )
                for p in pairs
            ]
            write_rows(task.artefact.part(shard), rows, PairLogprobs)
            tokens = sum(len(p.chosen_ids) for p in pairs)
            return ShardResult(
                rows=len(rows),
                metrics={"pairs": len(rows), "chosen_logprob_per_token": sum(r.chosen for r in rows) / max(1, tokens)},
            )

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return shards[0].metrics


register(ReferenceStage())
