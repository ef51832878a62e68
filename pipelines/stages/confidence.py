"""The model's own confidence as a scorer, in the shards of the samples. Input: samples.

The value is 2 exp(mean log-probability of the generated ids) - 1, in [-1, 1]. It costs nothing, and it is what a score
stage looks like: any stage that writes one `Score` for each sample can take its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from configs.rows import Sample, Score
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register
from pipelines.store import write_rows


class ConfidenceStage:
    """config: nothing but the name of the scorer."""

    name, version, where, device = "confidence", 2, "workers", False

    def shards(self, task: Task) -> int:
        return sum(name.startswith("part-") for name in task.input("samples").manifest()["files"])

    def open(self, task: Task) -> ShardRunner:
        def run(shard: int, report: Report) -> ShardResult:
            samples: list[Sample] = task.rows("samples", Sample, [shard])
            rows = [
                Score(
                    id=f"{s.id}/confidence", parents=[s.id], stage="confidence", sample=s.id, problem=s.problem,
                    reward_model=s.model, steps=[], value=2.0 * math.exp(s.logprob / max(1, len(s.logprobs))) - 1.0,
                )
                for s in samples
            ]
            write_rows(task.artefact.part(shard), rows, Score)
            return ShardResult(rows=len(rows), metrics={"sum": math.fsum(r.value for r in rows)})

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        rows = sum(s.rows for s in shards)
        return {"scores": rows, "mean": math.fsum(s.metrics["sum"] for s in shards) / max(1, rows)}


register(ConfidenceStage())
