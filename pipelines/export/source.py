"""What is exported: an iteration of a run, and its artefacts by what they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from configs.errors import InputError
from configs.evaluation_section import SourceSection
from configs.phases import model_names, phases_of
from configs.rows import ProblemScore
from configs.schema import Recipe
from pipelines.models import ResolvedModel, resolve_model, trained_names
from pipelines.runfolder import RunFolder
from pipelines.store import Artefact, planned, read_rows


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
    """An iteration of a run: `label` is its name in reports (iteration2; sft, rft1 of phases), None for the model that the
    run began with. `number` counts the models of all phases as RUN@NUMBER does; it is None for an iteration of a phase that
    trained a reward model alone, and 0 in a run that trained nothing else: what was measured there is the model that it began
    with. `best_on` is the benchmark on which it is the best, where that was asked for.
    """

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
            self.best_on, wanted = best.benchmark, str(best.number)
        self.label, self.number = self._found(wanted)

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
        """As in `runs/demo@2`, `runs/mine@rft1`, or `runs/rm@iteration1` of a run that trained a reward model alone."""
        named = self.recipe.phases or not self.number
        return f"{self.run.path}@{self.label if self.label and named else self.number}"

    @cached_property
    def models(self) -> list[str]:
        """The names of the models that the run trains, in order."""
        return list(trained_names(self.plan))

    @cached_property
    def iterations(self) -> dict[str, Recipe]:
        """All iterations by name with the recipe of their phase, those that train a reward model alone too."""
        phases = phases_of(self.recipe)
        return {label: phase for name, phase in phases for label in model_names(name, phase.iterations.count)}

    @property
    def upto(self) -> dict[str, Recipe]:
        """The iterations that led to this one, itself included."""
        labels = list(self.iterations)
        count = labels.index(self.label) + 1 if self.label else 0
        return {label: self.iterations[label] for label in labels[:count]}

    @property
    def settings(self) -> Recipe:
        """The recipe as it is in the phase of this iteration."""
        return self.iterations[self.label] if self.label else self.recipe

    @property
    def learned_from(self) -> list[SourceSection]:
        """Where the problems came from that were trained on up to this iteration."""
        recipes = list(self.upto.values()) or [self.recipe]
        found = [source for r in recipes for source in (r.data.train, *r.data.extra)]
        return list({s.model_dump_json(): s for s in found}.values())

    @cached_property
    def stages(self) -> dict[str, dict[str, Any]]:
        """Stages of the plan by key: label, kind, key, and the keys of its inputs by name."""
        return {s["key"]: s for s in self.plan["stages"]}

    def place(self, stage: dict[str, Any]) -> Artefact:
        """The artefact of a stage, finished or not."""
        return planned(self.plan, stage)

    def artefact(self, key: str) -> Artefact:
        """A finished artefact of the run by its key."""
        artefact = self.place(self.stages[key])
        if not artefact.done:
            label, path = self.stages[key]["label"], self.run.path
            raise InputError(f"{label} of {path} is not finished, or no longer in the store: ratchet resume {path}")
        return artefact

    def trained_by(self) -> Artefact:
        """The training artefact of this iteration."""
        if self.label not in self.models:
            if not self.trained:
                method = self.recipe.training.method
                raise InputError(f"{self.run.path} has trained no model (training.method: {method})")
            raise InputError(f"{self.name} is no trained model: {self.run.path} has {self._choices()}")
        return self.artefact(self.trained[self.models.index(self.label)])

    def stage(self, name: str) -> dict[str, Any] | None:
        """The stage of this name in this iteration, or None."""
        label = f"{self.label}/{name}"
        return next((s for s in self.plan["stages"] if s["label"] == label), None)

    def drawn(self, benchmark: str | None) -> dict[str, Any]:
        """The stage of this iteration's samples: those it learned from, or a benchmark's (sampled ones of the first seed, if
        any)."""
        if benchmark is None:
            key = self._learned_samples()
            if key is None:
                raise InputError(f"{self.name} has no stored samples to learn from; --benchmark NAME takes an evaluation's")
            return self.stages[key]
        found = [f for f in self.figures() if (f.number, f.benchmark) == (self.number, benchmark)]
        figure = next((f for f in found if f.decoding != "greedy"), found[0] if found else None)
        if figure is None:
            raise InputError(f"{self.name} has no evaluation `{benchmark}`; the run has: {self._benchmarks()}")
        return self.stages[self.stages[figure.artefact.key]["inputs"]["samples"]]

    def _learned_samples(self) -> str | None:
        """The key of the samples behind this iteration's training rows, whichever iteration drew them first."""
        if self.label in self.models:
            inputs = self.stages[self.trained[self.models.index(self.label)]]["inputs"]
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

    def _found(self, wanted: str) -> tuple[str | None, int | None]:
        """Name and number of an iteration by its number, its name, or `last`: the last one that trained a model, if any did."""
        names = self.models or list(self.iterations)
        numbers = {name: i for i, name in enumerate(self.models, 1)} or dict.fromkeys(names, 0)
        if wanted == "last":
            return (names[-1], numbers[names[-1]]) if names else (None, 0)
        if wanted in self.iterations:
            return wanted, numbers.get(wanted)
        if wanted.isdecimal() and int(wanted) <= len(names):
            return (names[int(wanted) - 1], numbers[names[int(wanted) - 1]]) if int(wanted) else (None, 0)
        raise InputError(f"{self.run.path} has {self._choices()}, not `{wanted}`; `last` and `best` are names too")

    def _choices(self) -> str:
        names = self.models or list(self.iterations)
        shown = f" ({', '.join(self.iterations)})" if self.recipe.phases else ""
        return f"iterations 1 to {len(names)}{shown}"

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
