"""Metrics to an experiment tracker, besides the run folder's own metrics.jsonl, which is always written.

Trackers are extras and are imported when used. All of them get the same: numbers of finished stages over the number of
trainings before them, and the curves of finished trainings over their steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from configs.errors import ConfigError
from configs.keys import content_key

_PROJECT = "ratchet"
_SETTINGS = ("sampling", "prompt")  # parts of a score's metrics that are not measured


class Tracker(Protocol):
    """Where numbers go."""

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        """Values by name at a step of an axis: `iteration`, or the label of a training."""
        ...

    def finish(self) -> None:
        """Flush what is left."""
        ...


class Trackio:
    """Trackio: a local database, shown by `trackio show`."""

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            import trackio
        except ImportError as e:
            raise _not_installed("trackio", "track") from e
        self._trackio = trackio
        trackio.init(project=_PROJECT, name=name, config=dict(config), resume="allow")

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        self._trackio.log(dict(values), step=step)

    def finish(self) -> None:
        self._trackio.finish()


class WeightsAndBiases:
    """Weights & Biases; `WANDB_MODE=offline` keeps everything in the run folder until `wandb sync`."""

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb
            from wandb.errors import CommError, UsageError
        except ImportError as e:
            raise _not_installed("wandb", "wandb") from e
        identity = content_key(str(folder.resolve()), dict(config))[:16]  # a resumed run goes on with its own record
        try:
            self._run = wandb.init(
                project=_PROJECT, name=name, id=identity, resume="allow", dir=str(folder), config=dict(config),
                settings=wandb.Settings(silent=True, console="off"),
            )
        except (UsageError, CommError) as e:
            raise ConfigError(f"track is `wandb`: {e}; run `wandb login`, or set WANDB_MODE=offline") from e
        self._axes: set[str] = set()

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        name = axis if axis == "iteration" else f"{axis}/step"
        if axis not in self._axes:
            self._axes.add(axis)
            self._run.define_metric(name, hidden=True)
        for key in values:
            if key not in self._axes:  # its own axis, or wandb would count our calls
                self._axes.add(key)
                self._run.define_metric(key, step_metric=name)
        self._run.log({**values, name: step})

    def finish(self) -> None:
        self._run.finish()


class TensorBoard:
    """Event files in `tensorboard/` of the run folder."""

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as e:
            raise _not_installed("tensorboard", "tensorboard") from e
        self._writer = SummaryWriter(log_dir=str(folder / "tensorboard"))
        self._writer.add_text("recipe", "\n".join(f"    {line}" for line in json.dumps(config, indent=1).splitlines()))

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def finish(self) -> None:
        self._writer.close()


_TRACKERS: Mapping[str, type[Trackio | WeightsAndBiases | TensorBoard]] = {
    "trackio": Trackio, "wandb": WeightsAndBiases, "tensorboard": TensorBoard,
}  # fmt: skip


class Tracking:
    """The tracker of one run. What a tracker was told is noted in the run folder, so that a resume does not repeat it
    and a tracker that is switched on later gets everything."""

    def __init__(self, kind: str, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        self._tracker: Tracker | None = None
        self._note = folder / f"tracked-{kind}.txt"
        self._told: set[str] = set()
        if kind != "none":
            self._tracker = _TRACKERS[kind](name, folder, config)
            self._told = set(self._note.read_text().split()) if self._note.exists() else set()

    def stage(self, label: str, key: str, iteration: int, metrics: Mapping[str, Any], artefact: Path) -> None:
        """Tell of a finished stage; `iteration`: trainings before it. Its name loses the iteration's, which is the axis."""
        if self._tracker is None or key in self._told:
            return
        first, _, rest = label.partition("/")
        name = label if first == "problems" else rest
        plain = {k: v for k, v in metrics.items() if k not in _SETTINGS}
        self._tracker.log(dict(_numbers(name, plain)), "iteration", iteration)
        curve = artefact / "train.jsonl"
        if curve.is_file():
            for record in map(json.loads, curve.read_text().splitlines()):
                step = record.pop("step")
                self._tracker.log(dict(_numbers(label, record)), label, step)
        with self._note.open("a") as f:
            f.write(f"{key}\n")

    def finish(self) -> None:
        """Flush what is left."""
        if self._tracker is not None:
            self._tracker.finish()


def _numbers(name: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers in nested values, by path."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(f"{name}/{key}", value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{name}/{key}", value


def _not_installed(package: str, extra: str) -> ConfigError:
    return ConfigError(f"track is `{package}`, but it is not installed: pip install '.[{extra}]'")
