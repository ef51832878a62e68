"""What sampling gave and what was kept of it: verdicts, training examples, edits, preference pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipelines.report.chart import stacked_chart
from pipelines.report.html import figure, join, table, tag
from pipelines.report.numbers import number, percent
from pipelines.report.page import Section
from pipelines.report.record import RunRecord, StageRecord

# In the order in which they are drawn; the styles are those of the page: blue, orange, grey, ...
OUTCOMES = {"correct": 0, "wrong": 1, "no_answer": 6, "timeout": 3, "error": 4, "bad_gold": 5}
_REASONS = 6  # shown apart, in styles 1 to 6; the rest are "other"
_OTHER = {"other": 7}


def section(run: RunRecord) -> Section | None:
    """Sampling and selection; edits and pairs where there are any."""
    parts: list[Markup] = []
    children: list[tuple[str, str]] = []
    for anchor, title, body in (
        ("verdicts", "Verdicts on the samples", _verdicts(run)), ("selection", "Training examples", _selection(run)),
        ("edits", "Injected errors", _edits(run)), ("pairs", "Preference pairs", _pairs(run)),
        ("groups", "Groups for the reward model", _groups(run)), ("dropped", "Decontamination", _dropped(run)),
    ):  # fmt: skip
        if body is not None:
            parts += [tag("h3", title, id=anchor), body]
            children.append((anchor, title))
    return Section("data", "Data", join(parts), children) if parts else None


def of_training(run: RunRecord, stage: StageRecord) -> bool:
    """Whether a stage belongs to an iteration's data rather than to an evaluation (iteration1/BENCHMARK/...)."""
    return stage.label.count("/") < 2 or "/sweep" in stage.label


def _verdicts(run: RunRecord) -> Markup | None:
    rows, data = [], []
    for stage in run.of_kind("verify"):
        counts = [(_plain(name), float(stage.metrics[name])) for name in OUTCOMES if stage.metrics.get(name)]
        total = sum(v for _, v in counts)
        if not total:
            continue
        samples = run.by_key(stage.inputs.get("samples"))
        drawn = samples.metrics if samples else {}
        label = stage.label.removesuffix("/verify")
        if of_training(run, stage):
            rows.append((label, counts))
        cut = drawn["truncated"] / drawn["samples"] if drawn.get("samples") and "truncated" in drawn else None
        data.append([label, number(total), *(number(stage.metrics.get(n, 0)) for n in ("correct", "wrong", "no_answer")),
                     number(sum(stage.metrics.get(n, 0) for n in ("timeout", "error", "bad_gold"))),
                     percent(stage.metrics.get("accuracy")), percent(cut), number(drawn.get("mean_tokens"))])  # fmt: skip
    if not data:
        return None
    headers = ["samples of", "samples", "right", "wrong", "no answer", "not judged", "share right", "cut off", "mean tokens"]
    everything = table(headers, data, range(1, 9))
    if not rows:
        return everything
    chart = stacked_chart("Verdicts on the samples", rows, {_plain(name): style for name, style in OUTCOMES.items()})
    return figure(chart, "Verdicts on the samples drawn for training, by stage. The table has those of evaluations too.",
                  everything)  # fmt: skip


def _plain(outcome: str) -> str:
    return "right" if outcome == "correct" else outcome.replace("_", " ")


def _selection(run: RunRecord) -> Markup | None:
    stages = run.of_kind("select", "select_balanced")
    if not stages:
        return None
    rows = []
    for s in stages:
        m = s.metrics
        known = m.get("problems") and "problems_solved" in m
        solved = m["problems_solved"] / m["problems"] if known else None
        sampled = bool(m.get("samples"))  # else human solutions alone
        counts = [number(m.get(k) if sampled or k == "problems" else None)
                  for k in ("samples", "correct", "unique_correct", "problems", "problems_solved")]  # fmt: skip
        rows.append([s.label, *counts, percent(solved if sampled else None), number(m.get("examples")), number(m.get("human"))])
    headers = ["stage", "samples", "right", "right and different", "problems", "solved", "share solved", "examples kept",
               "of them human"]  # fmt: skip
    return table(headers, rows, range(1, 9))


def _edits(run: RunRecord) -> Markup | None:
    found = []
    for stage in run.of_kind("edit", "edit_rollouts"):
        by_error: Mapping[str, Mapping[str, int]] = stage.metrics.get("by_error", {})
        if not by_error:
            continue
        outcomes = _ordered(by_error)
        styles = {"kept": 0} | {name: i for i, name in enumerate([o for o in outcomes if o != "kept"][:_REASONS], 1)}
        rows = [(error.replace("_", " "), _shares(counts, styles)) for error, counts in sorted(by_error.items())]
        chart = stacked_chart(f"Injected errors, {stage.label}", rows, styles | _OTHER)
        data = table(
            ["error", *(o.replace("_", " ") for o in outcomes)],
            [[e.replace("_", " "), *(number(c.get(o, 0)) for o in outcomes)] for e, c in sorted(by_error.items())],
            range(1, len(outcomes) + 1),
        )
        told = f"What became of {number(stage.metrics.get('edits'))} edits in {stage.label}, by the kind of error."
        found.append(figure(chart, told, data))
    return join(found) if found else None


def _shares(counts: Mapping[str, int], styles: Mapping[str, int]) -> list[tuple[str, float]]:
    """What has a style by name, and the sum of the rest."""
    shown = [(name, float(count)) for name, count in counts.items() if name in styles]
    rest = sum(count for name, count in counts.items() if name not in styles)
    return [*shown, *([("other", float(rest))] if rest else [])]


def _ordered(by_error: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Outcomes, the frequent ones first."""
    totals: dict[str, int] = {}
    for counts in by_error.values():
        for outcome, count in counts.items():
            totals[outcome] = totals.get(outcome, 0) + count
    return sorted(totals, key=lambda o: (-totals[o], o))


def _pairs(run: RunRecord) -> Markup | None:
    stages = run.of_kind("pairs", "step_pairs")
    if not stages:
        return None
    kinds = list(dict.fromkeys(k for s in stages for k in s.metrics.get("kinds", {})))
    reasons = list(dict.fromkeys(k for s in stages for k in s.metrics.get("dropped", {})))
    rows = []
    for s in stages:
        m = s.metrics
        counts: list[Any] = [m.get("kinds", {}).get(k, 0) for k in kinds]
        dropped = [m.get("dropped", {}).get(k, 0) for k in reasons]
        lengths = [m.get(f"mean_{side}_tokens") for side in ("context", "chosen", "rejected")]
        rows.append([s.label, *map(number, [m.get("pairs"), *counts, m.get("problems_used"), m.get("problems"), *dropped,
                                            m.get("too_long"), *lengths])])  # fmt: skip
    headers = ["stage", "pairs", *kinds, "problems used", "problems", *(r.replace("_", " ") for r in reasons), "too long",
               "mean tokens: context", "chosen", "rejected"]  # fmt: skip
    styles = {"gave pairs": 0} | {r.replace("_", " "): i for i, r in enumerate(reasons[:_REASONS], 1)}
    shown = [(s.label, _yield(s.metrics, styles)) for s in stages]
    chart = stacked_chart("Problems that gave pairs", shown, styles | _OTHER)
    told = "What became of the problems: those that gave pairs, and why the others did not."
    return figure(chart, told, table(headers, rows, range(1, len(headers))))


def _yield(m: Mapping[str, Any], styles: Mapping[str, int]) -> Sequence[tuple[str, float]]:
    counts = {"gave pairs": m.get("problems_used", 0)} | {k.replace("_", " "): v for k, v in m.get("dropped", {}).items()}
    untold = m.get("problems", 0) - sum(counts.values())
    return _shares(counts | ({"untold": untold} if untold > 0 else {}), styles)


def _groups(run: RunRecord) -> Markup | None:
    stages = run.of_kind("reward_data")
    if not stages:
        return None
    names = list(dict.fromkeys(k for s in stages for k, v in s.metrics.items() if isinstance(v, int | float)))
    rows = [[name.replace("_", " "), *(number(s.metrics.get(name)) for s in stages)] for name in names]
    return table(["count", *(s.label for s in stages)], rows, range(1, len(stages) + 1))


def _dropped(run: RunRecord) -> Markup | None:
    stages = run.of_kind("decontaminate")
    if not stages:
        return None
    rows = [[s.label, number(s.metrics.get("kept")), number(s.metrics.get("dropped"))] for s in stages]
    return table(["stage", "problems kept", "dropped for their likeness to a test problem"], rows, (1, 2))
