"""What the run was asked to do and with what: settings, versions, the graph of stages, what happened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from configs.schema import Recipe
from pipelines.report.html import join, table, tag
from pipelines.report.numbers import number
from pipelines.report.page import Section
from pipelines.report.record import RunRecord, flat

_EVENTS = 200


def section(run: RunRecord) -> Section:
    """Settings first, those that differ from the defaults on top."""
    parts = [tag("h3", "Settings that differ from the defaults", id="changed"), _changed(run), _everything(run)]
    children = [("changed", "Settings")]
    for anchor, title, body in (
        ("versions", "Model and software", _versions(run)), ("stages", "Stages", _graph(run)),
        ("events", "What happened", _events(run)),
    ):  # fmt: skip
        if body is not None:
            parts += [tag("h3", title, id=anchor), body]
            children.append((anchor, title))
    return Section("settings", "Configuration", join(parts), children)


def value(v: Any) -> str:
    """A setting as it would be written on the command line."""
    return v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)


def defaults() -> dict[str, Any]:
    """Today's defaults by dotted key."""
    return flat(Recipe().model_dump(mode="json"))


def _changed(run: RunRecord) -> Markup:
    usual = defaults()
    rows = [
        [tag("code", k), tag("code", value(v)), tag("code", value(usual[k])) if k in usual else "\u2013"]
        for k, v in flat(run.recipe).items() if k not in usual or usual[k] != v
    ]  # fmt: skip
    return table(["key", "value", "default"], rows)


def _everything(run: RunRecord) -> Markup:
    rows = [[tag("code", k), tag("code", value(v))] for k, v in flat(run.recipe).items()]
    return tag("details", tag("summary", f"All {len(rows)} settings"), table(["key", "value"], rows), class_="data")


def versions(run: RunRecord) -> dict[str, str]:
    """Software by name; where stages were made with different versions, all of them."""
    found: dict[str, dict[str, None]] = {}
    for s in run.stages:
        for name, version in s.manifest.get("software", {}).items():
            found.setdefault(name, {})[version] = None
    return {name: ", ".join(each) for name, each in sorted(found.items())}


def _versions(run: RunRecord) -> Markup | None:
    rows: list[list[Any]] = [[k, v] for k, v in (
        ("model", run.model.get("name")), ("model fingerprint", run.model.get("fingerprint")),
        ("seed", run.setting("seed")), ("run folder", run.path.resolve()), ("store", run.store),
        ("device", run.estimate.get("device")),
    ) if v is not None]  # fmt: skip
    rows += [[name, version] for name, version in versions(run).items()]
    return table(["", "value"], rows) if rows else None


def _graph(run: RunRecord) -> Markup | None:
    if not run.stages:
        return None
    labels = {s.key: f"{s.number + 1}" for s in run.stages}
    rows = []
    for s in run.stages:
        inputs = ", ".join(f"{name} {labels.get(key, 'of another run')}" for name, key in s.inputs.items())
        rows.append([f"{s.number + 1}", s.label, s.kind, s.state, inputs or "\u2013", tag("code", s.key[:12])])
    headers = ["no.", "stage", "kind", "state", "inputs (numbers of stages)", "key"]
    return tag("details", tag("summary", f"{len(rows)} stages with their inputs and keys"), table(headers, rows), class_="data")


def _events(run: RunRecord) -> Markup | None:
    """Starts, failures and ends; a stage that simply went well is in the table of times."""
    plain = {"started", "finished"}
    kept = [e for e in run.events if e["event"] not in plain or (e["event"] == "started" and e.get("attempt", 1) > 1)]
    if not kept:
        return None
    rows = [[e["time"][:19].replace("T", " "), e["event"], e.get("stage", ""), _told(e)] for e in kept[-_EVENTS:]]
    return table(["time (UTC)", "event", "stage", ""], rows)


def _told(e: Mapping[str, Any]) -> str:
    if "error" in e:
        return str(e["error"])
    if e.get("attempt", 1) > 1:
        return f"attempt {e['attempt']}: {number(e.get('missing'))} of {number(e.get('shards'))} shards were missing"
    return ""
