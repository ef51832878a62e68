"""Problems as an artefact: loaded or generated once, training problems checked against the evaluation sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configs.errors import InputError
from configs.rows import Problem
from data_gen.decontaminate import Dropped, decontaminate
from data_gen.problems import load_problems
from data_gen.validation import held_out
from pipelines.files import write_json
from pipelines.stage import Report, ShardResult, ShardRunner, Task, add_metrics, register
from pipelines.store import write_rows


class ProblemsStage:
    """config: source, split, and the source's own settings."""

    name, version, where, device = "problems", 1, "driver", False

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        def run(shard: int, report: Report) -> ShardResult:
            settings = {k: v for k, v in task.config.items() if v is not None and k != "content"}
            if "path" in task.paths:
                settings["path"] = task.paths["path"]
            problems = load_problems(**settings)
            if not problems:
                raise InputError(f"no problems in {task.config}")
            write_rows(task.artefact.part(shard), problems, Problem)
            return ShardResult(rows=len(problems))

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return add_metrics(shards)


class ValidationStage:
    """`count` of the training problems, to be held out of the training (input: train). config: count, seed."""

    name, version, where, device = "validation", 1, "driver", False

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        def run(shard: int, report: Report) -> ShardResult:
            train: list[Problem] = task.rows("train", Problem)
            held = held_out(train, task.config["count"], task.config["seed"])
            write_rows(task.artefact.part(shard), held, Problem)
            return ShardResult(rows=len(held))

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return add_metrics(shards)


class CleanStage:
    """Training problems without those found in an evaluation set (inputs: train, eval0, eval1, ..., validation).

    What was dropped, and why, is in `dropped.json` of the artefact. config: ngram, lcs_ratio.
    """

    name, version, where, device = "decontaminate", 1, "driver", False

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        def run(shard: int, report: Report) -> ShardResult:
            train = task.rows("train", Problem)
            evaluation = [p for name in sorted(task.inputs) if name != "train" for p in task.rows(name, Problem)]
            kept, dropped = decontaminate(train, evaluation, task.config["ngram"], task.config["lcs_ratio"])
            if not kept:
                raise InputError(f"all {len(train)} training problems are in an evaluation set: use another split")
            write_json(task.artefact.path / "dropped.json", [_plain(d) for d in dropped])
            write_rows(task.artefact.part(shard), kept, Problem)
            return ShardResult(rows=len(kept), metrics={"kept": len(kept), "dropped": len(dropped)})

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return add_metrics(shards)


def _plain(dropped: Dropped) -> dict[str, Any]:
    import msgspec

    return msgspec.to_builtins(dropped)


register(ProblemsStage())
register(ValidationStage())
register(CleanStage())
