"""What came of a run: accuracies side by side, and how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.rows import ProblemScore
from pipelines.plan import Plan
from pipelines.results import accuracy
from pipelines.runfolder import RunFolder
from pipelines.statistics import paired_difference
from pipelines.store import Artefact, Store, read_rows


def accuracy_table(plan: Plan, store: Store) -> list[str]:
    """One line for each score stage, and the gain over the initial model on the same problems."""
    scores = [s for s in plan.stages if s.kind == "score"]
    if not scores:
        return []
    labels = [s.label.split("/") for s in scores]
    widths = [max(least, *map(len, column)) for least, column in zip((12, 14, 9), zip(*labels, strict=True), strict=True)]
    head = " ".join(f"{name:{w}}" for name, w in zip(("model", "benchmark", "decoding"), widths, strict=True))
    lines = ["", f"{head} {'accuracy':>9}  95% interval      problems  gain over initial"]
    first: dict[str, list[float]] = {}
    for stage, label in zip(scores, labels, strict=True):
        _, benchmark, decoding = label
        artefact = store.artefact(stage.kind, stage.key)
        rows: list[ProblemScore] = read_rows(artefact, ProblemScore)
        m = accuracy(rows)
        shares = [r.correct / r.samples for r in rows]
        gain = ""
        start = first.setdefault(f"{benchmark}/{decoding}", shares)
        if start is not shares:
            mean, low, high = paired_difference(start, shares, seed=0)
            gain = f"{100 * mean:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
        interval = f"[{m['low']:.1%}, {m['high']:.1%}]"
        where = " ".join(f"{name:{w}}" for name, w in zip(label, widths, strict=True))
        lines.append(f"{where} {m['accuracy']:>9.1%}  {interval:17} {m['problems']:>8}  {gain}")
    m = store.artefact(scores[0].kind, scores[0].key).manifest()["metrics"]
    lines.append(f"extraction: {m['mode']}; sampling: {m['sampling']}")
    return lines


def status_of(path: Path) -> dict[str, Any]:
    """State of a run from its folder: every stage with done, running or waiting, and the metrics so far."""
    folder = RunFolder.existing(path)
    running = folder.in_use()
    if not (path / "plan.json").exists():
        return {"run": str(path), "running": running, "stages": [], "done": 0, "total": 0, "last_event": None}
    plan = folder.plan()
    metrics = folder.read_metrics()
    stages = []
    for s in plan["stages"]:
        artefact = Artefact(s["kind"], s["key"], Path(plan["store"]) / s["kind"] / s["key"])
        begun = artefact.work.is_dir()
        shards = len(list(artefact.work.glob("shard-*.json"))) if begun else 0
        state = "done" if artefact.done else ("running" if running else "broken off") if begun else "waiting"
        stages.append({**s, "state": state, "shards_done": shards, "metrics": metrics.get(s["label"])})
    events = folder.events()
    done = sum(s["state"] == "done" for s in stages)
    last = events[-1] if events else None
    return {"run": str(path), "running": running, "done": done, "total": len(stages), "last_event": last, "stages": stages}


def status_table(state: dict[str, Any]) -> list[str]:
    """Lines for the terminal."""
    word = "running" if state["running"] else "finished" if state["done"] == state["total"] and state["total"] else "stopped"
    lines = [f"{state['run']}: {word}, {state['done']} of {state['total']} stages done"]
    for s in state["stages"]:
        m = s["metrics"] or {}
        shown = {k: m[k] for k in ("accuracy", "examples", "samples", "last_loss") if k in m}
        detail = ", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
        progress = f" ({s['shards_done']} shards)" if s["state"] in ("running", "broken off") else ""
        lines.append(f"  {s['state'] + progress:22} {s['label']:34} {detail}")
    last = state["last_event"]
    if last:
        lines.append(f"last event: {last['event']} {last.get('stage', '')} at {last['time']} {last.get('error', '')}".rstrip())
    if word == "stopped":
        lines.append(f"continue with: ratchet resume {state['run']}")
    return lines
