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


def svg(curves: Sequence[dict[str, Any]], width: int = 640, height: int = 300) -> str:
    """Value curves over relative place: right samples blue, wrong ones red with a ring at the pit; thick lines are means."""
    left, right, top, bottom = 44, width - 16, 34, height - 40
    kinds = {True: ("#1f77b4", "right samples"), False: ("#d62728", "wrong samples, ring: first pit")}

    def point(place: float, value: float) -> tuple[float, float]:
        return round(left + place * (right - left), 1), round(bottom - value * (bottom - top), 1)

    def line(places: Sequence[tuple[float, float]], style: str) -> str:
        return f'<polyline points="{" ".join(f"{x},{y}" for x, y in places)}" fill="none" {style}/>'

    thin, thick, rings, sums = [], [], [], {kind: dict[str, float]() for kind in kinds}
    for c in curves:
        colour, last = kinds[c["correct"]][0], max(1, len(c["points"]) - 1)
        values = [p["value"] for p in c["points"]]
        places = [point(i / last, v) for i, v in enumerate(values) if v is not None]
        thin.append(line(places, f'stroke="{colour}" stroke-opacity="0.2"'))
        for name, x in curve_sums(values, "all").items():
            sums[c["correct"]][name] = sums[c["correct"]].get(name, 0.0) + x
        if c["pit"] is not None:
            x, y = point((c["pit"] + 1) / last, values[c["pit"] + 1] or 0.0)
            rings.append(f'<circle cx="{x}" cy="{y}" r="4" fill="none" stroke="{colour}" stroke-opacity="0.5"/>')
    for kind, (colour, _) in kinds.items():
        if mean := mean_curve(sums[kind], "all"):
            thick.append(line([point(m["place"], m["value"]) for m in mean], f'stroke="{colour}" stroke-width="3"'))
    text = [
        f'<text x="{left - 6}" y="{point(0, v)[1] + 4}" text-anchor="end">{v:g}</text>'
        f'<path d="M{left},{point(0, v)[1]}H{right}" stroke="#ddd"/>'
        for v in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]  # fmt: skip
    text += [
        f'<text x="{left}" y="{bottom + 16}">prompt</text><text x="{right}" y="{bottom + 16}" text-anchor="end">end</text>',
        f'<text x="{(left + right) / 2}" y="{bottom + 30}" text-anchor="middle">place in the solution</text>',
        f'<text x="{left}" y="18" font-weight="bold">share of continuations that end right</text>',
        *(f'<text x="{right - 200 * (1 - i)}" y="18" text-anchor="end" fill="{colour}">{label}</text>'
          for i, (colour, label) in enumerate(kinds.values())),
    ]  # fmt: skip
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join([*text, *thin, *rings, *thick])}</svg>\n'
    )
