"""`ratchet contamination`: what the training rows of a finished run share with evaluation sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from configs.errors import InputError
from configs.evaluation_section import SourceSection
from configs.rows import Example, Group, Pair, Problem, Row
from data_gen.overlap import CONTAINED, Overlap, Trained, overlaps, solution_words
from data_gen.problems import load_problems
from pipelines.compare import shortened
from pipelines.evaluation import benchmark_sources
from pipelines.runfolder import RunFolder
from pipelines.store import Artefact, planned, read_rows

_TRAINING = ("train", "reward_train")


def check_run(run: Path, benchmarks: str | None, ngram: int = 13) -> dict[str, Any]:
    """Overlaps of everything that the run's training stages read with each benchmark.

    `benchmarks`: names or .jsonl files, separated by commas; None: those of the run's recipe. Raises InputError for a
    run that is not finished, ConfigError for an unknown benchmark.
    """
    folder = RunFolder.existing(run)
    recipe = folder.recipe()
    if benchmarks is not None:
        sources = benchmark_sources(benchmarks, None)
    else:
        sources = [b.model_dump() for b in recipe.evaluation.benchmarks]
        if not sources:
            raise InputError(f"{run} evaluates nothing: say what to compare with, e.g. --benchmarks gsm8k,math500")
    evaluation = {b["name"]: _load(b["source"], folder) for b in sources}
    rows, trained = _trained(folder)
    began = recipe.model.name if "@" in recipe.model.name else None
    return {
        "run": str(run), "rows": rows, "began_from": began, "ngram": ngram, "contained_from": CONTAINED,
        "benchmarks": {name: _summary(p, overlaps(trained, p, ngram), ngram) for name, p in evaluation.items()},
    }


def lines(found: dict[str, Any], worst: int) -> list[str]:
    """The result as text: counts for each benchmark, and its worst overlaps."""
    counts = ", ".join(f"{count} rows of {label}" for label, count in found["rows"].items())
    shared = f"share {found['ngram']} words"
    result = [f"trained on: {counts}", "", f"{'benchmark':14} {'part':9} {'checked':>8} {'contained':>10} {shared:>15}"]
    for name, parts in found["benchmarks"].items():
        for part in ("question", "solution"):
            c = parts[part]
            result.append(f"{name:14} {part:9} {c['checked']:>8} {c['contained']:>10} {c['touched']:>15}")
    result.append(f"contained: at least {found['contained_from']:.0%} of the words stand in one training row")
    for name, parts in found["benchmarks"].items():
        for o in parts["overlaps"][:worst]:
            where = f"{name}: {o['share']:4.0%} of the {o['part']} of {o['problem']} in {o['row']}"
            result.append(f"{where}: {shortened(o['shared'], 100)}")
    if found["began_from"]:
        result.append(f"the run began from {found['began_from']}: check that run too")
    return result


def _load(source: dict[str, Any], folder: RunFolder) -> list[Problem]:
    if source["source"] == "validation":  # what the run itself has held out
        plan = folder.plan()
        return [p for s in plan["stages"] if s["kind"] == "validation" for p in read_rows(_finished(folder, plan, s), Problem)]
    return load_problems(**SourceSection.model_validate(source).settings())


def _summary(problems: Sequence[Problem], found: Sequence[Overlap], ngram: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for part in ("question", "solution"):
        mine = [o for o in found if o.part == part]
        result[part] = {
            "checked": len(problems) if part == "question" else sum(bool(solution_words(p, ngram)) for p in problems),
            "contained": sum(o.share >= CONTAINED for o in mine), "touched": len(mine),
        }
    fields = Overlap.__struct_fields__
    return {**result, "overlaps": [{name: getattr(o, name) for name in fields} for o in found]}


def _trained(folder: RunFolder) -> tuple[dict[str, int], list[Trained]]:
    """Rows by the label of the stage that made them, and their texts."""
    from transformers import AutoTokenizer

    plan = folder.plan()
    stages = {s["key"]: s for s in plan["stages"]}
    read = [stages[key] for s in plan["stages"] if s["kind"] in _TRAINING for key in s["inputs"].values() if key in stages]
    if not any(s["kind"] in _TRAINING for s in plan["stages"]):
        raise InputError(f"{folder.path} trains nothing: there are no training rows to check")
    model = Path(plan["model"]["path"])
    if not model.is_dir():
        raise InputError(f"the tokenizer of {folder.path} is gone with {model}: ratchet resume {folder.path} brings it back")
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    cores = _cores(plan)
    counts: dict[str, int] = {}
    texts: list[Trained] = []
    for stage in read:
        artefact = _finished(folder, plan, stage)
        row = _row_type(artefact)
        if row is not None and stage["label"] not in counts:
            rows = read_rows(artefact, row)
            counts[stage["label"]] = len(rows)
            texts += [Trained(r.id, text, cores.get(_problem(r))) for r in rows for text in _texts(r, tokenizer)]
    return counts, texts


def _finished(folder: RunFolder, plan: dict[str, Any], stage: dict[str, Any]) -> Artefact:
    artefact = planned(plan, stage)
    if not artefact.done:
        raise InputError(f"{folder.path}: stage {stage['label']} is not finished: ratchet resume {folder.path}")
    return artefact


def _row_type(artefact: Artefact) -> type[Row] | None:
    """Type of the rows that a training stage reads, None where it does not learn from their texts."""
    parts = sorted(artefact.path.glob("part-*.parquet"))
    name = (pq.read_schema(parts[0]).metadata or {}).get(b"row", b"").decode() if parts else ""
    return {"Example": Example, "Pair": Pair, "Problem": Problem, "Group": Group}.get(name)


def _problem(row: Any) -> str:
    return row.id if isinstance(row, Problem) else row.problem


def _texts(row: Any, tokenizer: Any) -> Iterator[str]:
    """What the model read and learned: decoded from the token ids, not from the text beside them.

    Online training keeps none of its samples: there the questions are all there is.
    """

    def text(*ids: list[int]) -> str:
        return tokenizer.decode([i for part in ids for i in part], skip_special_tokens=True)

    if isinstance(row, Problem):
        yield row.question
    elif isinstance(row, Pair):
        yield text(row.context_ids, row.chosen_ids)
        yield text(row.context_ids, row.rejected_ids)
    else:
        yield text(row.prompt_ids, row.token_ids)


def _cores(plan: dict[str, Any]) -> dict[str, str]:
    """Cores of generated problems by id."""
    found: dict[str, str] = {}
    for stage in plan["stages"]:
        artefact = planned(plan, stage)
        if stage["kind"] in ("problems", "decontaminate") and artefact.done:
            found |= {p.id: p.core for p in read_rows(artefact, Problem) if p.core is not None}
    return found
