"""Reward models: RM@k beside votes and pass@k, pairwise accuracy beside simple baselines, and the alarm."""

from __future__ import annotations

from markupsafe import Markup

from pipelines.report.at_k import at_figure
from pipelines.report.chart import Interval, interval_chart
from pipelines.report.html import figure, join, note, table, tag, warning
from pipelines.report.numbers import interval, number, percent
from pipelines.report.page import Section
from pipelines.report.record import RunRecord, StageRecord

_BASELINES = {"reward_model": "reward model", "mean_logprob": "mean log-probability", "logprob": "log-probability",
              "shortest": "shorter answer"}  # fmt: skip


def section(run: RunRecord) -> Section | None:
    """Each evaluation of a reward model, then scores over the iterations."""
    stages = run.of_kind("reward_eval")
    if not stages:
        return None
    parts = [warning(s.metrics["alarm"], f" ({s.label})") for s in stages if s.metrics.get("alarm")]
    parts.append(_overview(stages))
    for s in stages:
        parts += [tag("h3", s.label, id=f"rewards-{s.number}"), tag("div", at_figure(s), _pairwise(s), class_="grid")]
    return Section("rewards", "Reward models", join(parts), [(f"rewards-{s.number}", s.label) for s in stages])


def _overview(stages: list[StageRecord]) -> Markup:
    rows = [
        [s.label, number(s.metrics["problems"]), number(s.metrics["samples"]), number(s.metrics.get("right_score")),
         number(s.metrics.get("wrong_score")), number(s.metrics.get("auc")), percent(s.metrics.get("agreement")),
         number(s.metrics.get("wrong_rise"))]
        for s in stages
    ]  # fmt: skip
    headers = ["evaluation", "problems", "samples", "mean score, right", "mean score, wrong", "AUC", "agreement with verifier",
               "rise of wrong answers' score"]  # fmt: skip
    told = note("Agreement is counted with as many answers accepted as are right. docs/reward_models.md explains the figures.")
    return join([table(headers, rows, range(1, 8)), told])


def _pairwise(stage: StageRecord) -> Markup | None:
    found = {k: v for k, v in stage.metrics.get("pairwise", {}).items() if v}
    if not found:
        return None
    ordered = [k for k in _BASELINES if k in found] + [k for k in found if k not in _BASELINES]
    rows = [
        Interval(_BASELINES.get(k, k), found[k]["mean"], found[k]["low"], found[k]["high"], 0 if k == "reward_model" else 6)
        for k in ordered
    ]
    chart = interval_chart("Pairwise accuracy", rows, x_label="share of right-wrong pairs ordered rightly",
                           form=lambda v: percent(v, 0), reference=0.5, width=460.0)  # fmt: skip
    data = table(
        ["order by", "pairwise accuracy", "95% interval", "problems"],
        [[r.label, percent(r.value), interval(r.low, r.high), number(found[k]["problems"])]
         for k, r in zip(ordered, rows, strict=True)],
        (1, 2, 3),
    )  # fmt: skip
    told = "How often a right answer is ranked above a wrong one of the same problem. The dashed line is chance."
    return figure(chart, told, data)
