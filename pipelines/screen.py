"""What a terminal shows of a run: a table of its stages that moves while the run goes on (drawn by Rich)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live as Screen
from rich.text import Text

from pipelines.progress import clock, describe_progress
from pipelines.status import figures, run_state

_MARKS = {"done": ("✓", "green"), "running": ("▶", "cyan"), "failed": ("✗", "red"), "broken off": ("■", "yellow"),
          "waiting": ("·", "dim")}  # fmt: skip
_ASCII = {"✓": "+", "▶": ">", "✗": "x", "■": "#", "·": "."}
_MARGIN, _BAR = 6, 24  # lines around the table; length of the bar


def open_screen(stream: TextIO) -> Screen:
    """The moving part of a terminal; begun. Lines that stay are printed with its console and stand above it."""
    console = Console(file=stream, highlight=False)
    screen = Screen(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
    screen.start()
    return screen


def progress_view(state: Mapping[str, Any], console: Console) -> RenderableType:
    """What `ratchet run` shows below its lines: the stage at work, the next ones, and the whole."""
    todo = [s for s in state["stages"] if s["state"] != "done"]
    return Group(*_rows(todo, console, console.height // 3), _whole(state, console))


def watch_view(state: Mapping[str, Any], console: Console) -> RenderableType:
    """What `ratchet status --watch` shows: all stages, or those around the one at work where the terminal is too low."""
    head = Text(f"{state['run']}: {run_state(state)}", style="bold")
    if state["host"] and state["running"]:
        head.append(f" on {state['host']}", style="dim")
    return Group(_cut(head, console), *_rows(state["stages"], console, console.height - _MARGIN), _whole(state, console))


def _cut(line: Text, console: Console) -> Text:
    line.truncate(console.width, overflow="ellipsis")
    return line


def _rows(stages: Sequence[Mapping[str, Any]], console: Console, height: int) -> list[Text]:
    """One line a stage, at most `height` of them and two that say how many there are besides."""
    first, last = _window(stages, max(3, height))
    widest = max((cell_len(s["label"]) for s in stages[first:last]), default=0)
    width = min(widest, max(16, int(0.42 * console.width)))
    lines = [_row(s, width, console) for s in stages[first:last]]
    if first:
        lines.insert(0, Text(f"  {first} before, done", style="dim"))
    if last < len(stages):
        lines.append(Text(f"  {len(stages) - last} more", style="dim"))
    return lines


def _window(stages: Sequence[Mapping[str, Any]], height: int) -> tuple[int, int]:
    """First and last (exclusive) of the stages to show: the first one that is not done lies in the middle."""
    if len(stages) <= height:
        return 0, len(stages)
    at = next((i for i, s in enumerate(stages) if s["state"] != "done"), len(stages) - 1)
    first = max(0, min(at - height // 2, len(stages) - height))
    return first, first + height


def _row(stage: Mapping[str, Any], width: int, console: Console) -> Text:
    """Mark, label, time and what there is to tell, on one line."""
    mark, colour = _MARKS[stage["state"]]
    style = {"waiting": "dim", "running": "bold"}.get(stage["state"], "")
    label = Text(stage["label"], style=style)
    label.truncate(width, overflow="ellipsis", pad=True)
    time, detail = "", stage["error"] or ""
    if stage["state"] == "done":
        time, detail = clock(stage["seconds"]) if stage["seconds"] is not None else "cached", figures(stage["metrics"])
    elif stage["progress"]:
        detail = detail or describe_progress(stage).lstrip()
    elif (stage["estimate"] or 0.0) >= 1.0:
        time = f"~{clock(stage['estimate'])}"
    sign = mark if _unicode(console) else _ASCII[mark]
    return _cut(Text.assemble((sign, colour), " ", label, " ", (f"{time:>7}", "dim"), "  ", detail), console)


def _whole(state: Mapping[str, Any], console: Console) -> Text:
    """A bar over all stages, weighted by time, with the time gone and left."""
    stages = state["stages"]
    weights = [s["seconds"] or s["estimate"] or 0.1 for s in stages]
    done = sum(w * _share(s) for w, s in zip(weights, stages, strict=True)) / (sum(weights) or 1.0)
    filled = round(_BAR * done)
    full, empty = ("\u2501", "\u2501") if _unicode(console) else ("#", "-")
    text = f" {state['done']} of {state['total']} stages, {clock(state['seconds'])} gone"
    if state["running"] and state["left"] is not None:
        text += f", about {clock(state['left'])} left"
    return _cut(Text.assemble((full * filled, "cyan"), (empty * (_BAR - filled), "dim"), text), console)


def _share(stage: Mapping[str, Any]) -> float:
    if stage["state"] == "done":
        return 1.0
    return stage["progress"]["fraction"] if stage["progress"] else 0.0


def _unicode(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")
