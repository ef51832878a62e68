"""Two models on the same problems: `ratchet compare A B`, and the gains in a run's results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from configs.errors import InputError
from configs.rows import ProblemScore
from pipelines.models import is_run, trained_names
from pipelines.runfolder import RunFolder
from pipelines.statistics import mcnemar, paired_bootstrap, paired_difference
from pipelines.store import Artefact, planned, read_rows

_SETTINGS = ("mode", "prompt", "sampling")  # what two evaluations should have in common


class Paired(msgspec.Struct, frozen=True):
    """Accuracies of two models on `problems` problems, and second - first with its 95 % interval by bootstrap.

    `p` is the exact p-value of McNemar's test where each problem has one answer, else that of the bootstrap.
    `only_first` and `only_second`: problems that one solves and the other does not (with several answers: more often).
    """

    problems: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    p_bootstrap: float
    test: str
    only_first: list[str]
    only_second: list[str]


class Measured(msgspec.Struct, frozen=True):
    """An evaluated model: its scores by (benchmark, decoding), with the settings that they were taken with."""

    name: str
    scores: dict[tuple[str, str], Artefact]


def paired(first: Sequence[ProblemScore], second: Sequence[ProblemScore]) -> Paired | None:
    """Comparison on the problems (id, question and answer) that both have; None where there are none."""
    others = {_identity(r): r for r in second}
    pairs = [(r, others[_identity(r)]) for r in first if _identity(r) in others]
    if not pairs:
        return None
    before, after = ([r.correct / r.samples for r in side] for side in zip(*pairs, strict=True))
    single = all(a.samples == b.samples == 1 for a, b in pairs)
    return paired_shares([a.problem for a, _ in pairs], before, after, single)


def paired_shares(problems: Sequence[str], before: Sequence[float], after: Sequence[float], single: bool) -> Paired:
    """Comparison of the shares of right answers to `problems`. `single`: each has one answer."""
    lost = [p for p, x, y in zip(problems, before, after, strict=True) if x > y]
    won = [p for p, x, y in zip(problems, before, after, strict=True) if x < y]
    difference, low, high = paired_difference(before, after, seed=0)
    p_bootstrap = paired_bootstrap(before, after, seed=0)
    return Paired(
        len(problems), sum(before) / len(problems), sum(after) / len(problems), difference, low, high,
        mcnemar(len(lost), len(won)) if single else p_bootstrap, p_bootstrap,
        "McNemar, exact" if single else "paired bootstrap", lost, won,
    )


def measured(name: str) -> Measured:
    """The model that RUN@ITERATION (0: the one that the run began with; or its name in reports, such as sft) or RUN (its
    last one) names, in a run folder or the folder of an evaluation. Raises InputError where it was not evaluated, or not
    to the end."""
    folder, at, iteration = name.rpartition("@")
    if not at or not is_run(folder):
        folder, iteration = name, ""
    run = RunFolder.existing(Path(folder).expanduser())
    if not (run.path / "plan.json").is_file():
        raise InputError(f"{folder} has not been started: ratchet resume {folder}")
    plan = run.plan()
    models = _models(plan)
    if not models:
        raise InputError(f"{folder} evaluates nothing: ratchet eval {folder} --benchmarks gsm8k, and compare its folder")
    names = trained_names(plan)
    wanted = names.get(iteration, int(iteration) if iteration.isdecimal() else -1) if iteration else max(models)
    if wanted not in models:
        shown = {number: f" ({label})" for label, number in names.items() if not label.startswith("iteration")}
        have = ", ".join(f"{number}{shown.get(number, '')}" for number in sorted(models))
        raise InputError(f"{folder} has evaluated iterations {have}, not {iteration}")
    for stage in models[wanted].values():
        if not planned(plan, stage).done:
            raise InputError(f"{folder}: stage {stage['label']} is not finished: ratchet resume {folder}")
    scores = {where: planned(plan, stage) for where, stage in models[wanted].items()}
    return Measured(f"{folder}@{iteration or wanted}" if len(models) > 1 or iteration else folder, scores)


def compare(first: Measured, second: Measured, benchmark: str | None = None) -> dict[str, Any]:
    """Every (benchmark, decoding) that both have. Raises InputError where there is none, or no problem in common."""
    common = [w for w in first.scores if w in second.scores and benchmark in (None, w[0])]
    if not common:
        have = "; ".join(f"{m.name}: {', '.join(sorted({' '.join(w) for w in m.scores}))}" for m in (first, second))
        which = f"no benchmark {benchmark}" if benchmark else "no benchmark with the same decoding"
        raise InputError(f"{which} in both ({have})")
    rows = []
    for where in common:
        a, b = first.scores[where], second.scores[where]
        scores: list[list[ProblemScore]] = [read_rows(x, ProblemScore) for x in (a, b)]
        found = paired(*scores)
        if found is None:
            raise InputError(f"{where[0]}: {first.name} and {second.name} have no problem in common")
        left_out = [len(s) - found.problems for s in scores]
        settings = [x.manifest()["config"] for x in (a, b)]
        differing = {k: v for k in _SETTINGS if (v := [c.get(k) for c in settings])[0] != v[1]}
        of = {"benchmark": where[0], "decoding": where[1], "left_out": left_out, "settings_differ": differing}
        rows.append(of | msgspec.structs.asdict(found))
    return {"first": first.name, "second": second.name, "comparisons": rows}


def lines(found: dict[str, Any]) -> list[str]:
    """The comparison as text."""
    rows = found["comparisons"]
    wide, long = (max(least, *(len(r[k]) for r in rows)) for k, least in (("benchmark", 14), ("decoding", 9)))
    result = [
        f"A: {found['first']}", f"B: {found['second']}", "",
        f"{'benchmark':{wide}} {'decoding':{long}} {'problems':>8} {'A':>7} {'B':>7} {'B - A':>7}  {'95% interval':16} "
        f"{'only A':>6} {'only B':>6}  {'p':8} test",
    ]
    for r in rows:
        interval = f"[{100 * r['low']:+.1f}, {100 * r['high']:+.1f}]"
        result.append(
            f"{r['benchmark']:{wide}} {r['decoding']:{long}} {r['problems']:>8} {r['first']:>7.1%} {r['second']:>7.1%} "
            f"{100 * r['difference']:>+7.1f}  {interval:16} {len(r['only_first']):>6} {len(r['only_second']):>6}  "
            f"{p_value(r['p']):8} {r['test']}"
        )
    for r in rows:
        where = f"{r['benchmark']} {r['decoding']}"
        result.append(f"{where}: {verdict(r)}")
        if any(r["left_out"]):
            result.append(f"{where}: compared on what both have; left out {r['left_out'][0]} of A and {r['left_out'][1]} of B")
        differing = _flat(r["settings_differ"]).items()
        result += [f"{where}: {k} differs: {shortened(a)} against {shortened(b)}" for k, (a, b) in differing]
    return result


def p_value(p: float) -> str:
    """Three digits; the smallest are not told apart."""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def verdict(row: dict[str, Any], level: float = 0.05) -> str:
    """What the test says, in words."""
    if row["p"] >= level or not row["difference"]:
        return f"no difference shown (p {_written(row['p'])})"
    return f"{'B' if row['difference'] > 0 else 'A'} is better (p {_written(row['p'])})"


def shortened(value: Any, most: int = 60) -> str:
    """A value on one line, its end left out where it is long."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def _written(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p_value(p)}"


def _identity(row: ProblemScore) -> tuple[str, str, str]:
    return row.problem, row.question, row.answer


def _models(plan: dict[str, Any]) -> dict[int, dict[tuple[str, str], dict[str, Any]]]:
    """Score stages by iteration (0: a model that the run has not trained) and by (benchmark, decoding)."""
    stages = {s["key"]: s for s in plan["stages"]}
    numbers = {key: i for i, key in enumerate(plan["trained"], 1)}
    found: dict[int, dict[tuple[str, str], dict[str, Any]]] = {}
    for stage in plan["stages"]:
        if stage["kind"] == "score":
            _, benchmark, decoding = stage["label"].split("/")
            model = stages[stage["inputs"]["samples"]]["inputs"].get("model")
            found.setdefault(numbers.get(model, 0), {})[benchmark, decoding] = stage
    return found


def _flat(differing: dict[str, list[Any]]) -> dict[str, tuple[Any, Any]]:
    """Dotted keys of the settings that differ."""
    found: dict[str, tuple[Any, Any]] = {}
    for key, (a, b) in differing.items():
        if isinstance(a, dict) and isinstance(b, dict):
            found |= {f"{key}.{k}": (a.get(k), b.get(k)) for k in {**a, **b} if a.get(k) != b.get(k)}
        else:
            found[key] = (a, b)
    return found
