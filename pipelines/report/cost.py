"""Time and memory by stage, beside what the plan had estimated before anything ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from markupsafe import Markup

from pipelines.report.chart import Bar, bar_chart
from pipelines.report.html import figure, join, note, table, tag
from pipelines.report.numbers import number, seconds, size
from pipelines.report.page import Section
from pipelines.report.record import RunRecord, StageRecord

_MOST_BARS, _SMALL = 24, 0.005  # bars; share of the time below which a stage has none
WORK: dict[str, tuple[str, ...]] = {  # kinds of stages by what they do, in the order of the legend
    "sampling": ("sample", "sweep", "rollouts", "edit", "edit_rollouts"),
    "training": ("train", "reward_train"),
    "scoring": ("verify", "reference", "reward_score", "reward_eval", "confidence", "score", "exploration",
                "votes"),
    "data": ("problems", "validation", "join", "decontaminate", "variants", "inverses", "rewrite", "select", "select_balanced",
             "pairs", "step_pairs", "steps", "reward_data", "balance", "shots"),
}  # fmt: skip


def work_of(kind: str) -> str:
    """What a kind of stage does."""
    return next((name for name, kinds in WORK.items() if kind in kinds), "other")


def by_work(run: RunRecord) -> dict[str, float]:
    """Seconds of this run by what was done, attempts that failed included; what took most first, and nothing that took
    no time at all: a chart has no style for what it does not show."""
    total: dict[str, float] = {}
    kinds = {s.key: s.kind for s in run.stages}
    for key, taken in spent(run).items():
        name = work_of(kinds.get(key, ""))
        total[name] = total.get(name, 0.0) + taken
    return dict(sorted(((name, taken) for name, taken in total.items() if taken > 0), key=lambda item: -item[1]))


def spent(run: RunRecord) -> dict[str, float]:
    """Seconds in this run by stage key: from the events, with attempts that failed; one that was killed leaves no end."""
    found: dict[str, float] = {}
    begun: dict[str, str] = {}
    for e in run.events:
        key = e.get("key")
        if key is None:
            continue
        if e["event"] == "started":
            begun[key] = e["time"]
        elif e["event"] == "finished":
            found[key] = found.get(key, 0.0) + e["seconds"]
            begun.pop(key, None)
        elif e["event"] == "failed" and key in begun:
            found[key] = found.get(key, 0.0) + _between(begun.pop(key), e["time"])
    if run.live and run.live.key in begun and not run.live.ended:
        found[run.live.key] = found.get(run.live.key, 0.0) + run.live.seconds
    return found


def _between(a: str, b: str) -> float:
    return (datetime.fromisoformat(b) - datetime.fromisoformat(a)).total_seconds()


def section(run: RunRecord) -> Section | None:
    """The figure of times, the table of stages, the table of memory."""
    taken = spent(run)
    if not taken and not any(s.manifest for s in run.stages):
        return None
    parts = [_figure(run, taken), _stages(run, taken), note(_told(run, taken))]
    memory = _memory(run)
    if memory is not None:
        parts += [tag("h3", "Memory", id="memory"), memory]
    return Section("cost", "Time and memory", join(parts), [("memory", "Memory")] if memory is not None else [])


def _figure(run: RunRecord, taken: dict[str, float]) -> Markup | None:
    timed = sorted((s for s in run.stages if taken.get(s.key, 0.0) > 0), key=lambda s: -taken[s.key])
    long = [s for s in timed if taken[s.key] >= _SMALL * sum(taken.values()) or (s.estimate or 0) > taken[timed[0].key] / 20]
    shown = sorted(long[:_MOST_BARS], key=lambda s: s.number)
    if not shown:
        return None
    works = [*WORK, "other"]
    bars = [
        Bar(s.label, taken[s.key], works.index(work_of(s.kind)), s.estimate or None,
            f"{s.label}: {seconds(taken[s.key])}" + (f", estimated {seconds(s.estimate)}" if s.estimate else ""))
        for s in shown
    ]  # fmt: skip
    legend = [(name, i) for i, name in enumerate(works) if any(b.style == i for b in bars)]
    chart = bar_chart("Time by stage", bars, seconds, "estimated", legend)
    rest = "" if len(timed) == len(shown) else f" {len(timed) - len(shown)} shorter stages are in the table only."
    marks = " The tick is the plan's estimate." if any(b.mark for b in bars) else ""
    return figure(chart, f"Time that each stage took in this run.{marks}{rest}")


def _stages(run: RunRecord, taken: dict[str, float]) -> Markup:
    rows, planned = [], _planned(run)
    for s in run.stages:
        mine, made = taken.get(s.key), s.timing.get("seconds")
        ratio = f"{mine / s.estimate:.2f}" if mine and s.estimate and s.state == "done" else "\u2013"
        shown = seconds(mine) if mine is not None else f"cached ({seconds(made)})" if s.state == "done" and made else "\u2013"
        peak = " / ".join(size(s.timing[k]) for k in ("peak_resident_bytes", "peak_gpu_bytes") if k in s.timing)
        need = planned.get(s.key)
        rows.append([
            s.label, s.state, shown, seconds(s.estimate) if s.estimate else "\u2013", ratio, number(s.manifest.get("rows")),
            number(_rate(s)), size(need) if need else "\u2013", peak or "\u2013", str(_attempts(run, s.key) or "\u2013"),
        ])  # fmt: skip
    headers = ["stage", "state", "time", "estimate", "time / estimate", "rows", "tokens/s", "estimated memory", "peak memory",
               "attempts"]  # fmt: skip
    return tag("details", tag("summary", f"All {len(run.stages)} stages"), table(headers, rows, range(2, 10)), class_="data")


def _planned(run: RunRecord) -> dict[str, float]:
    """Bytes that the plan thought each stage to need, by key."""
    return {s["key"]: s["memory_bytes"] for s in run.estimate.get("stages", []) if s.get("memory_bytes")}


def _rate(s: StageRecord) -> float | None:
    """Tokens a second: generated, or learned from."""
    t, m = s.timing, s.metrics
    if t.get("generated_tokens") and t.get("generate_seconds"):
        return round(t["generated_tokens"] / t["generate_seconds"])
    if s.kind in ("train", "reward_train") and t.get("train_seconds") and m.get("tokens"):
        return round(m["tokens"] / t["train_seconds"])
    return None


def _attempts(run: RunRecord, key: str) -> int:
    return sum(e["event"] == "started" and e.get("key") == key for e in run.events)


def _told(run: RunRecord, taken: dict[str, float]) -> str:
    both = [(taken[s.key], s.estimate) for s in run.stages if s.key in taken and s.estimate and s.state == "done"]
    told = "A cached stage was made by an earlier run; the time in brackets is what it took there."
    if both:
        real, thought = (sum(x) for x in zip(*both, strict=True))
        told += f" Finished stages took {seconds(real)}; the plan had estimated {seconds(thought)} for them."
        told += " Estimates of tokens are upper bounds where nothing had been measured before."
    rates: dict[str, Any] = run.estimate.get("rates", {})
    if rates:
        told += " Rates that the plan went by: " + ", ".join(
            f"{k} {number(round(v['rate']))} tokens/s ({v['source']})" for k, v in rates.items()
        ) + "."
    return told


def _memory(run: RunRecord) -> Markup | None:
    """Measured peaks by what was done, beside the largest that the plan had estimated, and what that is made up of."""
    need = _planned(run)
    measured = [s for s in run.stages if "peak_resident_bytes" in s.timing or "peak_gpu_bytes" in s.timing]
    if not need and not measured:
        return None
    rows = []
    for name in WORK:
        mine = [s for s in measured if work_of(s.kind) == name]
        most = max((need.get(s.key, 0.0) for s in run.stages if work_of(s.kind) == name), default=0.0)
        if mine or most:
            rows.append([name, size(most) if most else "\u2013", size(_peak(mine, "peak_resident_bytes")),
                         size(_peak(mine, "peak_gpu_bytes"))])  # fmt: skip
    have = run.estimate.get("memory_available")
    remark = "Measured: the most that the stage's process held, resident and allocated on the GPU by torch, the interpreter "
    remark += "and its libraries included, its child processes not."
    largest: Mapping[str, Any] = run.estimate.get("memory", {})
    if largest.get("bytes"):
        ordered = sorted(largest["parts"].items(), key=lambda p: -p[1])
        parts = ", ".join(f"{part} {size(value)}" for part, value in ordered if value >= 5e5)
        remark += f" The plan thought {largest['stage']} to need most, {size(largest['bytes'])}: {parts}."
    if have:
        remark += f" The plan found {size(have)} on {run.estimate.get('device', 'this machine')}."
    headers = ["work", "estimated", "measured, resident", "measured, GPU"]
    return join([table(headers, rows, (1, 2, 3)), note(remark)])


def _peak(stages: Sequence[StageRecord], name: str) -> float | None:
    return max((s.timing[name] for s in stages if name in s.timing), default=None)
