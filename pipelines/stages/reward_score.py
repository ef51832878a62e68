"""Scores of a reward model for samples, in their shards. Inputs: problems, samples, reward_model.

A pure function of both: whoever scores the same samples with the same model finds the scores in the store.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import RatchetError
from configs.rows import Problem, Sample, Score
from configs.schema import PromptSection, TrainingSection
from data_gen.prompts import PromptEncoder
from data_gen.steps import step_spans
from pipelines.stage import Report, ShardResult, ShardRunner, Task, add_metrics, register
from pipelines.stages.reward_data import solution_ids
from pipelines.store import write_rows
from rewards.shaping import Answer, aggregate

if TYPE_CHECKING:
    from trainers.reward_head import Response


class RewardScoreStage:
    """config: training (what the forward pass depends on), aggregation, prompt, model, dtype. A process model scores the
    last token of every step; a sample without steps is scored at its last token."""

    name, version, where, device = "reward_score", 1, "workers", True

    def shards(self, task: Task) -> int:
        return sum(name.startswith("part-") for name in task.input("samples").manifest()["files"])

    def open(self, task: Task) -> ShardRunner:
        import torch

        from trainers.reward_head import Scorer

        torch.set_num_threads(task.hints["train_threads"])
        config, folder, base = task.config, task.input("reward_model").model, Path(task.paths["base"])
        encoder = PromptEncoder(base, PromptSection.model_validate(config["prompt"]))
        questions = {p.id: p.question for p in task.rows("problems", Problem)}
        scorer = Scorer(folder, TrainingSection.model_validate(config["training"]), base, config["dtype"])

        def run(shard: int, report: Report) -> ShardResult:
            samples: list[Sample] = task.rows("samples", Sample, [shard])
            responses = [response_of(encoder, questions[s.problem], s, scorer.kind) for s in samples]
            began = time.monotonic()
            values = scorer.score(responses, lambda done: report({"done": done, "total": len(samples)}))
            for s, v in zip(samples, values, strict=True):
                refuse_not_finite(v, folder, f"sample {s.id} of problem {s.problem}")
            seconds = time.monotonic() - began
            key = task.inputs["reward_model"][1]
            rows = [
                Score(
                    id=f"{s.id}/reward", parents=[s.id], stage="reward_score", sample=s.id, problem=s.problem, reward_model=key,
                    value=aggregate(v, config["aggregation"]) if scorer.kind == "process" else v[0],
                    steps=v if scorer.kind == "process" else [],
                )
                for s, v in zip(samples, values, strict=True)
            ]
            write_rows(task.artefact.part(shard), rows, Score)
            metrics = {"scores": len(rows), "total": sum(r.value for r in rows)}
            return ShardResult(rows=len(rows), metrics=metrics, timing={"score_seconds": seconds})

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        total = add_metrics(shards)
        return {"scores": total["scores"], "mean": total["total"] / max(1, total["scores"])}


def response_of(encoder: PromptEncoder, question: str, answer: Answer, kind: str) -> Response:
    """An answer as the reward model reads it; `kind` is that of the model."""
    from trainers.reward_head import Response

    ids = solution_ids(encoder, answer)
    spans = step_spans(encoder.tokenizer, ids) if kind == "process" else []
    return Response(encoder.encode(question), ids, [s.end - 1 for s in spans] or [len(ids) - 1])


def refuse_not_finite(scores: Sequence[float], model: Path, whose: str) -> None:
    """Raises RatchetError where a score is no number to compare: rewards and orders made of it would mean nothing."""
    bad = next((s for s in scores if not math.isfinite(s)), None)
    if bad is not None:
        raise RatchetError(
            f"the reward model in {model} gives {whose} the score {bad}: its weights are damaged or its training has diverged; "
            "train it again, with a lower reward_model.learning_rate"
        )


register(RewardScoreStage())
