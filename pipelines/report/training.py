"""Curves of training: losses, rewards, divergence and entropy, margins, rates, by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from pipelines.report.chart import SERIES, Line, Point, line_chart, thinned
from pipelines.report.html import figure, join, note, table, tag
from pipelines.report.numbers import number
from pipelines.report.page import Section
from pipelines.report.record import Row, RunRecord, StageRecord

# What a figure shows: title, axis, and the fields that share it with their names.
FIGURES: list[tuple[str, str, dict[str, str]]] = [
    ("Reward", "mean reward", {"reward": "samples", "greedy_reward": "greedy baseline"}),
    ("Divergence from the initial model", "KL, nats a token", {"kl_initial": "KL to the initial model"}),
    ("Sampler against trainer", "KL, nats a token", {"mismatch_kl": "KL, sampler to trainer"}),
    ("Entropy", "nats a token", {"entropy": "entropy"}),
    ("Held-out accuracy", "accuracy", {"validation_accuracy": "greedy accuracy on held-out problems"}),
    ("Length of samples", "tokens", {"tokens_sampled": "all", "tokens_right": "right", "tokens_wrong": "wrong"}),
    ("Groups without a signal", "groups of a batch", {"zero_groups": "groups"}),
    ("Steps with credit", "share of steps", {"steps_nonzero": "steps"}),
    ("Loss", "loss", {"loss": "training", "validation/loss": "held out"}),
    ("Preference accuracy", "share of pairs", {"accuracy": "training", "validation/accuracy": "held out"}),
    ("Reward margin", "margin", {"margin": "training", "validation/margin": "held out"}),
    ("Learning rate", "rate", {"learning_rate": "learning rate"}),
    ("Gradient norm", "norm before clipping", {"gradient_norm": "gradient norm"}),
]


def trainings(run: RunRecord) -> list[tuple[StageRecord, list[Row]]]:
    """Training stages with their records; of one at work, what it has said so far."""
    found = []
    for stage in run.stages:
        if stage.kind in ("train", "reward_train"):
            records = stage.records()
            if not records and run.live and run.live.key == stage.key:
                records = list(run.live.curve)
            if records:
                found.append((stage, records))
    return found


def section(run: RunRecord) -> Section | None:
    """Small figures, one line for each training; policies and reward models apart."""
    everything = trainings(run)
    if not everything:
        return None
    parts, children = [], []
    for kind, title in (("train", "Policy"), ("reward_train", "Reward model")):
        mine = [(s, r) for s, r in everything if s.kind == kind]
        if mine:
            parts += [tag("h3", title, id=f"training-{kind}")] if len({s.kind for s, _ in everything}) > 1 else []
            children += [(f"training-{kind}", title)] if parts else []
            several = len(mine) > 1
            parts += [grid([(s.iteration if several else "", r) for s, r in mine], several), _table(mine)]
            if any(s.state != "done" for s, _ in mine):
                parts.append(note("A training is not finished: its curve is what it had told by then, thinned out."))
    return Section("training", "Training", join(parts), children)


def chosen(trainings: Sequence[tuple[str, list[Row]]]) -> list[tuple[str, list[Row]]]:
    """At most as many trainings as there are styles of lines: the first, the last, and evenly spaced ones between."""
    if len(trainings) <= SERIES:
        return list(trainings)
    places = sorted({round(i * (len(trainings) - 1) / (SERIES - 1)) for i in range(SERIES)})
    return [trainings[p] for p in places]


def series(records: Sequence[Row], field: str, x: str = "step") -> list[Point]:
    """Points of a field over the steps that have it."""
    return [
        Point(float(r[x]), float(r[field])) for r in records
        if isinstance(r.get(field), int | float) and math.isfinite(r[field]) and x in r
    ]  # fmt: skip


def grid(trainings: Sequence[tuple[str, list[Row]]], several: bool) -> Markup:
    """All figures for which there are values; a training is (label, records). With `several`, colours tell trainings apart,
    else fields."""
    figures = []
    for title, axis, fields in FIGURES:
        lines, each = _lines(chosen(trainings), fields, several)
        if not lines:
            continue
        few = max(len(line.points) for line in lines) <= 30
        told = f"Each point is the mean of {each} steps." if each > 1 else ""
        chart = line_chart(title, lines, x_label="optimiser step", y_label=axis, size=(460.0, 250.0), markers=few)
        rows = []
        for line in lines:
            ys = [p.y for p in line.points]
            rows.append([line.name, *map(number, (len(ys), ys[0], ys[-1], min(ys), max(ys)))])
        data = table(["line", "points", "first", "last", "least", "most"], rows, range(1, 6))
        figures.append(figure(chart, told, data, title))
    return tag("div", *figures, class_="grid")


def _lines(
    trainings: Sequence[tuple[str, list[Row]]], fields: Mapping[str, str], several: bool
) -> tuple[list[Line], int]:
    """Lines of one figure, and of how many steps a point is the mean."""
    lines, each = [], 1
    fields = {f: name for f, name in fields.items() if any(series(r, f) for _, r in trainings)}
    alone = len(fields) > 1 and sum(any(series(r, f) for f in fields) for _, r in trainings) == 1  # colours for the fields
    for i, (label, records) in enumerate(trainings):
        for j, (field, name) in enumerate(fields.items()):
            points = series(records, field)
            if not points or (len(points) < 2 and field != "validation_accuracy"):
                continue
            kept, size = thinned(points)
            each = max(each, size)
            parts = [label, name if len(fields) > 1 else ""]
            style, second = (i, min(j, 2)) if several and not alone else (j, 0)
            lines.append(Line(", ".join(filter(None, parts)) or name, kept, style, second))
    return lines, each


def _table(stages: Sequence[tuple[StageRecord, list[Row]]]) -> Markup:
    """Means over the first and the last tenth of each training, of the usual figures."""
    rows = [["steps", *(number(len(records)) for _, records in stages)]]
    for title, _, fields in FIGURES:
        for field, name in fields.items():
            found = [series(records, field) for _, records in stages]
            if any(found) and field != "learning_rate":
                cells = [_ends(p) if p else "\u2013" for p in found]
                rows.append([f"{title}, {name}" if len(fields) > 1 else title, *cells])
    headers = ["first \u2192 last tenth of the steps", *(s.label for s, _ in stages)]
    return table(headers, rows, range(1, len(headers)))


def _ends(points: Sequence[Point]) -> str:
    """Single steps say little where rewards are drawn; of less than twenty points these are the first and the last."""
    size = max(1, len(points) // 10)
    first, last = (sum(p.y for p in some) / size for some in (points[:size], points[-size:]))
    return f"{number(first)} \u2192 {number(last)}"
