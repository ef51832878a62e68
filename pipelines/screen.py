"""What a terminal shows of a run: a table of its stages that moves while the run goes on (drawn by Rich)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live as Screen
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipelines.progress import clock, describe_progress
from pipelines.status import figures, run_state

_MARKS = {"done": ("✓", "green"), "running": ("▶", "cyan"), "failed": ("✗", "red"), "broken off": ("■", "yellow"),
          "waiting": ("·", "dim")}  # fmt: skip
_ASCII = {"✓": "+", "▶": ">", "✗": "x", "■": "#", "·": "."}
_MARGIN = 6  # lines around the table


def open_screen(stream: TextIO) -> Screen:
    """The moving part of a terminal; begun. Lines that stay are printed with its console and stand above it."""
    console = Console(file=stream, highlight=False)
    screen = Screen(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
    screen.start()
    return screen


def progress_view(state: Mapping[str, Any], console: Console) -> RenderableType:
    """What `ratchet run` shows below its lines: the stage at work, the next ones, and the whole."""
    todo = [s for s in state["stages"] if s["state"] != "done"]
    return Group(_table(todo, console, console.height // 3), _whole(state))


def watch_view(state: Mapping[str, Any], console: Console) -> RenderableType:
    """What `ratchet status --watch` shows: all stages, or those around the one at work where the terminal is too low."""
    head = Text(f"{state['run']}: {run_state(state)}", style="bold")
    if state["host"] and state["running"]:
        head.append(f" on {state['host']}", style="dim")
    return Group(head, _table(state["stages"], console, console.height - _MARGIN), _whole(state))


def _table(stages: Sequence[Mapping[str, Any]], console: Console, height: int) -> Table:
    """One line a stage, at most `height` of them."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(16, int(0.42 * console.width)))
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    first, last = _window(stages, max(3, height))
    if first:
        table.add_row("", Text(f"{first} before, done", style="dim"), "", "")
    for stage in stages[first:last]:
        table.add_row(*_row(stage, console))
    if last < len(stages):
        table.add_row("", Text(f"{len(stages) - last} more", style="dim"), "", "")
    return table


def _window(stages: Sequence[Mapping[str, Any]], height: int) -> tuple[int, int]:
    """First and last (exclusive) of the stages to show: the first one that is not done lies in the upper half."""
    if len(stages) <= height:
        return 0, len(stages)
    at = next((i for i, s in enumerate(stages) if s["state"] != "done"), len(stages) - 1)
    first = max(0, min(at - height // 2, len(stages) - height))
    return first, first + height


def _row(stage: Mapping[str, Any], console: Console) -> tuple[RenderableType, ...]:
    mark, colour = _MARKS[stage["state"]]
    if not console.encoding.lower().startswith("utf"):
        mark = _ASCII[mark]
    style = "dim" if stage["state"] == "waiting" else ""
    time, detail = "", figures(stage["metrics"]) if stage["state"] == "done" else ""
    if stage["state"] == "done":
        time = clock(stage["seconds"]) if stage["seconds"] is not None else "cached"
    elif stage["progress"]:
        detail = describe_progress(stage)
    elif (stage["estimate"] or 0.0) >= 1.0:
        time = f"~{clock(stage['estimate'])}"
    if stage["error"]:
        detail = stage["error"]
    shown = Text(stage["label"], style=style or ("bold" if stage["state"] == "running" else ""))
    return Text(mark, style=colour), shown, Text(time, style="dim"), Text(detail, style=style)


def _whole(state: Mapping[str, Any]) -> RenderableType:
    """A bar over all stages, with the time gone and left."""
    stages = state["stages"]
    weight = [s["seconds"] or s["estimate"] or 0.1 for s in stages]
    done = sum(w * _share(s) for w, s in zip(weight, stages, strict=True))
    text = f"{state['done']} of {state['total']} stages, {clock(state['seconds'])} gone"
    if state["running"] and state["left"] is not None:
        text += f", about {clock(state['left'])} left"
    line = Table.grid(padding=(0, 1))
    line.add_row(ProgressBar(total=sum(weight) or 1.0, completed=done, width=30), Text(text))
    return line


def _share(stage: Mapping[str, Any]) -> float:
    if stage["state"] == "done":
        return 1.0
    return stage["progress"]["fraction"] if stage["progress"] else 0.0
