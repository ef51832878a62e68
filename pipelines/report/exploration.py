"""Exploration and exploitation: how many different right answers, how well rewards tell them, and the balance of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipelines.report.accuracy import place_axis, place_name, place_ticks
from pipelines.report.chart import Line, Point, heat_map, line_chart
from pipelines.report.html import figure, join, note, table, tag
from pipelines.report.numbers import MINUS, number, short
from pipelines.report.page import Section
from pipelines.report.record import RunRecord, StageRecord

_PANELS = (
    ("Exploration: pass@K", "share of problems", ("pass@",)),
    ("Exploitation: reward@K-S", "share of problems", ("reward@", "score@")),
    ("Diversity of right solutions", "value", ("diversity", "equation_gap", "unique_correct", "selected_diversity")),
)


def section(run: RunRecord) -> Section | None:
    """Metrics over the iterations, then the balance surfaces."""
    parts, children = [], []
    measured = run.of_kind("exploration")
    own = [s for s in measured if s.label.count("/") == 1]
    groups: dict[str, list[StageRecord]] = {"training problems": own} if own else {}
    for s in (s for s in measured if s not in own):
        groups.setdefault(", ".join(s.label.split("/")[1:-1]), []).append(s)
    for i, (name, stages) in enumerate(groups.items()):
        title, anchor = f"On {name}", f"explore-{i}"
        parts += [tag("h3", title, id=anchor), _metrics(run, stages)]
        children.append((anchor, title))
    if surfaces := _surfaces(run):
        parts += [tag("h3", "Balance surface", id="balance"), *surfaces]
        children.append(("balance", "Balance surface"))
    if not parts:
        return None
    return Section("exploration", "Exploration and exploitation", join(parts), children)


def _metrics(run: RunRecord, stages: Sequence[StageRecord]) -> Markup:
    places = {s.key: i for i, s in enumerate(stages)}
    names = list(dict.fromkeys(k for s in stages for k, v in s.metrics.items() if isinstance(v, int | float)))
    figures_ = {s.key: _overall(s) for s in stages}
    panels = []
    for title, axis, prefixes in _PANELS:
        mine = [n for n in names if n.startswith(prefixes)][:8]
        lines = []
        for i, name in enumerate(mine):
            dots = [
                Point(places[s.key], f["mean"], f.get("low"), f.get("high")) for s in stages
                if (f := figures_[s.key].get(name)) is not None and f.get("mean") is not None
            ]  # fmt: skip
            if dots:
                lines.append(Line(name, dots, i))
        if lines and len(stages) > 1:
            marks = [(float(i), text) for i, s in enumerate(stages) for _, text in place_ticks([run], [run.place(s)])]
            chart = line_chart(title, lines, x_label=f"samples of the {place_axis([run])}", y_label=axis, x_ticks=marks,
                               size=(460.0, 260.0))  # fmt: skip
            panels.append(figure(chart, None, title=title))
    headers = ["metric", *(place_name(run, run.place(s)) for s in stages)]
    rows = [[n, *(_cell(figures_[s.key].get(n)) for s in stages)] for n in names]
    told = note("Columns are the models that drew the samples. Means over problems, with 95% intervals where there are some. ",
                "docs/bstar.md explains the metrics.")  # fmt: skip
    return join([tag("div", *panels, class_="grid") if panels else None, table(headers, rows, range(1, len(headers))), told])


def _overall(stage: StageRecord) -> dict[str, Mapping[str, Any]]:
    """Each metric with its interval, or alone where the artefact is out of reach."""
    content = stage.json("exploration.json") or {}
    plain = {k: {"mean": v} for k, v in stage.metrics.items() if isinstance(v, int | float)}
    return plain | content.get("overall", {})


def _cell(f: Mapping[str, Any] | None) -> str:
    if f is None or f.get("mean") is None:
        return "\u2013"
    if f.get("low") is None:
        return short(f["mean"])
    return "{:.3f} [{:.3f}, {:.3f}]".format(f["mean"], f["low"], f["high"]).replace("-", MINUS)


def _surfaces(run: RunRecord) -> list[Markup]:
    """A heat map for the last balance of each iteration, with what the selection then made of it."""
    stages = run.of_kind("balance")
    last = {(s.iteration): s for s in stages}
    found = []
    for stage in last.values():
        content = stage.json("surface.json")
        if content and content.get("temperatures"):
            found.append(_surface(stage, content))
    return found


def _surface(stage: StageRecord, content: Mapping[str, Any]) -> Markup:
    columns = sorted(content["temperatures"], key=lambda t: t["temperature"])
    thresholds, point = content["thresholds"], content["point"]
    scores = [[t["score"][i][t["cap"][i] - 1] for t in columns] for i in range(len(thresholds))]
    bands = _bands(scores)
    labels = [number(thresholds[a]) if a == b else f"{number(thresholds[a])} to {number(thresholds[b])}" for a, b in bands]
    row = next((i for i, (a, b) in enumerate(bands) if thresholds[a] <= point["threshold"] <= thresholds[b]), None)
    column = next((i for i, t in enumerate(columns) if t["temperature"] == point["temperature"]), None)
    names = [number(t["temperature"]) for t in columns]
    below = [f"{number(t['queries'])} problems" for t in columns]
    order = list(reversed(range(len(bands))))  # the highest threshold on top
    chosen = (order.index(row), column) if row is not None and column is not None else None
    values = [scores[bands[i][0]] for i in order]
    chart = heat_map(
        f"Balance score, {stage.iteration}", names, [labels[i] for i in order], values, x_label="temperature",
        y_label="threshold", chosen=chosen, below=below, form=lambda v: f"{v:.3f}",
    )
    told = (
        f"Balance score in {stage.iteration} by temperature, with the number of problems that it was measured on, and reward "
        f"threshold (n* = {number(content['n_star'])}). Chosen and framed: temperature {number(point['temperature'])}, "
        f"threshold {number(point['threshold'])}, score {number(point['score'])}, {number(point['selected'])} selected. "
        "Thresholds that give the same scores share a row. A temperature that left the race early keeps the score of its fewer "
        "problems, which may be a higher one than that of the winner."
    )
    rows = [[labels[i], *(number(v) for v in scores[bands[i][0]])] for i in order]
    return figure(chart, told, table(["threshold", *(f"temperature {n}" for n in names)], rows, range(1, len(names) + 1)))


def _bands(scores: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Runs of rows that are equal: (first, last)."""
    bands: list[tuple[int, int]] = []
    for i, row in enumerate(scores):
        if bands and scores[bands[-1][0]] == row:
            bands[-1] = (bands[-1][0], i)
        else:
            bands.append((i, i))
    return bands
