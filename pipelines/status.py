"""How far a run is, from its folder alone: it may be running or not, here or on another machine."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipelines.live import Live, read_live
from pipelines.progress import clock, describe_progress
from pipelines.runfolder import RunFolder
from pipelines.store import Artefact, planned

_SHOWN = ("accuracy", "examples", "samples", "last_loss")


def status_of(path: Path) -> dict[str, Any]:
    """State of a run: every stage with `state` (done, running, failed, broken off or waiting), metrics and progress.

    Where the store is not within reach, a stage is done when the run folder has its metrics. `left` is the time that the
    rest will take in seconds, from the plan's estimate scaled by how long finished stages took; None when not known.
    """
    folder = RunFolder.existing(path)
    live = read_live(path)
    here = folder.in_use()
    running = live.fresh(here) if live else here
    begun = {"run": str(path), "running": running, "host": live.host if live else None}
    if not (path / "plan.json").exists():
        return {**begun, "stages": [], "done": 0, "total": 0, "last_event": None, "seconds": 0.0, "left": None}
    plan, events, metrics = folder.plan(), folder.events(), folder.metrics_by_key()
    estimate = {s["key"]: s["seconds"] for s in folder.estimate().get("stages", [])}
    store = Path(plan["store"])
    last = {e["key"]: e for e in events if "key" in e}
    stages = []
    for s in plan["stages"]:
        artefact = planned(plan, s)
        recorded = metrics.get(s["key"])
        done = artefact.done if store.is_dir() else recorded is not None
        event = last.get(s["key"])
        at_work = live if live and (live.key, live.stage) == (s["key"], s["label"]) and not done else None
        if event is None or event["event"] == "finished" or (live and live.ended and running):
            at_work = None  # of a former attempt
        state = "done" if done else _state(artefact, event, at_work, running)
        stages.append({
            **s, "state": state, "shards_done": _shards(artefact, at_work), "metrics": recorded,
            "seconds": _seconds(event), "estimate": estimate.get(s["key"]),
            "error": event.get("error") if event and state == "failed" else None,
            "progress": msgspec.to_builtins(at_work) if at_work else None,
        })  # fmt: skip
    done_count = sum(s["state"] == "done" for s in stages)
    return {
        **begun, "done": done_count, "total": len(stages), "last_event": events[-1] if events else None, "stages": stages,
        "seconds": _since_start(events, running), "left": _left(stages),
    }  # fmt: skip


def _state(artefact: Artefact, event: Mapping[str, Any] | None, at_work: Live | None, running: bool) -> str:
    """The state of a stage that is not done."""
    begun = artefact.work.is_dir() or at_work is not None or (event is not None and event["event"] == "started")
    if event is not None and event["event"] == "failed" and not (running and at_work):
        return "broken off" if event.get("error", "").startswith("KeyboardInterrupt") else "failed"
    if not begun:
        return "waiting"
    return "running" if running else "broken off"


def _shards(artefact: Artefact, at_work: Live | None) -> int:
    if artefact.work.is_dir():
        return len(list(artefact.work.glob("shard-*.json")))
    return at_work.shards_done if at_work else 0


def _seconds(event: Mapping[str, Any] | None) -> float | None:
    """How long a stage took when it was finished in this run."""
    return event.get("seconds") if event is not None and event["event"] == "finished" else None


def _since_start(events: Sequence[Mapping[str, Any]], running: bool) -> float:
    """Seconds since the run was last started (to its last event, if it no longer runs)."""
    starts = [e["time"] for e in events if e["event"] == "run started"]
    if not starts:
        return 0.0
    end = datetime.datetime.now(datetime.UTC) if running else datetime.datetime.fromisoformat(events[-1]["time"])
    return max(0.0, (end - datetime.datetime.fromisoformat(starts[-1])).total_seconds())


def _left(stages: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds until the end. Estimates of a kind of stage are scaled by the stages of that kind that are finished."""
    took: defaultdict[str, float] = defaultdict(float)
    thought: defaultdict[str, float] = defaultdict(float)
    for s in stages:
        if s["state"] == "done" and s["seconds"] is not None and s["estimate"]:
            took[s["kind"]] += s["seconds"]
            thought[s["kind"]] += s["estimate"]
    total = 0.0
    for s in (s for s in stages if s["state"] != "done"):
        if s["progress"] and s["progress"]["left"] is not None:
            total += s["progress"]["left"]
        elif s["estimate"] is None:
            return None
        else:
            scale = took[s["kind"]] / thought[s["kind"]] if thought[s["kind"]] else 1.0
            total += scale * s["estimate"] * (1 - (s["progress"]["fraction"] if s["progress"] else 0.0))
    return total


def run_state(state: Mapping[str, Any]) -> str:
    """The state of the whole run in a word."""
    if state["running"]:
        return "running"
    return "finished" if state["done"] == state["total"] and state["total"] else "stopped"


def figures(metrics: Mapping[str, Any] | None) -> str:
    """What came of a stage, in short."""
    if not metrics:
        return ""
    if metrics.get("summary"):
        return metrics["summary"]
    shown = {k: metrics[k] for k in _SHOWN if k in metrics}
    return ", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())


def status_table(state: Mapping[str, Any]) -> list[str]:
    """Lines for the terminal."""
    word = run_state(state)
    lines = [f"{state['run']}: {word}, {state['done']} of {state['total']} stages done{times(state)}"]
    for s in state["stages"]:
        at_work = s["state"] in ("running", "broken off", "failed")
        progress = f" ({s['shards_done']} shards)" if at_work else ""
        detail = figures(s["metrics"]) if s["state"] == "done" else ""
        if s["progress"]:
            detail = describe_progress(s)
        lines.append(f"  {s['state'] + progress:22} {s['label']:34} {detail}".rstrip())
    last = state["last_event"]
    if last:
        lines.append(f"last event: {last['event']} {last.get('stage', '')} at {last['time']} {last.get('error', '')}".rstrip())
    if word == "stopped":
        lines.append(f"continue with: ratchet resume {state['run']}")
    return lines


def times(state: Mapping[str, Any]) -> str:
    """How long a running run has taken and will still take, for a headline."""
    if not state["running"]:
        return ""
    left = f", about {clock(state['left'])} left" if state["left"] is not None else ""
    return f", {clock(state['seconds'])} gone{left}"
