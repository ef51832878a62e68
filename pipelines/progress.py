"""Live progress: a line that moves on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec

from pipelines.stage import Task


class Reporter:
    """Prints what stages do. `every`: seconds between plain lines when the output is not a terminal."""

    def __init__(self, stream: TextIO | None = None, every: float = 15.0) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._every = 0.2 if self._live else every
        self._last = 0.0
        self._width = 0

    def line(self, text: str) -> None:
        """A line that stays."""
        self._erase()
        print(text, file=self._stream, flush=True)

    def stage(self, number: int, total: int, task: Task, shards: int) -> Tick:
        """Begin a stage; the result is called with the number of shards done."""
        return Tick(self, f"[{number}/{total}] {task.label}", task, shards)

    def update(self, text: str) -> None:
        """Show a passing state, if it is time to."""
        now = time.monotonic()
        if now - self._last < self._every:
            return
        self._last = now
        if self._live:
            self._erase()
            text = text[:160]
            print(text, end="", file=self._stream, flush=True)
            self._width = len(text)
        else:
            print(text, file=self._stream, flush=True)

    def _erase(self) -> None:
        if self._live and self._width:
            print("\r" + " " * self._width + "\r", end="", file=self._stream, flush=True)
            self._width = 0


class Tick:
    """Reads the workers' progress files of one stage and shows rows, rates and the time left."""

    def __init__(self, reporter: Reporter, title: str, task: Task, shards: int) -> None:
        self._reporter, self._title, self._task, self._shards = reporter, title, task, shards
        self._began = time.monotonic()
        self._first: float | None = None

    def __call__(self, done: int) -> None:
        current = _read(self._task.artefact.work)
        within = sum(c["done"] / c["total"] for c in current if c.get("total"))
        fraction = min(1.0, (done + within) / max(1, self._shards))
        if self._first is None:
            self._first = fraction
        seconds = time.monotonic() - self._began
        parts = [f"{self._title}: {fraction:4.0%}", f"{done}/{self._shards} shards"]
        tokens = sum(c.get("tokens", 0.0) for c in current)
        if tokens and "loss" not in (current[0] if current else {}):
            parts.append(f"{tokens:.0f} tokens in the current shards")
        losses = [c["loss"] for c in current if "loss" in c]
        if losses:
            parts.append(f"step {current[0]['done']:.0f}/{current[0]['total']:.0f} loss {losses[0]:.3f}")
        gained = fraction - self._first
        if gained > 0.02:
            parts.append(f"about {_clock(seconds * (1 - fraction) / gained)} left")
        parts.append(f"{_clock(seconds)} gone")
        self._reporter.update(", ".join(parts))


def _read(work_folder: Path) -> Sequence[dict[str, Any]]:
    found = []
    for path in sorted(work_folder.glob("progress-*.json")):
        try:
            found.append(msgspec.json.decode(path.read_bytes()))
        except FileNotFoundError:  # finished between listing and reading
            continue
    return found


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


