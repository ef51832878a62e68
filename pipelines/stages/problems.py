"""Problems as an artefact: loaded or generated once; training problems joined, checked, varied and rewritten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from configs.errors import InputError
from configs.rows import Problem
from data_gen.decontaminate import Dropped, decontaminate
from data_gen.problems import load_problems
from data_gen.rewriting import equations
from data_gen.validation import held_out
from data_gen.variants import variants
from pipelines.files import write_json
from pipelines.stage import Report, ShardResult, ShardRunner, Task, add_metrics, register
from pipelines.store import write_rows


class _AtOnce:
    """A stage of the runner's own process that makes all of its problems at once, in one shard."""

    version, where, device = 1, "driver", False

    def make(self, task: Task) -> tuple[Sequence[Problem], dict[str, Any]]:
        """The problems and the stage's metrics."""
        raise NotImplementedError

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        def run(shard: int, report: Report) -> ShardResult:
            problems, metrics = self.make(task)
            write_rows(task.artefact.part(shard), problems, Problem)
            return ShardResult(rows=len(problems), metrics=metrics)

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return add_metrics(shards)


class ProblemsStage(_AtOnce):
    """config: source, split, and the source's own settings."""

    name = "problems"

    def make(self, task: Task) -> tuple[Sequence[Problem], dict[str, Any]]:
        settings = {k: v for k, v in task.config.items() if v is not None and k != "content"}
        if "path" in task.paths:
            settings["path"] = task.paths["path"]
        problems = load_problems(**settings)
        if not problems:
            raise InputError(f"no problems in {task.config}")
        return problems, {}


class ValidationStage(_AtOnce):
    """`count` of the training problems, to be held out of the training (input: train). config: count, seed."""

    name = "validation"

    def make(self, task: Task) -> tuple[Sequence[Problem], dict[str, Any]]:
        return held_out(task.rows("train", Problem), task.config["count"], task.config["seed"]), {}


class JoinStage(_AtOnce):
    """Training problems of several sources as one (inputs: train, extra0, extra1, ...), in this order. config: none."""

    name = "join"

    def make(self, task: Task) -> tuple[Sequence[Problem], dict[str, Any]]:
        joined: list[Problem] = task.rows("train", Problem)
        known = {p.id: "data.train" for p in joined}
        for i in range(len(task.inputs) - 1):
            more: list[Problem] = task.rows(f"extra{i}", Problem)
            if again := next((p.id for p in more if p.id in known), None):
                raise InputError(
                    f"data.extra.{i}: its problem {again} has the id of one of {known[again]}: take another part of the "
                    "source, or give the problems other ids"
                )
            known |= {p.id: f"data.extra.{i}" for p in more}
            joined += more
        return joined, {}


class CleanStage(_AtOnce):
    """Training problems without those found in an evaluation set (inputs: train, eval0, eval1, ..., validation).

    What was dropped, and why, is in `dropped.json` of the artefact. config: ngram, lcs_ratio.
    """

    name = "decontaminate"

    def make(self, task: Task) -> tuple[Sequence[Problem], dict[str, Any]]:
        train: list[Problem] = task.rows("train", Problem)
        kept, dropped = decontaminate(train, _evaluation(task), task.config["ngram"], task.config["lcs_ratio"])
        if not kept:
            raise InputError(f"all {len(train)} training problems are in an evaluation set: use another split")
        write_json(task.artefact.path / "dropped.json", msgspec.to_builtins(dropped))
        return kept, {"kept": len(kept), "dropped": len(dropped)}


class RewriteStage(_AtOnce):
    """Training problems whose solutions are their calculations alone (input: train); a problem whose solution cannot be
    written so has none from here on. config: solutions (`equations`)."""

    name = "rewrite"

    def make(self, task: Task) -> tuple[Sequence[Problem], dict[str, Any]]:
        train: list[Problem] = task.rows("train", Problem)
        rows = [msgspec.structs.replace(p, solution=equations(p.solution) if p.solution else None) for p in train]
        return rows, {"problems": len(rows), "solutions": sum(p.solution is not None for p in rows)}


_VARIED_AT_ONCE = 500  # problems of a shard: some seconds


class VariantsStage:
    """Training problems, each followed by its numeric variants (inputs: train, and eval0, eval1, ..., validation where there
    are evaluation sets that no variant may be like: see `dropped-SHARD.json`). config: count, first; with evaluation sets
    ngram, lcs_ratio."""

    name, version, where, device = "variants", 2, "workers", False

    def shards(self, task: Task) -> int:
        return max(1, -(-task.input("train").manifest()["rows"] // _VARIED_AT_ONCE))

    def open(self, task: Task) -> ShardRunner:
        everything: list[Problem] = task.rows("train", Problem)
        taken = {p.id for p in everything}
        evaluation = _evaluation(task)

        def run(shard: int, report: Report) -> ShardResult:
            train = everything[shard * _VARIED_AT_ONCE : (shard + 1) * _VARIED_AT_ONCE]
            made: list[Problem] = []
            for done, problem in enumerate(train, 1):
                made += variants(problem, task.config["count"], task.config.get("first", 0))
                report({"done": done, "total": len(train)})
            dropped: list[Dropped] = []
            if evaluation:
                made, dropped = decontaminate(made, evaluation, task.config["ngram"], task.config["lcs_ratio"])
                write_json(task.artefact.path / f"dropped-{shard:05d}.json", msgspec.to_builtins(dropped))
            if again := next((v.id for v in made if v.id in taken), None):
                raise InputError(f"{task.label}: a training problem has a variant's id, {again}: give it another one")
            beside: dict[str, list[Problem]] = {}
            for variant in made:
                beside.setdefault(variant.parents[0], []).append(variant)
            rows = [q for p in train for q in (p, *beside.get(p.id, ()))]
            write_rows(task.artefact.part(shard), rows, Problem)
            counts = {"problems": len(train), "varied": len(beside), "variants": len(made), "dropped": len(dropped)}
            return ShardResult(rows=len(rows), metrics=counts)

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return add_metrics(shards)


def _evaluation(task: Task) -> list[Problem]:
    """Problems of all evaluation sets among the inputs."""
    return [p for name in sorted(task.inputs) if name != "train" for p in task.rows(name, Problem)]


register(ProblemsStage())
register(ValidationStage())
register(JoinStage())
register(VariantsStage())
register(RewriteStage())
register(CleanStage())
