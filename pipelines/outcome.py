"""What came of a run: accuracies side by side."""

from __future__ import annotations

from configs.rows import ProblemScore
from pipelines.plan import Plan
from pipelines.results import accuracy
from pipelines.statistics import paired_difference
from pipelines.store import Store, read_rows


def accuracy_table(plan: Plan, store: Store) -> list[str]:
    """One line for each score stage, and the gain over the initial model on the same problems."""
    scores = [s for s in plan.stages if s.kind == "score"]
    if not scores:
        return []
    labels = [s.label.split("/") for s in scores]
    widths = [max(least, *map(len, column)) for least, column in zip((12, 14, 9), zip(*labels, strict=True), strict=True)]
    head = " ".join(f"{name:{w}}" for name, w in zip(("model", "benchmark", "decoding"), widths, strict=True))
    lines = ["", f"{head} {'accuracy':>9}  95% interval      problems  gain over initial"]
    first: dict[str, list[float]] = {}
    for stage, label in zip(scores, labels, strict=True):
        _, benchmark, decoding = label
        artefact = store.artefact(stage.kind, stage.key)
        rows: list[ProblemScore] = read_rows(artefact, ProblemScore)
        m = accuracy(rows)
        shares = [r.correct / r.samples for r in rows]
        gain = ""
        start = first.setdefault(f"{benchmark}/{decoding}", shares)
        if start is not shares:
            mean, low, high = paired_difference(start, shares, seed=0)
            gain = f"{100 * mean:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
        interval = f"[{m['low']:.1%}, {m['high']:.1%}]"
        where = " ".join(f"{name:{w}}" for name, w in zip(label, widths, strict=True))
        lines.append(f"{where} {m['accuracy']:>9.1%}  {interval:17} {m['problems']:>8}  {gain}")
    m = store.artefact(scores[0].kind, scores[0].key).manifest()["metrics"]
    lines.append(f"extraction: {m['mode']}; sampling: {m['sampling']}")
    return lines
