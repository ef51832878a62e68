"""Worked examples to show before each question of an evaluation. Inputs: pool (a training split, or the rows of a file of
one's own) and problems (the evaluation set, of which none may be shown)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configs.rows import Problem
from data_gen.eval_prompts import choose_shots, given_shots
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register
from pipelines.store import write_rows


class ShotsStage:
    """config: count (None: all of a file), given (whether the pool is a file to show as it is)."""

    name, version, where, device = "shots", 1, "driver", False

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        def run(shard: int, report: Report) -> ShardResult:
            choose = given_shots if task.config["given"] else choose_shots
            rows = choose(task.rows("pool", Problem), task.rows("problems", Problem), task.config["count"])
            write_rows(task.artefact.part(shard), rows, Problem)
            return ShardResult(rows=len(rows))

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return {"shots": shards[0].rows}


register(ShotsStage())
