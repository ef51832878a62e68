"""A run as it lies on the disk, for reading only: finished, running, failed, or of an older version.

Rows are read as dictionaries and files as plain JSON, not as today's types, so that what an older version has written
is shown as far as it goes. Nothing here writes, and an artefact that is not within reach is simply not there.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from configs.errors import InputError
from configs.merge import merge
from pipelines.files import read_json
from pipelines.live import read_live
from pipelines.runfolder import RunFolder
from pipelines.status import run_state, status_of
from pipelines.store import MANIFEST

Row = dict[str, Any]


@dataclass(frozen=True)
class StageRecord:
    """One stage of the plan. `inputs`: keys by name. `path` is its artefact's folder, whether that is there or not.
    `metrics` are those of the manifest, or of the run folder where the manifest is out of reach."""

    number: int
    label: str
    kind: str
    key: str
    inputs: Mapping[str, str]
    path: Path
    state: str
    metrics: Mapping[str, Any]
    cached: bool
    seconds: float | None  # that it took in this run
    estimate: float | None
    error: str | None

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest, empty where there is none."""
        path = self.path / MANIFEST
        return read_json(path) if path.is_file() else {}

    @property
    def config(self) -> Mapping[str, Any]:
        """What the result depends on besides the inputs."""
        return self.manifest.get("config", {})

    @property
    def timing(self) -> Mapping[str, float]:
        """Times and rates of the making, which may have been another run's."""
        return self.manifest.get("timing", {})

    @property
    def iteration(self) -> str:
        """First part of the label: initial, iteration1, ..., problems."""
        return self.label.partition("/")[0]

    def rows(self, columns: Sequence[str], ids: Collection[str] | None = None, column: str = "id") -> list[Row]:
        """Rows with those of `columns` that there are; with `ids` only rows whose `column` is one of them."""
        import pyarrow.parquet as pq

        found: list[Row] = []
        if not self.manifest:
            return found
        for name in sorted(n for n in self.manifest.get("files", {}) if n.startswith("part-")):
            path = self.path / name
            try:
                there = [c for c in columns if c in pq.read_schema(path).names]
                chosen = [(column, "in", set(ids))] if ids is not None else None
                found += pq.read_table(path, columns=there, filters=chosen).to_pylist() if ids is None or ids else []
            except (OSError, ValueError) as e:  # pyarrow's own errors are ValueErrors
                raise InputError(f"{path}: cannot be read ({e}): delete the folder {self.path} and run again") from e
        return found

    def json(self, name: str) -> Any:
        """A JSON file of the artefact, or None."""
        path = self.path / name
        return read_json(path) if self.manifest and path.is_file() else None

    def records(self, name: str = "train.jsonl") -> list[Row]:
        """The records of a JSON lines file of the artefact."""
        path = self.path / name
        if not self.manifest or not path.is_file():
            return []
        try:
            return [json.loads(line) for line in path.read_text().splitlines()]
        except ValueError as e:
            raise InputError(f"{path}: damaged ({e}): delete the folder {self.path} and run again") from e


class RunRecord:
    """A run folder and, as far as they are within reach, the artefacts that it links to."""

    def __init__(self, path: Path) -> None:
        self.path, folder = path, RunFolder.existing(path)
        self.name = path.resolve().name
        self.recipe = _recipe(path / "recipe.yaml")
        self.status = status_of(path)
        self.state = run_state(self.status)
        self.events = folder.events()
        self.estimate = folder.estimate()
        self.live = read_live(path)
        plan = folder.plan() if (path / "plan.json").exists() else {"stages": [], "store": "", "model": {}}
        self.model: Mapping[str, Any] = plan.get("model", {})
        self.store = Path(plan["store"])
        metrics = folder.metrics_by_key()
        self.stages = [self._stage(i, s, metrics.get(s["key"], {})) for i, s in enumerate(self.status["stages"])]

    def _stage(self, number: int, s: Mapping[str, Any], recorded: Mapping[str, Any]) -> StageRecord:
        link = self.path / "artefacts" / f"{number:02d}-{s['label'].replace('/', '-')}"
        path = link if link.is_dir() else self.store / s["kind"] / s["key"]
        manifest = read_json(path / MANIFEST) if (path / MANIFEST).is_file() else {}
        identity = {"stage", "kind", "key", "cached", "summary"}
        metrics = manifest.get("metrics") or {k: v for k, v in recorded.items() if k not in identity}
        return StageRecord(
            number, s["label"], s["kind"], s["key"], s.get("inputs", {}), path, s["state"], metrics,
            s["seconds"] is None and s["state"] == "done", s["seconds"], s["estimate"], s["error"],
        )

    def of_kind(self, *kinds: str) -> list[StageRecord]:
        """Stages of these kinds that have metrics, in the order of the plan."""
        return [s for s in self.stages if s.kind in kinds and s.metrics]

    def by_key(self, key: str | None) -> StageRecord | None:
        """The stage with a key."""
        return next((s for s in self.stages if s.key == key), None)

    def readers(self, stage: StageRecord, *kinds: str) -> list[StageRecord]:
        """Stages of these kinds that have `stage` as an input."""
        return [s for s in self.stages if s.kind in kinds and stage.key in s.inputs.values()]

    def place(self, stage: StageRecord) -> int:
        """The iteration that trained the model whose samples a stage is about (0: the one that the run began with).

        Told by inputs, not by labels: older versions named the model that a run began with like one of its own.
        """
        samples = self.by_key(stage.inputs.get("samples")) or self.by_key(stage.inputs.get("verdicts1")) or stage
        samples = self.by_key(samples.inputs.get("samples")) or samples
        trained = [s.key for s in self.trained]
        model = samples.inputs.get("model")
        return trained.index(model) + 1 if model in trained else 0

    @property
    def trained(self) -> list[StageRecord]:
        """The trainings of the run's own models, through all phases."""
        return [s for s in self.stages if s.kind == "train"]

    @property
    def start(self) -> str:
        """What the run began with, without the path before it."""
        name = str(self.setting("model.name") or "")
        return name.rstrip("/").rpartition("/")[2] if "@" in name or name.startswith(("/", ".", "~")) else name

    @property
    def phases(self) -> list[Mapping[str, Any]]:
        """Plain recipes of the phases, each with its name; none of a run without phases."""
        whole = {k: v for k, v in self.recipe.items() if k != "phases"}
        return [merge(whole, phase) for phase in self.setting("phases") or []]

    @property
    def out_of_reach(self) -> list[StageRecord]:
        """Stages that are done, but whose artefacts cannot be seen from here."""
        return [s for s in self.stages if s.state == "done" and not s.manifest]

    def setting(self, dotted: str) -> Any:
        """A value of the recipe, or None where this recipe has no such key."""
        return setting(self.recipe, dotted)


def setting(recipe: Mapping[str, Any], dotted: str) -> Any:
    """A value of a plain recipe, or None where it has no such key."""
    value: Any = recipe
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _recipe(path: Path) -> dict[str, Any]:
    """The recipe as plain data: one of an older version may have keys that are unknown today."""
    try:
        data = yaml.safe_load(path.read_text())
    except yaml.YAMLError as e:
        raise InputError(f"{path}: damaged: {e}") from e
    if not isinstance(data, dict):
        raise InputError(f"{path}: damaged: not a mapping of sections")
    return data


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key; what phases change by the name of the phase (`phases.sft.training.epochs`)."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if key == "phases" and not prefix and value:
            value = {p["name"]: {k: v for k, v in p.items() if k != "name"} for p in value}
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
