"""`ratchet status RUN --watch`: follows a run from its folder until it ends, from any terminal or machine that sees it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from pipelines.progress import describe_progress
from pipelines.status import figures, run_state, status_of, status_table, times


def watch(folder: Path, out: TextIO | None = None, every: float = 1.0) -> dict[str, Any]:
    """Show the run's state until it no longer runs; its last state. `every`: seconds between looks.

    On a terminal a table moves; elsewhere a line is printed for each stage that ends, and one of progress now and then.
    """
    stream = out or sys.stdout
    state = status_of(folder)
    if not state["running"]:
        print("\n".join(status_table(state)), file=stream, flush=True)
        return state
    if stream.isatty():
        from pipelines.screen import open_screen, watch_view

        screen = open_screen(stream)
        try:
            state = _follow(folder, every, lambda s: screen.update(watch_view(s, screen.console), refresh=True))
        finally:
            screen.stop()
    else:
        state = _follow(folder, every, Lines(stream))
    print("\n".join(status_table(state)), file=stream, flush=True)
    return state


def _follow(folder: Path, every: float, show: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    state = status_of(folder)
    while state["running"]:
        show(state)
        time.sleep(every)
        state = status_of(folder)
    show(state)  # what has ended since the last look
    return state


class Lines:
    """Plain lines on what has changed since the last call; one on the stage at work every `every` seconds."""

    def __init__(self, stream: TextIO, every: float = 15.0) -> None:
        self._stream, self._every = stream, every
        self._told: dict[str, str] | None = None
        self._last = -every

    def __call__(self, state: Mapping[str, Any]) -> None:
        before, now = self._told, {s["key"]: s["state"] for s in state["stages"]}
        self._told = now
        if before is None:
            self._print(f"{state['run']}: {run_state(state)}, {state['done']} of {state['total']} stages done{times(state)}")
        for number, s in enumerate(state["stages"], 1):
            if before is not None and s["state"] == "done" != before.get(s["key"]):
                self._print(f"[{number}/{state['total']}] {s['label']}: {figures(s['metrics'])}")
        at_work = next((s for s in state["stages"] if s["state"] == "running" and s["progress"]), None)
        if at_work and time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            number = at_work["progress"]["number"]
            whole = times(state).removeprefix(", ")
            self._print(f"[{number}/{state['total']}] {at_work['label']}: {describe_progress(at_work)}; run: {whole}")

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)
