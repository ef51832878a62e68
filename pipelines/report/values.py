"""Step values: mean curves of right and wrong samples, where pits lie, and some samples step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipelines.report.chart import Line, Point, line_chart
from pipelines.report.html import figure, join, note, table, tag
from pipelines.report.numbers import interval, number, percent
from pipelines.report.page import Section
from pipelines.report.record import RunRecord, StageRecord

_EXAMPLES = 6
_COUNTS = (
    ("samples", "samples valued"), ("steps", "steps"), ("valued_steps", "steps with a value"), ("wrong", "wrong samples"),
    ("pits", "first pits found"), ("pits_first", "pits in the first step"), ("pits_final", "pits in the last step"),
    ("recovered", "wrong samples with a success after the pit"), ("spurious", "spurious steps in right samples"),
)  # fmt: skip


def section(run: RunRecord) -> Section | None:
    """Each valuation of steps."""
    stages = run.of_kind("steps")
    if not stages:
        return None
    parts = []
    for stage in stages:
        parts += [tag("h3", stage.label, id=f"values-{stage.number}"), *_stage(run, stage)]
    return Section("values", "Step values", join(parts), [(f"values-{s.number}", s.label) for s in stages])


def _stage(run: RunRecord, stage: StageRecord) -> list[Markup]:
    m = stage.metrics
    parts: list[Markup] = []
    lines = [
        Line(f"{kind} samples", [Point(p["place"], p["value"], note=_told(kind, p)) for p in m[f"mean_curve_{kind}"]], i)
        for i, kind in enumerate(("right", "wrong")) if m.get(f"mean_curve_{kind}")
    ]  # fmt: skip
    if lines:
        chart = line_chart(
            "Mean value by place in the solution", lines, x_label="place in the solution (0: the prompt, 1: the end)",
            y_label="value", form=lambda v: percent(v, 0), y_range=(0.0, 1.0),
        )
        rows = [[line.name, *(f"{p.x:g}: {percent(p.y)}" for p in line.points)] for line in lines]
        width = max(len(r) for r in rows)
        data = table(["samples", *[""] * (width - 1)], [[*r, *[""] * (width - len(r))] for r in rows], range(1, width))
        parts.append(figure(chart, "Share of continuations that end right from each place, mean over samples.", data))
    parts.append(table(["count", "value"], _counts(run, stage), (1,)))
    curves = stage.json("curves.json")
    if curves:
        parts.append(_examples(curves))
    return parts


def _told(kind: str, p: Mapping[str, Any]) -> str:
    return f"{kind} samples at {p['place']:g}: {percent(p['value'])} (mean of {number(p['count'])})"


def _counts(run: RunRecord, stage: StageRecord) -> list[list[str]]:
    m = stage.metrics
    rows = [[name, number(m.get(key))] for key, name in _COUNTS if m.get(key) is not None]
    rows.append(["mean place of the pit (0: first step, 1: last)", number(m.get("pit_place"))])
    if m.get("checked"):
        rows.append([f"pits that fresh continuations disprove, of {number(m['checked'])} tested", percent(m["false_pit_rate"])])
    drawn = run.by_key(stage.inputs.get("rollouts"))
    if drawn and drawn.metrics:
        d = drawn.metrics
        rows.append([f"continuations drawn ({number(d.get('naive'))} without sharing or search)", number(d.get("drawn"))])
    return rows


def _examples(curves: Sequence[Mapping[str, Any]]) -> Markup:
    """Some samples, each with a figure and its steps: wrong ones with a pit first, then right ones."""
    wrong = [c for c in curves if not c["correct"] and c["pit"] is not None][: _EXAMPLES // 2]
    right = [c for c in curves if c["correct"]][: _EXAMPLES - len(wrong)]
    figures = [_example(c) for c in [*wrong, *right]]
    told = note("Single samples. Bars are 95% intervals, the ring is the first pit. 0 rollouts: the verdict itself.")
    return join([told, tag("div", *figures, class_="grid")])


def _example(c: Mapping[str, Any]) -> Markup:
    kind, pit = ("right" if c["correct"] else "wrong"), None if c["pit"] is None else c["pit"] + 1
    dots = [
        Point(j, p["value"], p["low"], p["high"], f"after step {j}: {percent(p['value'])} ({number(p['successes'])} of "
              f"{number(p['rollouts'])})", j == pit)
        for j, p in enumerate(c["points"]) if p["value"] is not None
    ]  # fmt: skip
    chart = line_chart(
        f"Values of sample {c['sample']}", [Line(kind, dots, 0 if c["correct"] else 1)], x_label="after step", y_label="value",
        form=lambda v: percent(v, 0), y_range=(0.0, 1.0), size=(460.0, 220.0),
        x_ticks=[(float(j), "prompt" if j == 0 else str(j)) for j in range(len(c["points"]))],
    )  # fmt: skip
    return figure(chart, None, _steps(c, pit), f"{kind}: {c['sample']}", "The steps")


def _steps(c: Mapping[str, Any], pit: int | None) -> Markup:
    rows = []
    for j, p in enumerate(c["points"]):
        shown = tag("span", p["text"], class_="text") if j else "(the prompt)"
        mark = "pit" if j == pit else ""
        rows.append([shown, percent(p["value"]), interval(p["low"], p["high"], 0), number(p["rollouts"]), mark])
    return table(["step", "value", "95% interval", "rollouts", ""], rows, (1, 2, 3))
