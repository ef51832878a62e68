"""Charts as inline SVG: lines with intervals, bars, stacked bars, points with intervals, heat maps.

Colours come from classes of the page's style sheet (s0 ... s7 for series, h0 ... h9 for heat), so that light and dark
suit both. Series differ by marker and dash as well as by colour. Every mark has a <title> that a pointer shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from pipelines.report.html import join, tag
from pipelines.report.numbers import MINUS, number

SERIES = 8
_LEFT, _RIGHT, _TOP, _BOTTOM = 74.0, 16.0, 14.0, 46.0
_LETTER = 7.2  # width of a letter at 12 px, a wide font's
_ASIDE = 7.0  # between series at the same place
_SECOND = "", " second", " third"
_MARK = 16  # letters of a mark on a scale of names
_SMALLEST = 1e-290  # below it, steps lose digits or vanish
_HITS = 120  # marks with a title of their own on one line; of more, evenly spaced ones
Format = Callable[[float], str]


class Point(NamedTuple):
    """`low` and `high` bound an interval; `note` goes into the title of the mark; `ring` draws attention to it."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    note: str = ""
    ring: bool = False


class Line(NamedTuple):
    """A series; `style` chooses colour, marker and dash. A `second` one (1, 2) goes with the series of the same style."""

    name: str
    points: Sequence[Point]
    style: int
    second: int = 0


class Bar(NamedTuple):
    """`mark` is another value to compare with, drawn as a tick."""

    label: str
    value: float
    style: int = 0
    mark: float | None = None
    note: str = ""


class Interval(NamedTuple):
    """A value with its interval, on a line of its own."""

    label: str
    value: float
    low: float
    high: float
    style: int = 0


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values (1, 2, 2.5 or 5 times a power of ten) that cover low to high in about `count` steps.

    Values that differ by rounding alone (or by less than a float holds with all its digits) get the ticks of one value.
    """
    largest = max(abs(low), abs(high))
    if not high - low > max(largest, _SMALLEST) * 1e-9:
        around = largest / 2 if largest > _SMALLEST else 0.5
        low, high = low - around, high + around
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


class Frame:
    """The area of a chart with two linear axes, its grid and labels."""

    def __init__(
        self, size: tuple[float, float], x: tuple[float, float], y: tuple[float, float], slant: float = 0.0
    ) -> None:
        self.width, self.height = size[0], size[1] + slant
        self._x, self._y, self._slant = x, y, slant
        self.bottom = self.height - _BOTTOM - slant

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a value lies in the picture."""
        across = (x - self._x[0]) / ((self._x[1] - self._x[0]) or 1.0)
        up = (y - self._y[0]) / ((self._y[1] - self._y[0]) or 1.0)
        inner_width, inner_height = self.width - _LEFT - _RIGHT, self.bottom - _TOP
        return round(_LEFT + across * inner_width, 1), round(_TOP + (1 - up) * inner_height, 1)

    def axes(
        self, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]], x_label: str, y_label: str
    ) -> list[Markup]:
        """Grid lines, tick labels and axis labels."""
        bottom = self.bottom
        parts = []
        for value, text in y_ticks:
            y = self.at(self._x[0], value)[1]
            parts.append(tag("path", d=f"M{_LEFT},{y}H{self.width - _RIGHT}", class_="grid"))
            parts.append(tag("text", text, x=_LEFT - 8, y=y + 4, class_="end"))
        for value, text in x_ticks:
            x = self.at(value, self._y[0])[0]
            parts.append(tag("path", d=f"M{x},{bottom}v5", class_="axis"))
            turned = f"rotate(-30 {x} {bottom + 17})" if self._slant else None
            shown, place = _clip(text, _MARK), (x + 4 if turned else x, bottom + (17 if turned else 21))
            parts.append(tag("text", shown, x=place[0], y=place[1], class_="end" if turned else "mid", transform=turned))
        parts.append(tag("path", d=f"M{_LEFT},{bottom}H{self.width - _RIGHT}", class_="axis"))
        parts.append(tag("text", x_label, x=(_LEFT + self.width - _RIGHT) / 2, y=self.height - 6, class_="mid label"))
        middle = (_TOP + bottom) / 2
        parts.append(tag("text", y_label, x=13, y=middle, transform=f"rotate(-90 13 {middle})", class_="mid label"))
        return parts


def svg(title: str, size: tuple[float, float], parts: Sequence[Markup], class_: str = "chart") -> Markup:
    """The picture, scaled to the width that it finds."""
    box = f"0 0 {size[0]:g} {size[1]:g}"
    return tag("svg", tag("title", title), *parts, viewBox=box, role="img", aria_label=title, class_=class_)


def line_chart(
    title: str, lines: Sequence[Line], *, x_label: str, y_label: str, form: Format = number,
    x_ticks: Sequence[tuple[float, str]] | None = None, y_range: tuple[float, float] | None = None,
    size: tuple[float, float] = (640.0, 300.0), markers: bool = True,
) -> Markup:  # fmt: skip
    """Lines over a numeric axis, with error bars where points have intervals. Values that are not finite are left out.
    The axis goes below zero only for values that do, whatever an interval says; marks of whole numbers are whole."""
    drawn = [line._replace(points=[p for p in line.points if math.isfinite(p.y) and math.isfinite(p.x)]) for line in lines]
    everything = [p for line in drawn for p in line.points]
    if not everything:
        return svg(title, size, [tag("text", "no finite values", x=size[0] / 2, y=size[1] / 2, class_="mid")])
    xs = [p.x for p in everything]
    bounds = [b for p in everything for b in (p.low, p.y, p.high) if b is not None and math.isfinite(b)]
    y_values = ticks(*(y_range or _bounds([p.y for p in everything], bounds)))
    x_values = list(x_ticks) if x_ticks is not None else [(v, number(v)) for v in _steps(xs)]
    x_axis = (min(v for v, _ in x_values), max(v for v, _ in x_values))
    if x_ticks is not None:  # places on a scale of names: leave room beside the first and the last
        room = max(0.4, 0.04 * (x_axis[1] - x_axis[0]))
        x_axis = (x_axis[0] - room, x_axis[1] + room)
    frame = Frame(size, x_axis, (y_values[0], y_values[-1]), _slant(size[0], x_values) if x_ticks is not None else 0.0)
    size = frame.width, frame.height
    parts = frame.axes(x_values, [(v, _tick(v, y_values, form)) for v in y_values], x_label, y_label)
    for i, line in enumerate(drawn):
        # over named places, so that intervals do not cover each other
        aside = _ASIDE * (i - (len(drawn) - 1) / 2) if x_ticks is not None else 0.0
        parts += _line(frame, line, form, markers, aside)
    legend = _legend(drawn, markers) if len(drawn) > 1 else None
    return join([legend, svg(title, size, parts)])


def _bounds(values: Sequence[float], bounds: Sequence[float]) -> tuple[float, float]:
    """Least and most of an axis."""
    low, high = min(bounds), max(bounds)
    if min(values) >= 0:
        low, high = max(0.0, low), high or 1.0
    return low, high


def _steps(xs: Sequence[float]) -> list[float]:
    """Marks of a numeric axis."""
    marks = ticks(min(xs), max(xs), 6)
    return [v for v in marks if v == int(v)] if all(x == int(x) for x in xs) else marks


def _tick(value: float, values: Sequence[float], form: Format) -> str:
    """A tick's text; small numbers are written out beside larger ones."""
    if form is number and max(map(abs, values)) >= 1e-3 > abs(value) > 0:
        return f"{value:.6f}".rstrip("0").replace("-", MINUS)
    return form(value)


def _slant(width: float, marks: Sequence[tuple[float, str]]) -> float:
    """How much higher the picture must be for marks that would run into each other, and so are slanted; 0: they have room."""
    longest = max((len(_clip(text, _MARK)) for _, text in marks), default=0)
    across = (width - _LEFT - _RIGHT) / max(1, len(marks))
    return 0.0 if longest * _LETTER < across else 0.5 * _LETTER * longest


def _line(frame: Frame, line: Line, form: Format, markers: bool, aside: float) -> list[Markup]:
    style = _style(line)
    places = [(round(x + aside, 1), y) for x, y in (frame.at(p.x, p.y) for p in line.points)]
    parts = []
    if len(places) > 1:
        path = "M" + "L".join(f"{x},{y}" for x, y in places)
        parts.append(tag("path", d=path, class_=f"line {style}"))
    every = max(1, math.ceil(len(places) / _HITS))
    for i, (p, (x, y)) in enumerate(zip(line.points, places, strict=True)):
        if p.low is not None and p.high is not None:
            top, bottom = frame.at(p.x, p.high)[1], frame.at(p.x, p.low)[1]
            parts.append(tag("path", d=f"M{x - 4},{top}h8M{x},{top}V{bottom}M{x - 4},{bottom}h8", class_=f"error {style}"))
        if markers:
            parts.append(_marker(x, y, line.style, line.second))
        if p.ring:
            parts.append(tag("circle", cx=x, cy=y, r=7, class_="ring"))
        if i % every == 0:
            between = f" [{form(p.low)}, {form(p.high)}]" if p.low is not None and p.high is not None else ""
            told = p.note or f"{line.name}: {form(p.y)}{between}"
            parts.append(tag("circle", tag("title", told), cx=x, cy=y, r=9, class_="hit"))
    return parts


def _style(line: Line) -> str:
    return f"s{line.style % SERIES}{_SECOND[line.second]}"


def _marker(x: float, y: float, style: int, second: int = 0) -> Markup:
    """A filled shape that tells series apart without colour."""
    name, r = f"dot s{style % SERIES}{_SECOND[second]}", 4.2
    shapes = (
        None, f"M{x - r},{y - r}h{2 * r}v{2 * r}h{-2 * r}Z", f"M{x},{y - r - 1}l{r + 1},{2 * r}h{-2 * r - 2}Z",
        f"M{x},{y - r - 1}l{r + 1},{r + 1}l{-r - 1},{r + 1}l{-r - 1},{-r - 1}Z",
    )  # fmt: skip
    shape = shapes[style % len(shapes)]
    return tag("path", d=shape, class_=name) if shape else tag("circle", cx=x, cy=y, r=r, class_=name)


def _legend(lines: Sequence[Line], markers: bool) -> Markup:
    items = []
    for line in lines:
        sign = [tag("path", d="M1,7H25", class_=f"line {_style(line)}")]
        sign += [_marker(13, 7, line.style, line.second)] if markers else []
        items.append(tag("li", tag("svg", *sign, viewBox="0 0 26 14", aria_hidden="true"), line.name))
    return tag("ul", *items, class_="legend")


def bar_chart(
    title: str, bars: Sequence[Bar], form: Format = number, mark_name: str = "", legend: Sequence[tuple[str, int]] = ()
) -> Markup:
    """Horizontal bars with their values; the mark of a bar is a tick across it. `legend`: names of the styles."""
    label_width, width, row = _label_width([b.label for b in bars]), 640.0, 24.0
    most = max([v for b in bars for v in (b.value, b.mark or 0.0)], default=0.0) or 1.0
    scale = (width - label_width - 96) / most
    parts = []
    for i, b in enumerate(bars):
        y = 6 + i * row
        length = max(1.0, b.value * scale)
        told = b.note or f"{b.label}: {form(b.value)}"
        parts.append(tag("text", _clip(b.label), tag("title", b.label), x=label_width - 8, y=y + 14, class_="end"))
        bar = {"x": label_width, "y": y + 3, "width": round(length, 1), "height": row - 8}
        parts.append(tag("rect", tag("title", told), **bar, class_=f"bar s{b.style % SERIES}"))
        end = length
        if b.mark is not None:
            at = round(label_width + b.mark * scale, 1)
            end = max(length, b.mark * scale)
            parts.append(tag("path", tag("title", f"{mark_name}: {form(b.mark)}"), d=f"M{at},{y}v{row - 2}", class_="mark"))
        parts.append(tag("text", form(b.value), x=round(label_width + end + 7, 1), y=y + 14, class_="value"))
    return join([_swatches(legend) if legend else None, svg(title, (width, 12 + row * len(bars)), parts)])


def stacked_chart(title: str, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], styles: dict[str, int]) -> Markup:
    """Shares of a whole as one bar a row; `styles` gives the style by name, in the order of the legend."""
    label_width, width, height = _label_width([label for label, _ in rows]), 640.0, 26.0
    parts = []
    for i, (label, shares) in enumerate(rows):
        y, x = 4 + i * height, label_width
        whole = sum(v for _, v in shares) or 1.0
        parts.append(tag("text", _clip(label), tag("title", label), x=label_width - 8, y=y + 16, class_="end"))
        for name, value in sorted(shares, key=lambda s: list(styles).index(s[0])):
            w = (width - label_width - 4) * value / whole
            told = f"{label}, {name}: {number(value)} of {number(whole)} ({value / whole:.1%})"
            box = {"x": round(x, 1), "y": y + 3, "width": round(w, 1), "height": height - 8}
            parts.append(tag("rect", tag("title", told), **box, class_=f"bar edge s{styles[name] % SERIES}"))
            if w > 12 + _LETTER * len(f"{value / whole:.0%}"):
                parts.append(tag("text", f"{value / whole:.0%}", x=round(x + w / 2, 1), y=y + 16, class_="mid inside"))
            x += w
    names = [(name, style) for name, style in styles.items() if any(n == name for _, s in rows for n, _ in s)]
    return join([_swatches(names), svg(title, (width, 8 + height * len(rows)), parts)])


def _swatches(names: Sequence[tuple[str, int]]) -> Markup:
    def box(style: int) -> Markup:
        rect = tag("rect", width=12, height=12, class_=f"bar s{style % SERIES}")
        return tag("svg", rect, viewBox="0 0 12 12", aria_hidden="true", class_="swatch")

    return tag("ul", *(tag("li", box(style), name) for name, style in names), class_="legend")


def interval_chart(
    title: str, rows: Sequence[Interval], *, x_label: str, form: Format = number, reference: float | None = None,
    width: float = 640.0,
) -> Markup:  # fmt: skip
    """Values with their intervals, one under the other; `reference` is a vertical line to compare with."""
    row, label_width = 26.0, _label_width([r.label for r in rows])
    ends = [v for r in rows for v in (r.low, r.high, r.value)] + ([reference] if reference is not None else [])
    marks = ticks(min(ends), max(ends))
    bottom = 8 + row * len(rows)

    def place(v: float) -> float:
        return round(label_width + (v - marks[0]) / (marks[-1] - marks[0]) * (width - label_width - 24), 1)

    parts = []
    for v in marks:
        parts.append(tag("path", d=f"M{place(v)},4V{bottom}", class_="grid"))
        parts.append(tag("text", form(v), x=place(v), y=bottom + 16, class_="mid"))
    if reference is not None:
        parts.append(tag("path", d=f"M{place(reference)},4V{bottom}", class_="reference"))
    for i, r in enumerate(rows):
        y, x = 8 + row * i + row / 2, place(r.value)
        told = f"{r.label}: {form(r.value)} [{form(r.low)}, {form(r.high)}]"
        parts.append(tag("text", _clip(r.label), tag("title", r.label), x=label_width - 10, y=y + 4, class_="end"))
        bar = f"M{place(r.low)},{y - 4}v8M{place(r.low)},{y}H{place(r.high)}M{place(r.high)},{y - 4}v8"
        parts += [tag("path", d=bar, class_=f"error s{r.style % SERIES}"), _marker(x, y, r.style)]
        parts.append(tag("circle", tag("title", told), cx=x, cy=y, r=10, class_="hit"))
    parts.append(tag("text", x_label, x=(label_width + width) / 2, y=bottom + 36, class_="mid label"))
    return svg(title, (width, bottom + 42), parts)


def heat_map(
    title: str, columns: Sequence[str], rows: Sequence[str], values: Sequence[Sequence[float | None]], *,
    x_label: str, y_label: str, chosen: tuple[int, int] | None = None, form: Format = number, below: Sequence[str] = (),
) -> Markup:  # fmt: skip
    """`values[row][column]`, the first row at the top; `chosen` (row, column) is framed. Darker is more in light mode.
    `below`: a remark under each column's name."""
    known = [v for row in values for v in row if v is not None and math.isfinite(v)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    left, cell_height, width = 22 + _label_width(rows), 24.0, 640.0
    cell_width = min(90.0, (width - left - 12) / max(1, len(columns)))
    bottom = 8 + cell_height * len(rows)
    parts: list[Markup] = []
    frames: list[Markup] = []
    for i, name in enumerate(rows):
        y = 8 + cell_height * i
        parts.append(tag("text", name, x=left - 8, y=y + 16, class_="end"))
        for j, column in enumerate(columns):
            v, x = values[i][j], left + cell_width * j
            if v is None:
                continue
            step = min(9, int(10 * (v - low) / ((high - low) or 1.0)))
            told = f"{x_label} {column}, {y_label} {name}: {form(v)}"
            box = {"x": round(x + 1, 1), "y": y + 1, "width": round(cell_width - 2, 1), "height": cell_height - 2}
            parts.append(tag("rect", tag("title", told), **box, class_=f"heat h{step}"))
            if cell_width >= 40:
                middle = {"x": round(x + cell_width / 2, 1), "y": y + 16}
                parts.append(tag("text", form(v), **middle, class_=f"mid {'on' if step > 4 else 'off'}"))
            if chosen == (i, j):
                frames.append(tag("rect", **box, class_="chosen"))
    for depth, texts in ((16, columns), (32, below)):
        for j, text in enumerate(texts):
            parts.append(tag("text", text, x=round(left + cell_width * (j + 0.5), 1), y=bottom + depth, class_="mid"))
    end = bottom + (18 if below else 0)
    middle = max(bottom / 2, 36.0)  # the label needs its length even beside a single row
    across = left + cell_width * len(columns) / 2
    parts.append(tag("text", x_label, x=round(across, 1), y=end + 36, class_="mid label"))
    parts.append(tag("text", y_label, x=14, y=middle, transform=f"rotate(-90 14 {middle})", class_="mid label"))
    return svg(title, (width, end + 42), parts + frames)


def thinned(points: Sequence[Point], most: int = 160) -> tuple[list[Point], int]:
    """Means of equal runs of points, so that at most `most` are left; and how many points went into each."""
    size = math.ceil(len(points) / most) or 1
    if size == 1:
        return list(points), 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [Point(g[-1].x, sum(p.y for p in g) / len(g)) for g in groups], size


def _label_width(labels: Sequence[str]) -> float:
    """Room for the labels left of bars; none for empty ones."""
    longest = max((len(_clip(label)) for label in labels), default=0)
    return 16 + _LETTER * longest if longest else 2.0


def _clip(text: str, length: int = 34) -> str:
    """The text, or its beginning and end."""
    return text if len(text) <= length else f"{text[: length // 3]}\u2026{text[-(length - length // 3 - 1) :]}"
