"""The figure of pass@k and of picking one answer of k, for reward models and for votes."""

from __future__ import annotations

from markupsafe import Markup

from pipelines.report.chart import Line, Point, line_chart
from pipelines.report.html import figure, table
from pipelines.report.numbers import DASH, interval, number, percent, points
from pipelines.report.record import StageRecord

_NAMES = {"pass": "pass@k", "rm": "RM@k", "maj": "maj@k", "weighted": "weighted vote@k"}


def at_figure(stage: StageRecord, title: str | None = None) -> Markup | None:
    """Accuracy over k of a stage whose metrics have `at`: records of k with {mean, low, high} by name."""
    at = stage.metrics.get("at", [])
    names = {n: t for n, t in _NAMES.items() if any(r.get(n) for r in at)}
    if not names:
        return None
    lines = []
    for i, (name, told) in enumerate(_NAMES.items()):
        dots = [
            Point(j, r[name]["mean"], r[name]["low"], r[name]["high"],
                  f"{told}, k = {r['k']}: {percent(r[name]['mean'])} {interval(r[name]['low'], r[name]['high'])}")
            for j, r in enumerate(at) if r.get(name)
        ]  # fmt: skip
        if dots:
            lines.append(Line(told, dots, i))
    chart = line_chart(
        "Accuracy by number of samples", lines, x_label="k, samples of a problem", y_label="accuracy",
        form=lambda v: percent(v, 0), x_ticks=[(float(j), str(r["k"])) for j, r in enumerate(at)], size=(460.0, 270.0),
    )
    gains = any(r.get("rm_gain") for r in at)
    rows = []
    for r in at:
        cells = [f"{percent(r[n]['mean'])} {interval(r[n]['low'], r[n]['high'])}" if r.get(n) else DASH for n in names]
        if gains:
            g = r.get("rm_gain")
            cells.append(f"{points(g['mean'])} [{points(g['low'])}, {points(g['high'])}]" if g else DASH)
        rows.append([r["k"], number(r["problems"]), *cells])
    headers = ["k", "problems", *names.values(), *(["RM@k less maj@k, points"] if gains else [])]
    ways = ", ".join(filter(None, ["by the reward model" if "rm" in names else "", "by vote" if "maj" in names else ""]))
    caption = f"One answer of k, picked {ways or 'at random'}, or with hindsight (pass@k). Bars are 95% intervals."
    return figure(chart, caption, table(headers, rows, range(1, len(headers))), title)
