"""Accuracy by iteration, with intervals and the paired gain over the first model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipelines.report.at_k import at_figure
from pipelines.report.chart import Line, Point, line_chart
from pipelines.report.html import figure, join, note, table, tag
from pipelines.report.numbers import interval, number, percent, points
from pipelines.report.page import Section
from pipelines.report.record import RunRecord, StageRecord
from pipelines.statistics import paired_difference


@dataclass(frozen=True)
class Score:
    """One model on one benchmark. `place` is the iteration that trained the model, 0: what the run began with."""

    stage: StageRecord
    place: int
    benchmark: str
    decoding: str

    @property
    def series(self) -> str:
        """Benchmark and decoding: what is comparable between models."""
        return f"{self.benchmark}, {self.decoding}"

    def value(self, name: str) -> float:
        """A metric of the score."""
        return self.stage.metrics[name]

    def shares(self) -> dict[str, float]:
        """Share of right answers by problem id; empty where the rows are out of reach."""
        rows = self.stage.rows(["problem", "samples", "correct"])
        return {r["problem"]: r["correct"] / r["samples"] for r in rows}


def scores(run: RunRecord) -> list[Score]:
    """All scores that there are, in the order of the plan."""
    found = []
    for stage in run.of_kind("score"):
        _, benchmark, decoding = stage.label.split("/")
        found.append(Score(stage, run.place(stage), benchmark, decoding))
    return found


def place_name(run: RunRecord, place: int) -> str:
    """Name of a model of the run: iteration 1, or what its phase calls it (sft, rft2)."""
    if place:
        label = run.trained[place - 1].iteration
        return f"iteration {place}" if label == f"iteration{place}" else label
    return f"start ({run.start})" if "@" in run.start else "initial"


def place_ticks(runs: Sequence[RunRecord], places: Iterable[int]) -> list[tuple[float, str]]:
    """Marks of a scale of models: the names that phases give them where all runs agree on them, else numbers."""
    found = []
    for place in places:
        names = {r.trained[place - 1].iteration for r in runs if 0 < place <= len(r.trained)}
        name = names.pop() if len(names) == 1 else str(place)
        found.append((float(place), "start" if place == 0 else str(place) if name == f"iteration{place}" else name))
    return found


def place_axis(runs: Sequence[RunRecord]) -> str:
    """What such a scale shows."""
    if not any(r.phases for r in runs):
        return "model after iteration"
    return "model after phase or iteration" if len(runs) == 1 else "model after training"


def by_series(found: list[Score]) -> dict[str, list[Score]]:
    """Scores that can be compared, by what they measure."""
    groups: dict[str, list[Score]] = {}
    for s in found:
        groups.setdefault(s.series, []).append(s)
    return groups


def gain(first: Score, last: Score) -> tuple[float, float, float] | None:
    """Mean paired difference over the problems that both have seen, with its 95 % interval; None without rows."""
    before, after = first.shares(), last.shares()
    common = [p for p in before if p in after]
    if not common or first is last:
        return None
    return paired_difference([before[p] for p in common], [after[p] for p in common], seed=0)


def section(run: RunRecord) -> Section | None:
    """The figure and the table of accuracies."""
    found = scores(run)
    if not found:
        return None
    groups = by_series(found)
    parts: list[Markup] = []
    if any(len({s.place for s in g}) > 1 for g in groups.values()):
        parts.append(_figure(run, groups))
    parts.append(_table(run, groups))
    parts.append(note(_conditions(found)))
    votes = [(s, f) for s in run.of_kind("votes") if (f := at_figure(s, _vote_title(run, s))) is not None]
    if votes:
        parts += [tag("h3", "Sampled answers", id="votes"), tag("div", *(f for _, f in votes), class_="grid")]
    title = "Accuracy by phase and iteration" if run.phases else "Accuracy by iteration"
    return Section("accuracy", title, join(parts), [("votes", "Sampled answers")] if votes else [])


def _vote_title(run: RunRecord, stage: StageRecord) -> str:
    return f"{place_name(run, run.place(stage))}, {stage.label.split('/')[1]}"


def _figure(run: RunRecord, groups: dict[str, list[Score]]) -> Markup:
    places = sorted({s.place for g in groups.values() for s in g})
    lines = []
    for i, (name, group) in enumerate(groups.items()):
        dots = []
        for s in sorted(group, key=lambda s: s.place):
            low, high = s.value("low"), s.value("high")
            told = f"{place_name(run, s.place)}, {name}: {percent(s.value('accuracy'))} {interval(low, high)}"
            dots.append(Point(s.place, s.value("accuracy"), low, high, told))
        lines.append(Line(name, dots, i))
    chart = line_chart(
        "Accuracy by iteration", lines, x_label=place_axis([run]), y_label="accuracy",
        form=lambda v: percent(v, 0), x_ticks=place_ticks([run], places),
    )
    return figure(chart, "Share of problems answered correctly by each model. Bars are 95% intervals.")


def _table(run: RunRecord, groups: dict[str, list[Score]]) -> Markup:
    """One table for each benchmark and decoding."""
    headers = ["model", "accuracy", "95% interval", "gain, points", "problems", "no answer", "cut off", "mean tokens"]
    tables = []
    for name, group in groups.items():
        rows = []
        for s in group:
            found = gain(group[0], s)
            told = f"{points(found[0])} [{points(found[1])}, {points(found[2])}]" if found else "\u2013"
            m = s.stage.metrics
            rows.append([
                place_name(run, s.place), percent(m["accuracy"]), interval(m["low"], m["high"]), told, number(m["problems"]),
                percent(m.get("no_answer")), percent(m.get("truncated")),
                number(m.get("mean_tokens") and round(m["mean_tokens"], 1)),
            ])  # fmt: skip
        tables.append(table(headers, rows, range(1, 8), name))
    return join(tables)


def _conditions(found: list[Score]) -> str:
    m = found[-1].stage.metrics
    sampling = m.get("sampling", {})
    kept = ", ".join(f"{k} {v}" for k, v in sampling.items() if k in ("engine", "dtype", "max_tokens"))
    return (
        f"Answers are extracted in {m.get('mode', '?')} mode; {kept}. Intervals are Wilson's for one answer a problem, "
        "clustered by problem for several. The gain is the mean difference to the first model on the same problems, with "
        "a paired bootstrap interval."
    )
