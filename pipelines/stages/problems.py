"""Problems as an artefact: loaded or generated once; training problems joined, checked, varied, inverted and rewritten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from configs.errors import InputError
from configs.rows import Problem
from data_gen.decontaminate import Dropped, decontaminate
from data_gen.inverses import inverses
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


_AT_ONCE = 500  # problems of a shard: some seconds


class _Beside:
    """Training problems, each followed by those made of it (inputs: train, and eval0, eval1, ..., validation where there are
    evaluation sets that none of them may be like: see `dropped-SHARD.json`). Nothing is made of what another such stage has
    made."""

    where, device = "workers", False
    name: str
    version: int
    counted: str  # the metric that counts problems of which something is made
    one: str  # what is made of them, for an error

    def make(self, problem: Problem, config: Mapping[str, Any]) -> list[Problem]:
        """New problems with `problem` as their parent."""
        raise NotImplementedError

    def shards(self, task: Task) -> int:
        return max(1, -(-task.input("train").manifest()["rows"] // _AT_ONCE))

    def open(self, task: Task) -> ShardRunner:
        everything: list[Problem] = task.rows("train", Problem)
        taken = {p.id for p in everything}
        evaluation = _evaluation(task)

        def run(shard: int, report: Report) -> ShardResult:
            train = everything[shard * _AT_ONCE : (shard + 1) * _AT_ONCE]
            originals = [p for p in train if p.stage not in _MADE]
            made: list[Problem] = []
            for done, problem in enumerate(originals, 1):
                made += self.make(problem, task.config)
                report({"done": done, "total": len(originals)})
            dropped: list[Dropped] = []
            if evaluation:
                made, dropped = decontaminate(made, evaluation, task.config["ngram"], task.config["lcs_ratio"])
                write_json(task.artefact.path / f"dropped-{shard:05d}.json", msgspec.to_builtins(dropped))
            if again := next((q.id for q in made if q.id in taken), None):
                raise InputError(f"{task.label}: a training problem has {self.one}'s id, {again}: give it another one")
            beside: dict[str, list[Problem]] = {}
            for new in made:
                beside.setdefault(new.parents[0], []).append(new)
            rows = [q for p in train for q in (p, *beside.get(p.id, ()))]
            write_rows(task.artefact.part(shard), rows, Problem)
            counts = {"problems": len(originals), self.counted: len(beside), self.name: len(made), "dropped": len(dropped)}
            return ShardResult(rows=len(rows), metrics=counts)

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return add_metrics(shards)


class VariantsStage(_Beside):
    """Numeric variants. config: count, first; with evaluation sets ngram, lcs_ratio."""

    name, version, counted, one = "variants", 2, "varied", "a variant"

    def make(self, problem: Problem, config: Mapping[str, Any]) -> list[Problem]:
        return variants(problem, config["count"], config.get("first", 0))


class InversesStage(_Beside):
    """Inverse problems. config: count; with evaluation sets ngram, lcs_ratio."""

    name, version, counted, one = "inverses", 1, "inverted", "an inverse"

    def make(self, problem: Problem, config: Mapping[str, Any]) -> list[Problem]:
        return inverses(problem, config["count"])


_MADE = frozenset((VariantsStage.name, InversesStage.name))


def _evaluation(task: Task) -> list[Problem]:
    """Problems of all evaluation sets among the inputs."""
    return [p for name in sorted(task.inputs) if name != "train" for p in task.rows(name, Problem)]


register(ProblemsStage())
register(ValidationStage())
register(JoinStage())
register(VariantsStage())
register(InversesStage())
register(RewriteStage())
register(CleanStage())
