"""What is exported: an iteration of a run, and its artefacts by what they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from configs.errors import InputError
from configs.rows import ProblemScore
from configs.schema import Recipe
from pipelines.models import ResolvedModel, resolve_model
from pipelines.runfolder import RunFolder
from pipelines.store import Artefact, read_rows


@dataclass(frozen=True)
class Figure:
    """One accuracy that the run has measured: of iteration `number` (0: the model it began with)."""

    number: int
    benchmark: str
    decoding: str
    artefact: Artefact
    metrics: dict[str, Any]

    def shares(self) -> list[float]:
        """The share of right answers for each problem."""
        rows: list[ProblemScore] = read_rows(self.artefact, ProblemScore)
        return [r.correct / r.samples for r in rows]


class Source:
    """Iteration `number` of a run. `best_on` is the benchmark on which it is the best, where that was asked for."""

    def __init__(self, reference: str, benchmark: str | None = None) -> None:
        name, at, wanted = reference.rpartition("@")
        if not at or not (Path(name).expanduser() / "recipe.yaml").is_file():
            name, wanted = reference, "last"
        self.run = RunFolder.existing(Path(name).expanduser())
        if not (self.run.path / "plan.json").is_file():
            raise InputError(f"{self.run.path} has not been started: ratchet resume {self.run.path}")
        self.plan = self.run.plan()
        self.trained: list[str] = self.plan["trained"]
        self.best_on: str | None = None
        if wanted == "best":
            best = self._best(benchmark)
            self.number, self.best_on = best.number, best.benchmark
        else:
            self.number = self._numbered(wanted)

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe of the run."""
        return self.run.recipe()

    @cached_property
    def model(self) -> ResolvedModel:
        """The weights that the run began with; those behind an adapter, where another run trained it."""
        model = resolve_model(self.recipe.model)
        recorded = self.plan["model"]["fingerprint"]
        if model.fingerprint != recorded:
            raise InputError(
                f"model.name: {self.recipe.model.name} has changed since {self.run.path} was run "
                f"(fingerprint {recorded} then, {model.fingerprint} now)"
            )
        return model

    @property
    def name(self) -> str:
        """As in `runs/demo@2`."""
        return f"{self.run.path}@{self.number}"

    @cached_property
    def stages(self) -> dict[str, dict[str, Any]]:
        """Stages of the plan by key: label, kind, key, and the keys of its inputs by name."""
        return {s["key"]: s for s in self.plan["stages"]}

    def place(self, stage: dict[str, Any]) -> Artefact:
        """The artefact of a stage, finished or not."""
        return Artefact(stage["kind"], stage["key"], Path(self.plan["store"]) / stage["kind"] / stage["key"])

    def artefact(self, key: str) -> Artefact:
        """A finished artefact of the run by its key."""
        artefact = self.place(self.stages[key])
        if not artefact.done:
            label, path = self.stages[key]["label"], self.run.path
            raise InputError(f"{label} of {path} is not finished, or no longer in the store: ratchet resume {path}")
        return artefact

    def trained_by(self) -> Artefact:
        """The training artefact of this iteration."""
        if not 1 <= self.number <= len(self.trained):
            if not self.trained:
                raise InputError(f"{self.run.path} has trained no model (training.method: {self.recipe.training.method})")
            raise InputError(f"{self.name} is no trained model: {self.run.path} has iterations 1 to {len(self.trained)}")
        return self.artefact(self.trained[self.number - 1])

    def stage(self, name: str) -> dict[str, Any] | None:
        """The stage `iterationN/name` of the plan, or None."""
        label = f"iteration{self.number}/{name}"
        return next((s for s in self.plan["stages"] if s["label"] == label), None)

    def drawn(self, benchmark: str | None) -> dict[str, Any]:
        """The stage of this iteration's samples: those it learned from, or a benchmark's (the sampled ones, if any)."""
        if benchmark is None:
            key = self._learned_samples()
            if key is None:
                raise InputError(f"{self.name} has no stored samples to learn from; --benchmark NAME takes an evaluation's")
            return self.stages[key]
        found = {f.decoding: f for f in self.figures() if (f.number, f.benchmark) == (self.number, benchmark)}
        figure = found.get("sampled") or found.get("greedy")
        if figure is None:
            raise InputError(f"{self.name} has no evaluation `{benchmark}`; the run has: {self._benchmarks()}")
        return self.stages[self.stages[figure.artefact.key]["inputs"]["samples"]]

    def _learned_samples(self) -> str | None:
        """The key of the samples behind this iteration's training rows, whichever iteration drew them first."""
        if 1 <= self.number <= len(self.trained):
            inputs = self.stages[self.trained[self.number - 1]]["inputs"]
            for rows in (inputs[name] for name in ("examples", "pairs") if name in inputs):
                if samples := self.stages[rows]["inputs"].get("samples"):
                    return samples
        stage = self.stage("sample")
        return stage["key"] if stage else None

    def beside(self, samples: dict[str, Any], kind: str) -> dict[str, Any] | None:
        """The stage of a kind that reads these samples (verdicts, step values, rewards), the last if there are several."""
        found = [s for s in self.plan["stages"] if s["kind"] == kind and s["inputs"].get("samples") == samples["key"]]
        return found[-1] if found else None

    def figures(self) -> list[Figure]:
        """All finished accuracies of the run, in its order."""
        found = []
        for stage in self.plan["stages"]:
            artefact = self.place(stage)
            if stage["kind"] != "score" or not artefact.done:
                continue
            model = self.stages[stage["inputs"]["samples"]]["inputs"].get("model")
            number = self.trained.index(model) + 1 if model in self.trained else 0
            _, benchmark, decoding = stage["label"].split("/")
            found.append(Figure(number, benchmark, decoding, artefact, artefact.manifest()["metrics"]))
        return found

    def _numbered(self, wanted: str) -> int:
        count = self._count()
        if wanted == "last":
            return count
        if not wanted.isdigit() or int(wanted) > count:
            raise InputError(f"{self.run.path} has iterations 1 to {count}, not `{wanted}`; `last` and `best` are names too")
        return int(wanted)

    def _count(self) -> int:
        """Iterations of the plan, those that train no policy too."""
        heads = [s["label"].split("/") for s in self.plan["stages"]]
        numbers = [int(h[0].removeprefix("iteration")) for h in heads if len(h) == 2 and h[0].startswith("iteration")]
        return max([len(self.trained), *numbers])

    def _best(self, benchmark: str | None) -> Figure:
        """The figure of the trained iteration with the highest greedy accuracy on a benchmark, by default the run's first;
        the earliest of equals."""
        greedy = [f for f in self.figures() if f.decoding == "greedy"]
        benchmark = benchmark or (greedy[0].benchmark if greedy else None)
        rivals = [f for f in greedy if f.benchmark == benchmark and f.number]
        if not rivals:
            has = f"; it has: {self._benchmarks()}" if greedy else ""
            what = f" on `{benchmark}`" if benchmark else ""
            raise InputError(f"{self.run.path}: no trained iteration has been measured{what}{has}. Give RUN@NUMBER, not best")
        return max(rivals, key=lambda f: (f.metrics["accuracy"], -f.number))

    def _benchmarks(self) -> str:
        return ", ".join(dict.fromkeys(f.benchmark for f in self.figures())) or "none"
