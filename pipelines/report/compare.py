"""Runs side by side: accuracy, paired differences on the same problems, training, time, and which settings differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipelines.report import training
from pipelines.report.accuracy import Score, by_series, place_axis, place_name, place_ticks, scores
from pipelines.report.chart import Interval, Line, Point, interval_chart, line_chart, stacked_chart
from pipelines.report.cost import WORK, by_work
from pipelines.report.html import figure, join, note, table, tag, warning, whole
from pipelines.report.numbers import DASH, interval, number, percent, points, seconds
from pipelines.report.overview import summary_row
from pipelines.report.page import Section
from pipelines.report.record import Row, RunRecord, flat
from pipelines.report.settings import value, versions
from pipelines.statistics import paired_difference

_CONDITIONS = ("mode", "prompt", "sampling")
_SHORT = 28  # letters of a name that stays on one line
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Paired:
    """One run against the first on the problems that both have answered: mean difference with its interval, and on how
    many problems only one of them did better."""

    series: str
    name: str
    common: int
    mean: float
    low: float
    high: float
    better: int
    worse: int


def names(runs: Sequence[RunRecord]) -> list[str]:
    """Folder names, with as much of the path before them as tells them apart."""
    parts = [r.path.resolve().parts for r in runs]
    depth = 1
    while len({p[-depth:] for p in parts}) < len(parts) and depth < max(map(len, parts)):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]


def listed(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def header(runs: Sequence[RunRecord], titles: Sequence[str]) -> Markup:
    """What is compared."""
    rows = []
    for name, run in zip(titles, runs, strict=True):
        s = summary_row(run)
        kept = whole(name) if len(name) <= _SHORT else name
        rows.append([kept, s["state"], s["what"], s["started"], s["stages"], s["time"]])
    return tag(
        "header", tag("p", "Ratchet comparison of runs", class_="kicker"), tag("h1", listed(titles)),
        table(["run", "state", "what was run", "started", "stages done", "time"], rows, (5,)),
    )


def sections(runs: Sequence[RunRecord], titles: Sequence[str]) -> list[Section]:
    """All parts for which there is something."""
    made = (_accuracy(runs, titles), _differences(runs, titles), _training(runs, titles), _time(runs, titles),
            _settings(runs, titles))  # fmt: skip
    return [s for s in made if s is not None]


def _accuracy(runs: Sequence[RunRecord], titles: Sequence[str]) -> Section | None:
    found = [by_series(scores(r)) for r in runs]
    every = list(dict.fromkeys(name for groups in found for name in groups))
    if not every:
        return None
    parts = []
    for name in every:
        mine = [(t, r, g[name]) for t, r, g in zip(titles, runs, found, strict=True) if name in g]
        places = sorted({s.place for _, _, group in mine for s in group})
        rows = [
            [t, place_name(r, s.place), percent(s.value("accuracy")), interval(s.value("low"), s.value("high")),
             number(s.stage.metrics["problems"])]
            for t, r, group in mine for s in group
        ]  # fmt: skip
        data = table(["run", "model", "accuracy", "95% interval", "problems"], rows, (2, 3, 4))
        parts.append(tag("h3", name))
        if len(places) > 1:
            chart = _lines(name, mine, titles, places)
            parts.append(figure(chart, f"{name}: accuracy after each training, 95% intervals.", data))
        else:
            parts.append(data)
    return Section("accuracy", "Accuracy", join(parts))


def _lines(
    name: str, mine: Sequence[tuple[str, RunRecord, list[Score]]], titles: Sequence[str], places: Sequence[int]
) -> Markup:
    lines, runs = [], [run for _, run, _ in mine]
    for title, run, group in mine:
        dots = []
        for s in sorted(group, key=lambda s: s.place):
            low, high = s.value("low"), s.value("high")
            told = f"{title}, {place_name(run, s.place)}: {percent(s.value('accuracy'))} {interval(low, high)}"
            dots.append(Point(s.place, s.value("accuracy"), low, high, told))
        lines.append(Line(title, dots, titles.index(title)))
    return line_chart(
        f"Accuracy, {name}", lines, x_label=place_axis(runs), y_label="accuracy", form=lambda v: percent(v, 0),
        x_ticks=place_ticks(runs, places),
    )


def paired(first: Score, other: Score, name: str) -> Paired | None:
    """The last model of a run against the first run's, on problems with the same id, question and answer."""
    before, after = _answers(first), _answers(other)
    common = [k for k in before if k in after]
    if not common:
        return None
    a, b = [before[k] for k in common], [after[k] for k in common]
    mean, low, high = paired_difference(a, b, seed=0)
    better, worse = sum(y > x for x, y in zip(a, b, strict=True)), sum(y < x for x, y in zip(a, b, strict=True))
    return Paired(first.series, name, len(common), mean, low, high, better, worse)


def _answers(score: Score) -> dict[Key, float]:
    rows: list[Row] = score.stage.rows(["problem", "question", "answer", "samples", "correct"])
    return {(r["problem"], r["question"], r["answer"]): r["correct"] / r["samples"] for r in rows}


def _differences(runs: Sequence[RunRecord], titles: Sequence[str]) -> Section | None:
    """Last models, each against that of the first run."""
    last = [{name: group[-1] for name, group in by_series(scores(r)).items()} for r in runs]
    found: list[Paired] = []
    warnings: list[Markup] = []
    for title, mine in zip(titles[1:], last[1:], strict=True):
        for name, score in mine.items():
            if name not in last[0]:
                continue
            result = paired(last[0][name], score, title)
            if result is None:
                continue
            found.append(result)
            differing = [k for k in _CONDITIONS if last[0][name].stage.metrics.get(k) != score.stage.metrics.get(k)]
            if differing:
                told = f"{name}: {title} and {titles[0]} were not measured alike; {', '.join(differing)} differ."
                warnings.append(warning(told))
    if not found:
        missing = note("No paired differences: the runs have no evaluated problem in common, or their rows are out of reach.")
        return Section("differences", "Paired differences", missing)
    several = len({p.series for p in found}) > 1
    rows = [
        Interval(f"{p.name}, {p.series}" if several else p.name, 100 * p.mean, 100 * p.low, 100 * p.high, titles.index(p.name))
        for p in found
    ]
    chart = interval_chart("Differences", rows, x_label=f"points more than {titles[0]}", reference=0.0)
    data = table(
        ["run", "benchmark", "difference, points", "95% interval", "problems in common", "better on", "worse on"],
        [[p.name, p.series, points(p.mean), f"[{points(p.low)}, {points(p.high)}]", number(p.common), number(p.better),
          number(p.worse)] for p in found],
        range(2, 7),
    )  # fmt: skip
    told = (
        f"The last model of each run less the last model of {titles[0]}, on the same problems: mean paired difference with a "
        "bootstrap interval over problems. An interval that includes zero is no difference beyond chance."
    )
    return Section("differences", "Paired differences", join([*warnings, figure(chart, told), data]))


def _training(runs: Sequence[RunRecord], titles: Sequence[str]) -> Section | None:
    """The last policy training of each run."""
    found = []
    for title, run in zip(titles, runs, strict=True):
        mine = [(s, r) for s, r in training.trainings(run) if s.kind == "train"]
        if mine:
            found.append((title, mine[-1][1]))
    if not found:
        return None
    told = note("The last training of each run.")
    return Section("training", "Training", join([told, training.grid(found, several=True)]))


def _time(runs: Sequence[RunRecord], titles: Sequence[str]) -> Section | None:
    spent = [by_work(r) for r in runs]
    if not any(sum(s.values()) for s in spent):
        return None
    works = [w for w in (*WORK, "other") if any(s.get(w) for s in spent)]
    styles = {name: [*WORK, "other"].index(name) for name in works}
    shown = [(f"{t} ({seconds(sum(s.values()))})", list(s.items())) for t, s in zip(titles, spent, strict=True) if s]
    chart = stacked_chart("Where the time went", shown, styles)
    rows = [[w, *(seconds(s[w]) if s.get(w) else DASH for s in spent)] for w in works]
    rows.append(["all", *(seconds(sum(s.values())) for s in spent)])
    data = table(["work", *titles], rows, range(1, len(titles) + 1))
    told = "Shares of each run's own time; stages that came from the store took none."
    return Section("time", "Time", join([figure(chart, told), data]))


def _settings(runs: Sequence[RunRecord], titles: Sequence[str]) -> Section:
    """Keys of the recipes, then versions, that are not the same in all runs."""
    recipes = [flat(r.recipe) for r in runs]
    keys = list(dict.fromkeys(k for r in recipes for k in r))
    missing: Any = object()
    differing = [k for k in keys if any(r.get(k, missing) != recipes[0].get(k, missing) for r in recipes)]
    rows = [
        [tag("code", k), *(tag("code", value(r[k])) if k in r else "not set" for r in recipes)] for k in differing
    ]  # fmt: skip
    parts = [table(["key", *titles], rows) if rows else note("The recipes are the same.")]
    software = [versions(r) for r in runs]
    different = [k for k in dict.fromkeys(k for s in software for k in s) if len({s.get(k) for s in software if s}) > 1]
    if different:
        rows = [[k, *(s.get(k, DASH) for s in software)] for k in different]
        parts += [tag("h3", "Software that differs"), table(["package", *titles], rows)]
    return Section("settings", "Settings that differ", join(parts))
