"""Memorisation scores of the models of a run: how much of what a model solves it no longer solves when perturbed.

Xie et al. 2024 (arXiv:2410.23123): over n puzzles with one perturbed version each,

    consistency ratio CR = solved in both versions / solved in the original version
    memorisation score LiMem = accuracy * (1 - CR) = solved in the original version only / n

The score is high when a model solves much and little of it survives a small change. A model that guesses has a score as
well, from luck that does not last; hence the same scores on puzzles that it has not seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.rows import Problem, ProblemScore
from configs.schema import Recipe
from pipelines.files import write_json, writing
from pipelines.plan import Plan
from pipelines.stage import Stage
from pipelines.statistics import wilson
from pipelines.store import Store, read_rows

_COLUMNS = ("model", "puzzles", "n", "accuracy", "variant", "its accuracy", "consistency ratio", "memorisation score")


def comparisons(recipe: Recipe) -> list[tuple[str, str, str]]:
    """(original, perturbed, variant): names of the benchmarks that are perturbed or reworded versions of another one."""
    benchmarks = recipe.evaluation.benchmarks
    return [
        (original.name, benchmark.name, variant)
        for benchmark in benchmarks if (variant := benchmark.source.variant)
        for original in benchmarks if original.source == benchmark.source.model_copy(update={"variant": None})
    ]  # fmt: skip


def compare(original: Mapping[str, bool], perturbed: Mapping[str, bool]) -> dict[str, Any]:
    """The figures of one model on puzzles and on their perturbed versions, both by the original's id.

    Intervals are Wilson's, 95 %: the score, too, is a share, of the puzzles solved whose version is not. The ratio of a
    model that solves nothing is None.
    """
    n, solved = len(original), sum(original.values())
    both = sum(right and perturbed[i] for i, right in original.items())
    right = sum(perturbed.values())
    only = sum(right and not perturbed[i] for i, right in original.items())
    return {
        "n": n,
        "solved": solved,
        "consistent": both,
        "accuracy": solved / n,
        "accuracy_interval": wilson(solved, n),
        "perturbed_accuracy": right / n,
        "perturbed_accuracy_interval": wilson(right, n),
        "consistency_ratio": both / solved if solved else None,
        "consistency_ratio_interval": wilson(both, solved) if solved else None,
        "score": only / n,
        "score_interval": wilson(only, n),
    }


def memorisation(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """A record for each model, set of puzzles and variant, from the greedy answers of a finished run."""
    scores = {s.label: s for s in plan.stages if s.kind == "score"}
    models = list(dict.fromkeys(label.split("/")[0] for label in scores))
    records = []
    for model in models:
        for original, perturbed, variant in comparisons(plan.recipe):
            before, after = (scores.get(f"{model}/{name}/greedy") for name in (original, perturbed))
            if before is None or after is None:  # `when: end`: this model is not measured on it
                continue
            versions = _by_original(after, store)
            figures = compare(_by_original(before, store), versions)
            records.append({"model": model, "puzzles": original, "variant": variant, **figures})
    return records


def _by_original(score: Stage, store: Store) -> dict[str, bool]:
    """Whether each puzzle was solved, by the id of its original."""
    rows: list[ProblemScore] = read_rows(store.artefact(score.kind, score.key), ProblemScore)
    problems = score.inputs["problems"]
    known: list[Problem] = read_rows(store.artefact(problems.kind, problems.key), Problem)
    original = {p.id: p.parents[0] if p.parents else p.id for p in known}
    return {original[r.problem]: r.correct > 0 for r in rows}


def report(plan: Plan, store: Store, folder: Path) -> list[str]:
    """Write memorisation.json and memorisation.md into the run folder; lines for the terminal. Nothing where no benchmark
    is a version of another one."""
    records = memorisation(plan, store)
    if not records:
        return []
    sources = {b.name: b.source.settings() for b in plan.recipe.evaluation.benchmarks}
    write_json(folder / "memorisation.json", {"model": plan.model.name, "puzzles": sources, "rows": records})
    cells = [_COLUMNS, *(_cells(r) for r in records)]
    with writing(folder / "memorisation.md") as temporary:
        temporary.write_text(_markdown(plan, cells))
    widths = [max(len(row[i]) for row in cells) for i in range(len(_COLUMNS))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return ["", *table, f"written: {folder}/memorisation.json and .md"]


def _cells(r: Mapping[str, Any]) -> tuple[str, ...]:
    ratio = "none solved" if r["consistency_ratio"] is None else _share(r["consistency_ratio"], r["consistency_ratio_interval"])
    low, high = r["score_interval"]
    return (
        r["model"], r["puzzles"], str(r["n"]), _share(r["accuracy"], r["accuracy_interval"]), r["variant"],
        _share(r["perturbed_accuracy"], r["perturbed_accuracy_interval"]), ratio, f"{r['score']:.3f} [{low:.3f}, {high:.3f}]",
    )


def _share(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.1%} [{interval[0]:.1%}, {interval[1]:.1%}]"


def _markdown(plan: Plan, cells: list[tuple[str, ...]]) -> str:
    header, *rows = ("| " + " | ".join(row) + " |" for row in cells)
    name = re.sub(r".*/(?=[^/]+$)", "", plan.model.name)
    return "\n".join([
        f"# Memorisation of {name}", "",
        "Consistency ratio: of the puzzles solved, the share whose variant is solved too. Memorisation score: accuracy times",
        "(1 - consistency ratio) (arXiv:2410.23123). Greedy decoding; Wilson's 95 % intervals.",
        "", header, "|" + "---|" * len(cells[0]), *rows, "",
    ])  # fmt: skip
