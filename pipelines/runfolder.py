"""A run folder: what was asked, what happened, and links to what came out. It defends itself.

    recipe.yaml     the resolved recipe          plan.json      stages with their keys
    events.jsonl    what happened, in order      metrics.jsonl  one record for each finished stage
    artefacts/      links into the store, in the order of the plan
    estimate.json   what the plan was thought to cost before anything ran
    live.json       what the stage at work has done, see `pipelines.live`
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from configs.errors import InputError
from configs.load import validate
from configs.schema import Recipe
from pipelines.files import disk_error, read_json, write_json, writing
from pipelines.plan import Plan
from pipelines.store import Store


class RunFolder:
    """One run on the disk. `create` or `existing` make it; `locked` holds it while running."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> RunFolder:
        """A new folder, or the same recipe's old one; one of another recipe is refused with what differs."""
        run = cls(path)
        if run.begun_with(recipe):
            return run
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise InputError(f"cannot make the run folder {path}: {e.strerror}; choose another --run-dir") from e
        with writing(path / "recipe.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
        return run

    def begun_with(self, recipe: Recipe) -> bool:
        """Whether this recipe was begun here; a folder that is anything else but absent or empty is refused."""
        path = self.path
        if (path / "recipe.yaml").exists():
            differing = _differences(self.recipe().model_dump(), recipe.model_dump())
            if differing:
                raise InputError(
                    f"run folder {path} belongs to another config; it differs in:\n"
                    + "\n".join(f"  {k}: {a!r} there, {b!r} here" for k, (a, b) in differing.items())
                    + f"\nContinue it as it is with `ratchet resume {path}`, or choose another --run-dir"
                )
            return True
        if path.exists() and (not path.is_dir() or any(p.name != ".lock" for p in path.iterdir())):
            raise InputError(f"{path} exists and is not a run folder: choose another --run-dir")
        return False

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """A folder that a run has begun in."""
        if not (path / "recipe.yaml").is_file():
            raise InputError(f"{path} is not a run folder (it has no recipe.yaml); see `ratchet run --help`")
        return cls(path)

    def recipe(self) -> Recipe:
        """The resolved recipe of this run."""
        file = self.path / "recipe.yaml"
        try:
            return validate(yaml.safe_load(file.read_text()), str(file))
        except yaml.YAMLError as e:
            raise InputError(f"{file}: damaged: {e}") from e

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; a second process is refused. The lock ends with the process, however it ends."""
        with (self.path / ".lock").open("a+") as handle:
            for last in (False, False, True):  # `ratchet status` holds a shared lock for a moment
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if last:
                        handle.seek(0)
                        raise InputError(
                            f"run folder {self.path} is in use by process {handle.read().strip() or '?'}: wait for it, "
                            f"watch it with `ratchet status {self.path}`, or choose another --run-dir"
                        ) from None
                    time.sleep(0.1)
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield

    def in_use(self) -> bool:
        """Whether some process holds the folder."""
        lock = self.path / ".lock"
        if not lock.exists():
            return False
        with lock.open() as handle:  # reading is enough: the folder may be someone else's
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def write_plan(self, plan: Plan, store: Store) -> None:
        """Record the stages and link their artefacts."""
        stages = [
            {
                "label": s.label, "kind": s.kind, "key": s.key,
                "inputs": {name: i.key for name, i in s.inputs.items()},
            }
            for s in plan.stages
        ]
        trained = [s.key for s in plan.trained]
        model = {"name": plan.model.name, "fingerprint": plan.model.fingerprint, "path": str(plan.model.path)}
        write_json(self.path / "plan.json", {"model": model, "store": str(store.root), "stages": stages, "trained": trained})
        links = self.path / "artefacts"
        links.mkdir(exist_ok=True)
        for number, stage in enumerate(plan.stages):
            link = links / f"{number:02d}-{stage.label.replace('/', '-')}"
            target = store.artefact(stage.kind, stage.key).path
            if not link.is_symlink() or link.readlink() != target:  # the store may have moved since
                link.unlink(missing_ok=True)
                link.symlink_to(target)

    def plan(self) -> dict[str, Any]:
        """The recorded plan."""
        return read_json(self.path / "plan.json")

    def event(self, event: str, **fields: Any) -> None:
        """Append to the event log."""
        self._append("events.jsonl", {"time": _now(), "event": event, **fields})

    def estimate_plan(self, plan: Plan, store: Store) -> str | None:
        """Record what the plan is thought to cost here. A resume leaves the first estimate of the same stages as it is.

        A run does not depend on it: where the shape of the model cannot be told, the reason is returned.
        """
        from pipelines.estimate import Device, estimate
        from pipelines.shape import shape_of_folder

        if [s["key"] for s in self.estimate().get("stages", [])] == [s.key for s in plan.stages]:
            return None
        try:
            shape = shape_of_folder(plan.model.path)
        except InputError as e:
            return str(e)
        write_json(self.path / "estimate.json", estimate(plan, store, shape, Device.here()))
        return None

    def estimate(self) -> dict[str, Any]:
        """The recorded estimate (see `pipelines.estimate`); empty of a run that began before there was one."""
        path = self.path / "estimate.json"
        return read_json(path) if path.exists() else {}

    def metrics(
        self, label: str, kind: str, key: str, cached: bool, values: Mapping[str, Any], summary: str | None = None
    ) -> None:
        """Append the metrics of a finished stage, and its line on the screen."""
        record = {"stage": label, "kind": kind, "key": key, "cached": cached}
        record |= {"summary": summary} if summary is not None else {}
        self._append("metrics.jsonl", record | {k: v for k, v in values.items() if k not in record})

    def read_metrics(self) -> dict[str, dict[str, Any]]:
        """The last metrics of each stage by label."""
        return {m["stage"]: m for m in self._lines("metrics.jsonl")}

    def metrics_by_key(self) -> dict[str, dict[str, Any]]:
        """The last metrics of each stage by key: older versions could give two stages one label."""
        return {m["key"]: m for m in self._lines("metrics.jsonl")}

    def events(self) -> list[dict[str, Any]]:
        """All events so far."""
        return self._lines("events.jsonl")

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.path / name
        if not path.exists():
            return []
        lines = path.read_bytes().split(b"\n")[:-1]  # a torn last line has no newline
        records = []
        for number, line in enumerate(lines, 1):
            try:
                records.append(json.loads(line))
            except ValueError as e:
                raise InputError(f"{path}, line {number}: damaged ({e}); remove the line or the file") from e
        return records

    def _append(self, name: str, record: dict[str, Any]) -> None:
        path = self.path / name
        try:
            torn = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
            if torn:  # cut off what a kill left of the last line
                whole = path.read_bytes()
                with path.open("r+b") as f:
                    f.truncate(whole.rfind(b"\n") + 1)
            with path.open("a") as f:
                f.write(json.dumps(record, ensure_ascii=False) + "\n")
                f.flush()
                os.fsync(f.fileno())
        except OSError as e:
            raise disk_error(e, path) from e


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, with both values. Executor and tracker may change: they change no row."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*a, *(k for k in b if k not in a)]:
        x, y = a.get(key), b.get(key)
        if not prefix and key in ("executor", "track"):
            continue
        if _sections(x) and _sections(y) and len(x) == len(y):
            x, y = dict(enumerate(x)), dict(enumerate(y))
        if isinstance(x, Mapping) and isinstance(y, Mapping):
            found |= _differences(x, y, f"{prefix}{key}.")
        elif x != y:
            found[f"{prefix}{key}"] = (x, y)
    return found


def _sections(value: Any) -> TypeGuard[list[Any]]:
    """Whether a value is a list of sections: phases, benchmarks."""
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)
