"""Value curves as data for a report: one sample's, and means over samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_gen.step_values import Chain, Curve, Interval

_BINS = 10


def summary(chain: Chain, found: Curve, k: int, interval: Interval) -> dict[str, Any]:
    """One sample's curve: for the prompt and after each step, rate with interval, best-of-k with interval, counts.

    The interval of best-of-k is that of the rate, mapped by p -> 1 - (1 - p)^k.
    """
    points = []
    for state, (t, value, best) in enumerate(zip(found.tallies, found.values, found.best, strict=True)):
        low, high = interval(t.successes, t.judged) if t.judged else (value, value)
        points.append({
            "text": chain.spans[state - 1].text if state else "", "value": value, "low": low, "high": high, "best_of": best,
            "best_of_low": _best(low, k), "best_of_high": _best(high, k), "successes": t.successes, "rollouts": t.judged,
        })  # fmt: skip
    return {
        "sample": chain.sample.id, "problem": chain.sample.problem, "correct": chain.correct, "pit": found.pit,
        "spurious": found.spurious, "points": points,
    }  # fmt: skip


def _best(p: float | None, k: int) -> float | None:
    return None if p is None else 1.0 - (1.0 - p) ** k


def curve_sums(values: Sequence[float | None], kind: str) -> dict[str, float]:
    """One curve's part in the mean curve of its kind: value and count for each bin of relative place."""
    sums: dict[str, float] = {}
    for i, v in enumerate(values):
        if v is not None:
            place = round(_BINS * i / max(1, len(values) - 1))
            for name, x in ((f"curve/{kind}/{place}/sum", v), (f"curve/{kind}/{place}/count", 1)):
                sums[name] = sums.get(name, 0.0) + x
    return sums


def mean_curve(sums: Mapping[str, float], kind: str) -> list[dict[str, float]]:
    """Mean value by relative place (0: the prompt, 1: the end), in bins that hold something, with their counts."""
    names = [(p, f"curve/{kind}/{p}/") for p in range(_BINS + 1)]
    return [
        {"place": p / _BINS, "value": round(sums[f"{n}sum"] / count, 4), "count": int(count)}
        for p, n in names if (count := sums.get(f"{n}count", 0))
    ]  # fmt: skip


def svg(curves: Sequence[dict[str, Any]], width: int = 640, height: int = 240) -> str:
    """Value curves drawn over relative place: right samples blue, wrong ones red with a ring at the pit."""
    pad = 24

    def point(place: float, value: float) -> tuple[float, float]:
        return round(pad + place * (width - 2 * pad), 1), round(height - pad - value * (height - 2 * pad), 1)

    shapes = []
    for c in curves:
        colour, last = ("#1f77b4" if c["correct"] else "#d62728"), max(1, len(c["points"]) - 1)
        known = [(i, p["value"]) for i, p in enumerate(c["points"]) if p["value"] is not None]
        places = [point(i / last, v) for i, v in known]
        line = " ".join(f"{x},{y}" for x, y in places)
        shapes.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-opacity="0.35"/>')
        if c["pit"] is not None:
            x, y = point((c["pit"] + 1) / last, c["points"][c["pit"] + 1]["value"] or 0.0)
            shapes.append(f'<circle cx="{x}" cy="{y}" r="4" fill="none" stroke="{colour}"/>')
    left, bottom = point(0.0, 0.0)
    right, top = point(1.0, 1.0)
    axes = f'<path d="M{left},{top}V{bottom}H{right}" fill="none" stroke="#444"/>'
    labels = "".join(
        f'<text x="{x}" y="{y}" font-size="10" text-anchor="middle">{t}</text>'
        for x, y, t in ((left - 12, bottom, "0"), (left - 12, top + 4, "1"), (left, bottom + 14, "prompt"),
                        (right - 8, bottom + 14, "end"))
    )  # fmt: skip
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
        f"{axes}{labels}{''.join(shapes)}</svg>\n"
    )
