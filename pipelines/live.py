"""A run's sign of life: `live.json` in the run folder, replaced about once a second while the run goes on.

It says what the stage at work has done, so that whoever sees the run folder, on this machine or another, can follow
the run without seeing the store.
"""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from pipelines.files import TORN

LIVE = "live.json"
_POINTS = 240  # of a training curve; when there are more, every second one goes
_SILENT = 90.0  # seconds without a sign of life after which a run on another machine counts as stopped


class Live(msgspec.Struct, kw_only=True):
    """What a run is doing. `fraction` of the stage is done, `left` seconds remain (None: not known yet); `done` counts
    units of work (steps of a training, rows otherwise) at `rate` a second, `tokens_rate` those generated.

    `values` are the latest figures of a training step and `curve` its history, thinned out.
    `beat` is the clock of the machine `host` (seconds since 1970). `ended` is set when the run ends in good order.
    """

    host: str
    pid: int
    beat: float
    ended: bool = False
    stage: str | None = None
    key: str | None = None
    number: int = 0
    total: int = 0
    shards: int = 0
    shards_done: int = 0
    fraction: float = 0.0
    seconds: float = 0.0
    left: float | None = None
    unit: str = "rows"
    done: float = 0.0
    of: float | None = None
    rate: float | None = None
    tokens_rate: float | None = None
    values: dict[str, float] = {}
    curve: list[dict[str, float]] = []

    def fresh(self, running_here: bool) -> bool:
        """Whether the run goes on. On its own machine the lock of the folder decides; elsewhere, how old the beat is."""
        if self.ended or running_here:
            return running_here
        return self.host != platform.node() and abs(time.time() - self.beat) < _SILENT


def new_live() -> Live:
    """The sign of life of this process."""
    return Live(host=platform.node(), pid=os.getpid(), beat=time.time())


def write_live(folder: Path, live: Live) -> None:
    """Replace the file. A full disk is not told here: whoever writes the rows will."""
    temporary = folder / f".{LIVE}.{os.getpid()}.tmp"
    live.beat = time.time()
    with suppress(OSError):
        temporary.write_bytes(msgspec.json.encode(live))
        os.replace(temporary, folder / LIVE)


def read_live(folder: Path) -> Live | None:
    """The last sign of life; None where there is none, as in older runs, or a power cut has torn it: it is worth
    nothing later and nothing depends on it."""
    try:
        return msgspec.json.decode((folder / LIVE).read_bytes(), type=Live)
    except (FileNotFoundError, *TORN):
        return None


class CurveKeeper:
    """The figures of training steps as they come in, at most `_POINTS` of them, about evenly spaced."""

    def __init__(self, points: list[dict[str, float]] | None = None) -> None:
        self.points = list(points or [])
        self._space()

    def add(self, step: float, values: dict[str, float]) -> None:
        """Keep a step's figures; steps before the last one mean that a training went back to its checkpoint."""
        while self.points and self.points[-1]["step"] >= step:
            self.points.pop()
        if self.points and step - self.points[-1]["step"] < self._every:
            return
        self.points.append({"step": step, **values})
        if len(self.points) > _POINTS:
            self.points = self.points[::2]
            self._space()

    def _space(self) -> None:
        """New points keep the mean distance of those that are there."""
        steps = [p["step"] for p in self.points]
        self._every = (steps[-1] - steps[0]) / (len(steps) - 1) if len(steps) > 1 else 1.0
