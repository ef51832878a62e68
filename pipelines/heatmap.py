"""The balance surface as an SVG picture: temperatures across, thresholds upwards, the chosen point framed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_CELL_WIDTH, _CELL_HEIGHT, _LEFT, _TOP, _BOTTOM = 52, 20, 64, 34, 40
_LOW, _HIGH = (247, 251, 255), (8, 69, 148)  # light to dark blue: readable in grey and to the colour-blind


def heatmap(scores: Mapping[float, Sequence[float]], thresholds: Sequence[float], chosen: tuple[float, float]) -> str:
    """`scores`: by temperature, one for each threshold. A self-contained SVG document."""
    values = [v for column in scores.values() for v in column]
    low, span = min(values), max(max(values) - min(values), 1e-12)
    width = _LEFT + _CELL_WIDTH * len(scores) + 12
    bottom = _TOP + _CELL_HEIGHT * len(thresholds)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{bottom + _BOTTOM}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{width}" height="{bottom + _BOTTOM}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="13">balance score, best {max(values):.3f} at temperature {chosen[0]:g}, '
        f"threshold {chosen[1]:g}</text>",
    ]
    for i, (temperature, column) in enumerate(scores.items()):
        x = _LEFT + i * _CELL_WIDTH
        for j, score in enumerate(column):
            y = bottom - (j + 1) * _CELL_HEIGHT
            share = (score - low) / span
            frame = ' stroke="#d94801" stroke-width="2.5"' if (temperature, thresholds[j]) == chosen else ""
            parts.append(
                f'<rect x="{x + 1}" y="{y + 1}" width="{_CELL_WIDTH - 2}" height="{_CELL_HEIGHT - 2}" '
                f'fill="{_colour(share)}"{frame}/><text x="{x + _CELL_WIDTH / 2:g}" y="{y + 14}" text-anchor="middle" '
                f'fill="{"white" if share > 0.55 else "black"}">{score:.3f}</text>'
            )
        parts.append(f'<text x="{x + _CELL_WIDTH / 2:g}" y="{bottom + 15}" text-anchor="middle">{temperature:g}</text>')
    for j, threshold in enumerate(thresholds):
        y = bottom - j * _CELL_HEIGHT - 6
        parts.append(f'<text x="{_LEFT - 6}" y="{y}" text-anchor="end">{threshold:g}</text>')
    middle = _LEFT + _CELL_WIDTH * len(scores) / 2
    parts.append(f'<text x="{middle:g}" y="{bottom + 32}" text-anchor="middle">temperature</text>')
    parts.append(f'<text x="14" y="{(_TOP + bottom) / 2:g}" transform="rotate(-90 14 {(_TOP + bottom) / 2:g})" '
                 'text-anchor="middle">threshold</text>')  # fmt: skip
    return "\n".join([*parts, "</svg>"]) + "\n"


def _colour(share: float) -> str:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(_LOW, _HIGH, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"
