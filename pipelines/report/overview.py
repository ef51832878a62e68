"""The head of the report: what was run, from where to where accuracy went, where the time went, what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from pipelines.report.accuracy import Score, by_series, gain, place_name, scores
from pipelines.report.chart import stacked_chart
from pipelines.report.cost import WORK, by_work
from pipelines.report.html import join, tag, warning, whole
from pipelines.report.numbers import interval, number, percent, points, seconds
from pipelines.report.record import RunRecord, setting

_METHODS = {"sft": "supervised fine-tuning", "dpo": "DPO", "remax": "ReMax", "rloo": "RLOO", "grpo": "GRPO",
            "reinforce": "REINFORCE", "reward_model": "reward-model training"}  # fmt: skip
_SCHEMES = {"star": "STaR", "rest_em": "ReST-EM", "iterative_rft": "iterative fine-tuning", "online_rft": "online fine-tuning",
            "bstar": "B-STaR"}  # fmt: skip
_PAIRS = {"rise": " on error-injected pairs (RISE)", "per_step": " on per-step pairs"}
_ADAPTERS = {"lora": "LoRA", "qlora": "QLoRA", "full": "all weights"}
_STATES = {"finished": "finished", "running": "running", "stopped": "not finished"}
_ONLINE = ("remax", "rloo", "grpo", "reinforce")
_TILES = 4


def header(run: RunRecord) -> Markup:
    """Title, sentence, warnings, figures."""
    name = str(run.recipe.get("name", run.name))
    pill = tag("span", _STATES[run.state], class_=f"pill {run.state}")
    return tag(
        "header", tag("p", "Ratchet run report", class_="kicker"), tag("h1", name, " ", pill),
        _lede(run), tag("p", _when(run), class_="when"), *_warnings(run),
        tag("div", *_tiles(run), class_="tiles"), _time(run),
    )


def _lede(run: RunRecord) -> Markup:
    """What was run; phases one under the other."""
    if not run.phases:
        return tag("p", sentence(run), class_="lede")
    told = f"{len(run.phases)} phases ({_adapter(run)}) from {run.start}, evaluated on {_benchmarks(run)}:"
    each = (tag("li", tag("strong", p["name"]), f": {_phase(p)}") for p in run.phases)
    return tag("div", told, tag("ol", *each), class_="lede")


def _adapter(run: RunRecord) -> str:
    name = str(run.setting("training.adapter"))
    return _ADAPTERS.get(name, name)


def sentence(run: RunRecord) -> str:
    """What was run, in words."""
    if run.phases:
        told = "; ".join(f"{p['name']}, {_phase(p)}" for p in run.phases)
        return f"{len(run.phases)} phases ({_adapter(run)}) from {run.start}: {told}. Evaluated on {_benchmarks(run)}."
    if not run.setting("iterations.count"):
        return f"Evaluation of {run.start} on {_benchmarks(run)}."
    scheme = str(run.setting("iterations.scheme"))
    return (
        f"{_method(run.recipe)} ({_adapter(run)}; {_SCHEMES.get(scheme, scheme)}) from {run.start}, on {_learned(run.recipe)}; "
        f"evaluated on {_benchmarks(run)}."
    )


def _phase(recipe: Mapping[str, Any]) -> str:
    return f"{_method(recipe)} on {_learned(recipe)}"


def _method(recipe: Mapping[str, Any]) -> str:
    """2 iterations of DPO on per-step pairs."""
    count, method = setting(recipe, "iterations.count"), str(setting(recipe, "training.method"))
    name = _METHODS.get(method, method)
    if method == "dpo":
        name += _PAIRS.get(str(setting(recipe, "pairs.kind")), "")
    if method in _ONLINE:
        name += f" ({number(setting(recipe, 'training.rl.steps'))} steps)"
    return f"{number(count)} iteration{'' if count == 1 else 's'} of {name}"


def _learned(recipe: Mapping[str, Any]) -> str:
    """Problems, and the samples drawn for them."""
    sources = [setting(recipe, "data.train") or {}, *(setting(recipe, "data.extra") or [])]
    amounts = [f"{number(s['limit'])} " if s.get("limit") else "" for s in sources]
    problems = " and ".join(f"{a}{s.get('source', '?')}" for a, s in zip(amounts, sources, strict=True)) + " problems"
    more = [f"{number(count)} {kind}" for kind in ("variants", "inverses") if (count := setting(recipe, f"data.{kind}"))]
    if more:
        problems += f" (up to {' and '.join(more)} of each)"
    if setting(recipe, "data.solutions") == "equations":
        problems += ", solutions as equations"
    method, n = setting(recipe, "training.method"), setting(recipe, "sampling.n")
    if method == "sft" and setting(recipe, "selection.max_per_problem") == 0:
        return f"the solutions that came with {problems}"
    return f"{problems} with {number(n)} samples each at {_temperature(recipe)}"


def _temperature(recipe: Mapping[str, Any]) -> str:
    if setting(recipe, "iterations.scheme") == "bstar":
        among = ", ".join(number(t) for t in setting(recipe, "balance.temperatures") or [])
        return f"the temperature chosen in each iteration ({among})"
    return f"temperature {number(setting(recipe, 'sampling.temperature'))}"


def _benchmarks(run: RunRecord) -> str:
    names = [str(b.get("name")) for b in run.setting("evaluation.benchmarks") or []]
    return ", ".join(names) or "no benchmark"


def _when(run: RunRecord) -> str:
    starts = [e["time"] for e in run.events if e["event"] == "run started"]
    if not starts:
        return "Not started yet."
    last = run.events[-1]["time"]
    again = f", continued {len(starts) - 1} times" if len(starts) > 2 else ", continued once" if len(starts) > 1 else ""
    told = f"Started {_moment(starts[0])}{again}; last event {_moment(last)}."
    told += f" {run.status['done']} of {run.status['total']} stages are done."
    if run.state == "running" and run.status["left"] is not None:
        told += f" About {seconds(run.status['left'])} left when this was written."
    device = run.estimate.get("device")
    return told + (f" Device: {device}." if device else "")


def _moment(time: str) -> str:
    return f"{time[:16].replace('T', ' ')} UTC"


def _warnings(run: RunRecord) -> list[Markup]:
    found = []
    for s in run.stages:
        if s.state == "failed":
            found.append(warning(f"stage {s.label} failed: {s.error}"))
        elif s.state == "broken off":
            found.append(warning(f"the run was broken off in stage {s.label}."))
    if run.state == "stopped" and run.stages:
        found.append(tag("p", "Continue it with ", tag("code", f"ratchet resume {run.path}"), ".", class_="note"))
    away = run.out_of_reach
    if away:
        found.append(warning(
            f"the artefacts of {len(away)} finished stages are not within reach ({run.store}): this report has their figures "
            "from the run folder, without rows, curves and samples."
        ))  # fmt: skip
    for s in run.stages:
        if s.metrics.get("alarm") and s.kind == "reward_eval":
            found.append(warning(f"{s.metrics['alarm']} ({s.label})"))
    return found


def _tiles(run: RunRecord) -> list[Markup]:
    found = [accuracy_tile(run, name, group) for name, group in list(by_series(scores(run)).items())[:_TILES]]
    total = sum(by_work(run).values())
    if total:
        found.append(_tile("Time", seconds(total), f"{run.status['done']} of {run.status['total']} stages done{_kept(run)}"))
    drawn = [s.metrics for s in run.of_kind("sample", "sweep") if s.metrics.get("tokens")]
    online = [s.metrics for s in run.of_kind("train") if s.metrics.get("sampled_tokens")]
    tokens = sum(m["tokens"] for m in drawn) + sum(m["sampled_tokens"] for m in online)
    if tokens:
        count = sum(m["samples"] for m in drawn) + sum(m.get("examples", 0) for m in online)
        found.append(_tile("Samples", number(count), f"{number(tokens)} tokens drawn"))
    return found


def _kept(run: RunRecord) -> str:
    """How many stages took no time because an earlier run had made them."""
    cached = sum(s.cached for s in run.stages)
    return f", {cached} of them from the store" if cached else ""


def accuracy_tile(run: RunRecord, name: str, group: list[Score]) -> Markup:
    """From the first model to the last one, with intervals and the paired gain."""
    first, last = group[0], group[-1]
    low, high = last.value("low"), last.value("high")
    if first is last:
        problems = number(last.stage.metrics["problems"])
        told = f"{interval(low, high)}, {problems} problems, {place_name(run, last.place)}"
        return _tile(name, percent(last.value("accuracy")), told)
    found = gain(first, last)
    change = join([f"{points(found[0])} points ", whole(f"[{points(found[1])}, {points(found[2])}]")]) if found else ""
    big = join([tag("span", percent(first.value("accuracy")), class_="from"), " \u2192 ", percent(last.value("accuracy"))])
    told = join([
        whole(interval(first.value("low"), first.value("high"))), " \u2192 ", whole(interval(low, high)),
        f", {number(last.stage.metrics['problems'])} problems, after {place_name(run, last.place)}",
    ])  # fmt: skip
    return _tile(name, big, told, change)


def _tile(name: str, big: Any, small: Any, change: Any = "") -> Markup:
    more = tag("p", change, class_="change") if change else None
    parts = tag("p", name, class_="name"), tag("p", big, class_="big"), more, tag("p", small, class_="small")
    return tag("div", *parts, class_="tile")


def _time(run: RunRecord) -> Markup | None:
    """Where the time went, as one bar."""
    spent = by_work(run)
    if sum(spent.values()) <= 0:
        return None
    works = [*WORK, "other"]
    styles = {name: works.index(name) for name in works if spent.get(name)}
    chart = stacked_chart("Where the time went", [("", list(spent.items()))], styles)
    told = ", ".join(f"{name} {seconds(value)}" for name, value in spent.items())
    return tag("figure", tag("div", chart, class_="scroll"), tag("figcaption", f"Where the time went: {told}."))


def summary_row(run: RunRecord) -> Mapping[str, str]:
    """The run in a few words, for a table of runs."""
    return {
        "state": _STATES[run.state], "what": sentence(run), "started": _when(run).partition(";")[0].removeprefix("Started "),
        "time": seconds(sum(by_work(run).values())), "stages": f"{run.status['done']}{_kept(run)}",
    }  # fmt: skip
