"""Live progress of a run: a table that moves on a terminal, plain lines now and then elsewhere, and `live.json` always."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from configs.errors import InputError
from pipelines.files import TORN
from pipelines.live import CurveKeeper, Live, new_live, read_live, write_live
from pipelines.stage import Task

if TYPE_CHECKING:
    from rich.live import Live as Screen

_WINDOW = 60.0  # seconds over which rates are taken
_HEARTBEAT = 15.0  # seconds between signs of life where nothing else gives one
_UNSHOWN = ("pid", "done", "total", "tokens")


class Reporter:
    """Prints what stages do. `every`: seconds between plain lines when the output is not a terminal.

    `folder` is the run folder, where `live.json` is kept; None: nowhere.
    """

    def __init__(self, folder: Path | None = None, stream: TextIO | None = None, every: float = 15.0) -> None:
        self.folder, self._stream, self._every = folder, stream or sys.stdout, every
        self._last = self._beat = 0.0
        self.live = new_live()
        self._screen: Screen | None = None
        self._heart: threading.Thread | None = None
        self._stop, self._writing = threading.Event(), threading.Lock()

    def __enter__(self) -> Reporter:
        if self.folder is not None:
            if self._stream.isatty():
                from pipelines.screen import open_screen

                self._screen = open_screen(self._stream)
            former = read_live(self.folder)
            if former is not None:  # a resumed training goes on with its curve
                self.live.key, self.live.curve = former.key, former.curve
            self._write()
            self._heart = threading.Thread(target=self._beats, daemon=True)
            self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen is not None:
            self._screen.stop()
        if self._heart is not None:
            self._stop.set()
            self._heart.join()
            self.live.ended = True
            self._write()

    def _beats(self) -> None:
        """Between stages, too, whoever looks from elsewhere must see that the run goes on."""
        while not self._stop.wait(_HEARTBEAT):
            self._write()

    def _write(self) -> None:
        if self.folder is not None:
            with self._writing:
                write_live(self.folder, self.live)

    def line(self, text: str) -> None:
        """A line that stays."""
        if self._screen is not None:
            self._screen.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    def stage(self, number: int, total: int, task: Task, shards: int, missing: int) -> Tick:
        """Begin a stage of which `missing` shards are to be done; the result is called with how many of them are."""
        curve = self.live.curve if self.live.key == task.key else []
        self.live = new_live()
        self.live.stage, self.live.key, self.live.number, self.live.total = task.label, task.key, number, total
        self.live.shards, self.live.shards_done, self.live.curve = shards, shards - missing, curve
        return Tick(self.live, task, shards - missing, self.update)

    def update(self) -> None:
        """Show and write down where the stage is, if it is time to."""
        now = time.monotonic()
        if now - self._beat >= 1.0:
            self._beat = now
            self._write()
            if self.folder is not None and self._screen is not None:
                self._draw(self._screen, self.folder)
        if self._screen is None and now - self._last >= self._every:
            self._last = now
            self.line(f"[{self.live.number}/{self.live.total}] {self.live.stage}: {describe(self.live)}")

    def _draw(self, screen: Screen, folder: Path) -> None:
        from pipelines.screen import progress_view
        from pipelines.status import status_of

        with suppress(OSError, InputError):  # a file that cannot be read just now costs a picture, not the run
            screen.update(progress_view(status_of(folder), screen.console), refresh=True)


class Tick:
    """Reads the workers' progress files of one stage and keeps `live` up to date."""

    def __init__(self, live: Live, task: Task, before: int, shown: Callable[[], None]) -> None:
        self._live, self._task, self._before, self._shown = live, task, before, shown
        self._began = time.monotonic()
        self._first: float | None = None
        self._seen: dict[str, tuple[float, float]] = {}  # units and tokens by progress file, also of shards that are done
        self._recent: deque[tuple[float, float, float]] = deque()
        self._curve = CurveKeeper(live.curve)

    def __call__(self, done: int) -> None:
        live, now = self._live, time.monotonic()
        current = _read(self._task.artefact.work)
        within = sum(c["done"] / c["total"] for _, c in current if c.get("total"))
        live.shards_done = self._before + done
        live.fraction = min(1.0, (live.shards_done + within) / max(1, live.shards))
        if self._first is None:
            self._first = live.fraction
        live.seconds = now - self._began
        gained = live.fraction - self._first
        live.left = live.seconds * (1 - live.fraction) / gained if gained > 0.02 else None
        for name, c in current:
            self._learn(name, c)
        self._rates(now)
        self._shown()

    def _learn(self, name: str, current: dict[str, Any]) -> None:
        """Take over what one worker says of its shard."""
        live = self._live
        # a figure that is not finite travels as null
        live.values = {k: v for k, v in current.items() if k not in _UNSHOWN and isinstance(v, int | float)}
        training = "loss" in live.values or "reward" in live.values
        live.unit = "steps" if training else "rows"
        tokens = 0.0 if training else current.get("tokens", 0.0)
        if training and name not in self._seen:  # what an earlier process did says nothing about the rate
            self._recent.clear()
        self._seen[name] = (current["done"], tokens)
        live.of = current.get("total") if training else None
        if training:
            self._curve.add(current["done"], live.values)
            live.curve = self._curve.points

    def _rates(self, now: float) -> None:
        done, tokens = (sum(s[i] for s in self._seen.values()) for i in (0, 1))
        self._recent.append((now, done, tokens))
        while now - self._recent[0][0] > _WINDOW:
            self._recent.popleft()
        since, done_then, tokens_then = self._recent[0]
        self._live.done = done
        if now - since > 1.0:
            self._live.rate = (done - done_then) / (now - since)
            self._live.tokens_rate = (tokens - tokens_then) / (now - since) if tokens else None


def describe(live: Live) -> str:
    """The state of a stage in words: how much is done, how fast, how long still."""
    parts = [f"{live.fraction:4.0%}", f"{live.shards_done}/{live.shards} shards"]
    if live.tokens_rate:
        parts.append(f"{live.tokens_rate:.0f} tokens/s")
    if live.of:
        figures = "".join(f" {k} {live.values[k]:.3f}" for k in ("loss", "reward") if k in live.values)
        parts.append(f"step {live.done:.0f}/{live.of:.0f}{figures}")
    elif live.rate and not live.tokens_rate:
        parts.append(f"{live.rate:.1f} {live.unit}/s")
    if live.left is not None:
        parts.append(f"about {clock(live.left)} left")
    return ", ".join([*parts, f"{clock(live.seconds)} gone"])


def describe_progress(stage: Mapping[str, Any]) -> str:
    """`describe` of a stage as `status_of` gives it."""
    return describe(msgspec.convert(stage["progress"], Live))


def _read(work_folder: Path) -> Sequence[tuple[str, dict[str, Any]]]:
    found = []
    for path in sorted(work_folder.glob("progress-*.json")):
        try:
            found.append((path.name, msgspec.json.decode(path.read_bytes())))
        except (FileNotFoundError, *TORN):  # finished between listing and reading, or left by a power cut
            continue
    return found


def clock(seconds: float) -> str:
    """Seconds in words: 42s, 3m05s, 2h10m."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours}h{minutes_left:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
