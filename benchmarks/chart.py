"""Line charts of results, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.report.chart import ticks as covering

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b")


@dataclass(frozen=True)
class Point:
    """A point of a line; `low` and `high` are its interval, `label` is written above it."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""


def ticks(low: float, high: float) -> list[float]:
    """Those of the report's round numbers that lie between `low` and `high`."""
    return [value for value in covering(low, high) if low <= value <= high]


def _free(x: float, y: float, taken: Sequence[tuple[float, float]]) -> float | None:
    """The height of a label above a point, below it where another one is in the way, or None where one is there too."""
    return next((at for at in (y - 7, y + 16) if all(abs(x - u) > 45 or abs(at - v) > 10 for u, v in taken)), None)


def chart(
    title: str, lines: Mapping[str, Sequence[Sequence[Point]]], end: str, percent: bool = False,
    width: int = 640, height: int = 280,
) -> str:  # fmt: skip
    """Lines from x = 0, those of one name in one colour. `end`: what is written at the right end of the x axis."""
    left, right, top, bottom = 44, width - 16, 34, height - 34
    points = [p for each in lines.values() for line in each for p in line]
    last = max(p.x for p in points) or 1.0
    low = min(p.y if p.low is None else p.low for p in points) - 0.02
    high = max(p.y if p.high is None else p.high for p in points) + 0.02
    low = max(0.0, low) if percent else low

    def place(x: float, y: float) -> tuple[float, float]:
        return round(left + x / last * (right - left), 1), round(bottom - (y - low) / (high - low) * (bottom - top), 1)

    parts = [f'<text x="{left}" y="18" font-weight="bold">{title}</text>']
    taken: list[tuple[float, float]] = []
    for value in ticks(low, high):
        y = place(0, value)[1]
        written = f"{100 * value:.3g}%" if percent else f"{value:.3g}"
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{written}</text>')
        parts.append(f'<path d="M{left},{y}H{right}" stroke="#ddd"/>')
    for i, (name, each) in enumerate(lines.items()):
        colour = COLOURS[i % len(COLOURS)]
        for line in each:
            path = " ".join(f"{x},{y}" for x, y in (place(p.x, p.y) for p in line))
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            for p in line:
                x, y = place(p.x, p.y)
                if p.low is not None and p.high is not None:
                    ends = f"M{x},{place(p.x, p.low)[1]}V{place(p.x, p.high)[1]}"
                    parts.append(f'<path d="{ends}" stroke="{colour}" stroke-opacity="0.35"/>')
                    parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
                if p.label and (at := _free(x, y, taken)) is not None:
                    taken.append((x, at))
                    anchor = "end" if x > right - 25 else "start" if x < left + 25 else "middle"
                    parts.append(f'<text x="{x}" y="{at:.1f}" text-anchor="{anchor}" fill="{colour}">{p.label}</text>')
        parts.append(f'<text x="{right - 80 * i}" y="18" text-anchor="end" fill="{colour}">{name}</text>')
    parts.append(f'<text x="{right}" y="{bottom + 18}" text-anchor="end">{end}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )
