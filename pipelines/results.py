"""What a run measured, in its folder: `results.json`, `results.md` and one file of answers for each model and benchmark.

All of it follows from the artefacts; it is written anew whenever the run is run or resumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from configs.rows import Problem, ProblemScore, Sample, VerdictRow
from pipelines.compare import p_value, paired
from pipelines.files import write_json, writing
from pipelines.markdown import cell, fenced
from pipelines.plan import Plan
from pipelines.stage import Stage
from pipelines.statistics import accuracy
from pipelines.store import Store, read_rows

GROUPS = ("level", "subject")
Column = Callable[[dict[str, Any]], Any]


def write_results(folder: Path, plan: Plan, store: Store) -> dict[str, Any] | None:
    """Write the files of a finished run; the content of `results.json`, or None where nothing was evaluated."""
    found = results(plan, store, folder)
    if found is None:
        return None
    for stage in _stages(plan, "score"):
        _write_answers(folder / _answers_file(stage.label), stage, store)
    write_json(folder / "results.json", found)
    with writing(folder / "results.md") as temporary:
        temporary.write_text("\n".join(markdown(found)) + "\n", encoding="utf-8")
    return found


def results(plan: Plan, store: Store, folder: Path) -> dict[str, Any] | None:
    """Accuracies with intervals, by level and subject too; comparisons with the first model; tables of sampled answers."""
    scores = _stages(plan, "score")
    if not scores:
        return None
    prompts = _Prompts(plan)
    first: dict[str, list[ProblemScore]] = {}
    evaluations, comparisons = [], []
    for stage in scores:
        who, benchmark, decoding = stage.label.split("/")
        rows: list[ProblemScore] = _rows(store, stage, ProblemScore)
        problems = {p.id: p for p in _rows(store, stage.inputs["problems"], Problem)}
        where = {"model": who, "benchmark": benchmark, "decoding": decoding}
        evaluations.append({
            **where, **accuracy(rows), **_measured(store, stage), "by": _by_group(rows, problems),
            "prompt_example": prompts.example(store, stage.inputs["samples"]), "answers": _answers_file(stage.label),
        })  # fmt: skip
        start = first.setdefault(f"{benchmark}/{decoding}", rows)
        if start is not rows and (found := paired(start, rows)) is not None:
            comparisons.append({**where, "with": scores[0].label.split("/")[0], **msgspec.structs.asdict(found)})
    return {
        "run": plan.recipe.name, "base_model": plan.model.name, "fingerprint": plan.model.fingerprint,
        "evaluations": evaluations, "comparisons": comparisons, "sampled": list(_sampled(plan, store)),
    }  # fmt: skip


def _measured(store: Store, stage: Stage) -> dict[str, Any]:
    m = store.artefact(stage.kind, stage.key).manifest()["metrics"]
    names = ("no_answer", "unscored", "truncated", "mean_tokens", "mode", "prompt", "sampling")
    return {name: m[name] for name in names}


def _by_group(rows: Sequence[ProblemScore], problems: dict[str, Problem]) -> dict[str, dict[str, Any]]:
    """Accuracy for each level and each subject, where the problems have more than one."""
    found: dict[str, dict[str, Any]] = {}
    for group in GROUPS:
        members: dict[str, list[ProblemScore]] = {}
        for row in rows:
            members.setdefault(getattr(problems[row.problem], group) or "-", []).append(row)
        if len(members) > 1:
            found[group] = {name: accuracy(members[name]) for name in sorted(members)}
    return found


def _sampled(plan: Plan, store: Store) -> Iterator[dict[str, Any]]:
    """Metrics of the votes of every model and benchmark, and the table of the reward model where there is one."""
    judged = {s.label.rpartition("/")[0]: s for s in _stages(plan, "reward_eval")}
    for stage in _stages(plan, "votes"):
        who, benchmark, _ = stage.label.split("/")
        m = store.artefact(stage.kind, stage.key).manifest()["metrics"]
        mine = {label: s for label, s in judged.items() if label.startswith(f"{who}/{benchmark}/")}
        rm = {
            label.rpartition("/")[2]: store.artefact(s.kind, s.key).manifest()["metrics"]["at"] for label, s in mine.items()
        }
        yield {"model": who, "benchmark": benchmark, **m, **({"reward_model": rm} if rm else {})}


class _Prompts:
    """Prompts as text; the tokenizer is opened once."""

    def __init__(self, plan: Plan) -> None:
        file = plan.model.path / "tokenizer.json"
        if file.is_file():  # transformers takes seconds to import
            from tokenizers import Tokenizer

            self._tokenizer: Any = Tokenizer.from_file(str(file))
        else:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(plan.model.path, trust_remote_code=False)

    def example(self, store: Store, samples: Stage) -> str:
        """The exact prompt of the first problem."""
        first: Sample = read_rows(store.artefact(samples.kind, samples.key), Sample, [0])[0]
        return self._tokenizer.decode(first.prompt_ids, skip_special_tokens=False)


# --- answers --------------------------------------------------------------------------------------


def _answers_file(label: str) -> str:
    return f"answers/{label.replace('/', '-')}.jsonl"


def _write_answers(path: Path, stage: Stage, store: Store) -> None:
    """One line for each answer: question, gold, what was extracted, the verdict, and the whole text."""
    problems = {p.id: p for p in _rows(store, stage.inputs["problems"], Problem)}
    verdicts = {v.sample: v for v in _rows(store, stage.inputs["verdicts"], VerdictRow)}
    with writing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for sample in _rows(store, stage.inputs["samples"], Sample):
            problem, v = problems[sample.problem], verdicts[sample.id]
            line = {
                "id": sample.id, "problem": problem.id, "level": problem.level, "subject": problem.subject,
                "question": problem.question, "gold": problem.answer, "extracted": v.extracted, "verdict": v.outcome,
                "rule": v.detail, "finish_reason": sample.finish_reason, "tokens": len(sample.token_ids), "text": sample.text,
            }  # fmt: skip
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


# --- Markdown -------------------------------------------------------------------------------------


def markdown(found: dict[str, Any]) -> Iterator[str]:
    """`results.md`, line by line."""
    yield f"# Results of {cell(found['run'])}"
    yield ""
    yield f"Base model: `{found['base_model']}`."
    yield "Intervals are 95 %: Wilson's for one answer a problem, else clustered by problem."
    yield from _section("Accuracy", _ACCURACY, found["evaluations"])
    if gains := found["comparisons"]:
        yield from _section(f"Compared with {gains[0]['with']} on the same problems", _GAIN, gains)
        yield ""
        yield "p: McNemar's exact test for one answer a problem, else a paired bootstrap over problems; each line by itself."
    yield from _tables_of_samples(found["sampled"])
    for group in GROUPS:
        rows = [{**e, "group": name, **a} for e in found["evaluations"] for name, a in e["by"].get(group, {}).items()]
        if rows:
            yield from _section(f"By {group}", {"model": _model, "benchmark": _benchmark, "decoding": _decoding,
                                                group: lambda r: r["group"], **_FIGURES}, rows)  # fmt: skip
    yield ""
    yield "## How it was measured"
    seen: set[str] = set()
    for e in found["evaluations"]:
        told = f"{e['benchmark']}, {e['decoding']}: extraction {e['mode']}; " + ", ".join(
            f"{k} {v}" for k, v in e["sampling"].items() if v not in ([], None)
        )
        if told not in seen:
            seen.add(told)
            yield from ("", told + ". The first prompt, exactly:", "", *fenced(e["prompt_example"]))


def _tables_of_samples(sampled: Sequence[dict[str, Any]]) -> Iterator[str]:
    if not sampled:
        return
    rows = [{**s, **at, "rm": _rm(s, at["k"])} for s in sampled for at in s["at"]]
    columns = {
        "model": _model, "benchmark": _benchmark, "k": lambda r: r["k"], "pass@k": lambda r: _figure(r["pass"]),
        "maj@k": lambda r: _figure(r["maj"]),
    }  # fmt: skip
    if any(r["rm"] for r in rows):
        columns["RM@k"] = lambda r: _figure(r["rm"])
    yield from _section("Sampled answers", columns, rows)
    yield ""
    yield "Exact means over all subsets of k of a problem's answers (see docs/evaluation.md); pass@1 is the mean accuracy."
    for s in sampled:
        if len(s["seeds"]) > 1:
            each = ", ".join(f"{seed}: {value:.1%}" for seed, value in s["seeds"].items())
            yield f"Mean accuracy of {cell(s['model'])} on {cell(s['benchmark'])} by seed: {each}."


def _rm(sampled: dict[str, Any], k: int) -> dict[str, Any] | None:
    """RM@k of the first seed."""
    for table in sampled.get("reward_model", {}).values():
        return next((r["rm"] for r in table if r["k"] == k), None)
    return None


def _section(title: str, columns: dict[str, Column], rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from ("", f"## {title}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns))
    for row in rows:
        yield f"| {' | '.join(cell(column(row)) for column in columns.values())} |"


def _figure(figure: dict[str, Any] | None) -> str:
    return f"{figure['mean']:.1%} [{figure['low']:.1%}, {figure['high']:.1%}]" if figure else "-"


def _model(row: dict[str, Any]) -> str:
    return row["model"]


def _benchmark(row: dict[str, Any]) -> str:
    return row["benchmark"]


def _decoding(row: dict[str, Any]) -> str:
    return row["decoding"]


_FIGURES: dict[str, Column] = {
    "accuracy": lambda r: f"{r['accuracy']:.1%}", "95 % interval": lambda r: f"[{r['low']:.1%}, {r['high']:.1%}]",
    "problems": lambda r: r["problems"], "answers": lambda r: r["samples"],
}  # fmt: skip
_ACCURACY: dict[str, Column] = {
    "model": _model, "benchmark": _benchmark, "decoding": _decoding, **_FIGURES,
    "without an answer": lambda r: f"{r['no_answer']:.1%}", "cut off": lambda r: f"{r['truncated']:.1%}",
    "not judged": lambda r: r["unscored"], "every answer": lambda r: f"[file]({quote(r['answers'])})",
}  # fmt: skip
_GAIN: dict[str, Column] = {
    "model": _model, "benchmark": _benchmark, "decoding": _decoding,
    "difference": lambda r: f"{100 * r['difference']:+.1f} points",
    "95 % interval": lambda r: f"[{100 * r['low']:+.1f}, {100 * r['high']:+.1f}]",
    "lost": lambda r: len(r["only_first"]), "won": lambda r: len(r["only_second"]), "p": lambda r: p_value(r["p"]),
}  # fmt: skip


def _stages(plan: Plan, kind: str) -> list[Stage]:
    return [s for s in plan.stages if s.kind == kind]


def _rows(store: Store, stage: Stage, row: type[Any]) -> list[Any]:
    return read_rows(store.artefact(stage.kind, stage.key), row)
