"""Tables of pass@k, maj@k, RM@k and weighted votes over problems, with 95 % intervals clustered by problem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from configs.keys import derive_seed
from pipelines.statistics import bootstrap_mean, clustered
from rewards.shaping import sigmoid
from rewards.voting import best_at_k, majority_at_k, pass_at_k, powers, weighted_at_k

NAMES = ("pass", "maj", "rm", "weighted")


@dataclass(frozen=True)
class Answers:
    """The samples of one problem: right (1.0) or not, the number of the answer that each gives, and their scores."""

    problem: str
    correct: list[float]
    groups: list[int | None]
    scores: list[float] | None


def table(problems: Sequence[Answers], weight: Callable[[float], float], seed: int = 0) -> list[dict[str, Any]]:
    """A record for each k = 1, 2, 4, ..., n: `k`, `problems` (those with at least k samples), and `pass`, `maj`, `rm`,
    `weighted`, each {mean, low, high} or None where it cannot be told (no scores; too many subsets). `rm_gain` is RM@k
    less maj@k of the same problems."""
    records = []
    for k in powers(max((len(p.correct) for p in problems), default=1)):
        mine = [p for p in problems if len(p.correct) >= k]
        columns: dict[str, list[float | None]] = {
            "pass": [pass_at_k(p.correct, k) for p in mine],
            "maj": [majority_at_k(p.correct, p.groups, k) for p in mine],
            "rm": [best_at_k(p.correct, p.scores, k) if p.scores else None for p in mine],
            "weighted": [
                weighted_at_k(p.correct, p.groups, [weight(s) for s in p.scores], k) if p.scores else None for p in mine
            ],
        }
        pairs = zip(columns["rm"], columns["maj"], strict=True)
        columns["rm_gain"] = [rm - maj if rm is not None and maj is not None else None for rm, maj in pairs]
        count = sum(len(p.correct) for p in mine)
        figures = {
            name: _mean(values, count if name in NAMES else 0, derive_seed(seed, name, k)) for name, values in columns.items()
        }
        records.append({"k": k, "problems": len(mine), **figures})
    return records


def sigmoid_weight(alpha: float) -> Callable[[float], float]:
    """sigmoid(alpha * score): any score becomes a positive weight."""
    return lambda score: sigmoid(alpha * score)


def lines(records: Sequence[dict[str, Any]]) -> list[str]:
    """The table as text: points with their intervals."""
    titles = "".join(f"{title:24}" for title in ("pass@k", "maj@k", "RM@k", "weighted vote@k"))
    result = [f"{'k':>5} {'problems':>8}  {titles}".rstrip()]
    for r in records:
        cells = "".join(f"{_cell(r[name]):24}" for name in NAMES)
        result.append(f"{r['k']:>5} {r['problems']:>8}  {cells}".rstrip())
    return result


def _mean(values: Sequence[float | None], answers: int, seed: int) -> dict[str, float] | None:
    """Mean over problems, with its clustered interval; for differences (0 answers) with a bootstrap interval."""
    known = [v for v in values if v is not None]
    if not known or len(known) < len(values):
        return None
    low, high = clustered(known, answers) if answers else bootstrap_mean(known, seed)
    return {"mean": sum(known) / len(known), "low": low, "high": high}


def _cell(figure: dict[str, float] | None) -> str:
    return f"{figure['mean']:.1%} [{figure['low']:.1%}, {figure['high']:.1%}]" if figure else "-"
