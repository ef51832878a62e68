"""What a stage is: a pure function over shards, identified by a key.

A `Stage` is a node of the plan. A `StageKind` says how stages of one type run; each lives in its own file
under `pipelines/stages/` and registers itself. The runner and the executors know only this interface.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import msgspec

from configs.keys import content_key, derive_seed
from configs.rows import Row
from pipelines.store import Artefact, Store, read_rows

Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Stage:
    """A node of the plan. `config` is all that its result depends on besides the inputs; `paths` and `hints`
    are where things lie and how fast to work on this machine, which change no result."""

    kind: str
    label: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, Any] = field(default_factory=dict)
    given_key: str | None = None  # of an artefact that another run made

    @cached_property
    def key(self) -> str:
        """Content key: same key, same artefact."""
        if self.given_key is not None:
            return self.given_key
        inputs = {name: stage.key for name, stage in sorted(self.inputs.items())}
        return content_key(self.kind, kinds()[self.kind].version, dict(self.config), inputs)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A stage as it travels to a worker: plain data."""

    kind: str
    key: str
    label: str
    store: str
    config: dict[str, Any]
    inputs: dict[str, tuple[str, str]]
    paths: dict[str, str]
    hints: dict[str, Any]

    @property
    def artefact(self) -> Artefact:
        """The artefact that this task makes."""
        return Artefact(self.kind, self.key, Path(self.store) / self.kind / self.key)

    def input(self, name: str) -> Artefact:
        """A complete input artefact."""
        kind, key = self.inputs[name]
        return Artefact(kind, key, Path(self.store) / kind / key)

    def rows(self, name: str, row: type[Row], shards: Sequence[int] | None = None) -> list[Any]:
        """Rows of an input artefact."""
        return read_rows(self.input(name), row, shards)

    def seed(self, *parts: Any) -> int:
        """A seed from the run seed, this stage's key and `parts` (row id, sample index, ...)."""
        return derive_seed(self.config["seed"], self.key, *parts)


class ShardResult(msgspec.Struct, kw_only=True):
    """What a shard says of itself. `metrics` are deterministic; `timing` (seconds, rates) is not."""

    rows: int
    metrics: dict[str, Any] = {}
    timing: dict[str, float] = {}


ShardRunner = Callable[[int, Report], ShardResult]


class StageKind(Protocol):
    """How stages of one type run."""

    name: str
    version: int
    where: str  # "driver": light, in the runner's process; "workers": through the executor
    device: bool  # needs the accelerator for itself

    def shards(self, task: Task) -> int:
        """Into how many shards the input falls."""
        ...

    def open(self, task: Task) -> ShardRunner:
        """Load what is needed once; the result runs single shards and writes their files."""
        ...

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        """Metrics of the whole artefact. Raises when the result must not be used."""
        ...


_KINDS: dict[str, StageKind] = {}


def register(kind: StageKind) -> StageKind:
    """Make a stage kind known by its name."""
    _KINDS[kind.name] = kind
    return kind


@cache
def kinds() -> Mapping[str, StageKind]:
    """All stage kinds; imports every module in `pipelines.stages` the first time, also when some are there already."""
    import pipelines.stages as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return _KINDS


def task_of(stage: Stage, store: Store) -> Task:
    """The task of a stage, for artefacts in `store`."""
    return Task(
        kind=stage.kind, key=stage.key, label=stage.label, store=str(store.root), config=dict(stage.config),
        inputs={name: (s.kind, s.key) for name, s in stage.inputs.items()}, paths=dict(stage.paths),
        hints=dict(stage.hints),
    )


def add_metrics(shards: Sequence[ShardResult]) -> dict[str, Any]:
    """Sums of the shards' numeric metrics."""
    total: dict[str, Any] = {}
    for shard in shards:
        for name, value in shard.metrics.items():
            total[name] = total.get(name, 0) + value
    return total
