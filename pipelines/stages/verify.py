"""Verification: a verdict for every sample, in the shards of the samples. Inputs: problems, samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from configs.errors import RatchetError
from configs.rows import Problem, Sample, VerdictRow
from pipelines.stage import Report, ShardResult, ShardRunner, Task, add_metrics, register
from pipelines.store import write_rows
from rewards import verify

UNSCORED = ("timeout", "error", "bad_gold")


class VerifyStage:
    """config: mode, timeout (seconds an answer), max_failure_rate."""

    name, version, where, device = "verify", 2, "workers", False

    def shards(self, task: Task) -> int:
        return sum(name.startswith("part-") for name in task.input("samples").manifest()["files"])

    def open(self, task: Task) -> ShardRunner:
        golds = {p.id: p.answer for p in task.rows("problems", Problem)}
        mode, timeout = task.config["mode"], task.config["timeout"]

        def run(shard: int, report: Report) -> ShardResult:
            samples: list[Sample] = task.rows("samples", Sample, [shard])
            rows, seconds = [], []
            for sample in samples:
                verdict = verify(sample.text, golds[sample.problem], mode=mode, timeout=timeout)
                seconds.append(verdict.seconds)
                rows.append(
                    VerdictRow(
                        id=f"{sample.id}/verdict", parents=[sample.id], stage="verify", sample=sample.id,
                        problem=sample.problem, outcome=verdict.outcome, extracted=verdict.extracted,
                        detail=verdict.rule,
                    )
                )
                report({"done": len(rows), "total": len(samples)})
            write_rows(task.artefact.part(shard), rows, VerdictRow)
            counts = Counter(r.outcome for r in rows)
            timing = {"verify_seconds": sum(seconds), "slowest_seconds": max(seconds, default=0.0)}
            return ShardResult(rows=len(rows), metrics=dict(counts), timing=timing)

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        """Counts by outcome. Stops the run when too many answers could not be judged: that is not 'wrong'."""
        counts = add_metrics(shards)
        total = sum(counts.values())
        failed = {name: counts[name] for name in UNSCORED if counts.get(name)}
        rate = sum(failed.values()) / total
        if rate > task.config["max_failure_rate"]:
            raise RatchetError(
                f"{task.label}: {rate:.1%} of {total} answers could not be judged ({failed}), more than "
                f"rewards.max_failure_rate={task.config['max_failure_rate']}; see {task.artefact.path}"
            )
        return {**counts, "accuracy": counts.get("correct", 0) / total, "failure_rate": rate}


register(VerifyStage())
