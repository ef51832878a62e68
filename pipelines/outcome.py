"""What came of a run: accuracies side by side."""

from __future__ import annotations

from typing import Any

_LABEL = ("model", "benchmark", "decoding")


def accuracy_table(found: dict[str, Any] | None) -> list[str]:
    """One line for each evaluation in a run's results (None: it has none), with the gain over the first model measured on
    the same problems."""
    if found is None:
        return []
    evaluations, gains = found["evaluations"], {_label(c): _gain(c) for c in found["comparisons"]}
    labels = [_label(e) for e in evaluations]
    widths = [max(least, *map(len, column)) for least, column in zip((12, 14, 9), zip(*labels, strict=True), strict=True)]
    first = next((c["with"] for c in found["comparisons"]), "initial")
    head = " ".join(f"{name:{w}}" for name, w in zip(_LABEL, widths, strict=True))
    lines = ["", f"{head} {'accuracy':>9}  95% interval      problems  gain over {first}"]
    for e, label in zip(evaluations, labels, strict=True):
        interval = f"[{e['low']:.1%}, {e['high']:.1%}]"
        where = " ".join(f"{name:{w}}" for name, w in zip(label, widths, strict=True))
        lines.append(f"{where} {e['accuracy']:>9.1%}  {interval:17} {e['problems']:>8}  {gains.get(label, '')}")
    lines.append(f"extraction: {evaluations[0]['mode']}; sampling: {evaluations[0]['sampling']}")
    return lines


def _label(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in _LABEL)


def _gain(comparison: dict[str, Any]) -> str:
    mean, low, high = (100 * comparison[name] for name in ("difference", "low", "high"))
    return f"{mean:+.1f} points [{low:+.1f}, {high:+.1f}]"
