"""The parts that reports are made of: numbers, escaping, axes, shapes."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from pipelines.report.chart import (
    Bar,
    Frame,
    Interval,
    Line,
    Point,
    bar_chart,
    heat_map,
    interval_chart,
    line_chart,
    stacked_chart,
    thinned,
    ticks,
)  # fmt: skip
from pipelines.report.html import escape, tag
from pipelines.report.numbers import interval, number, percent, points, seconds, short, size
from tests.pipelines.report_world import HTML, SVG, parsed, texts

finite = st.floats(-1e9, 1e9, allow_nan=False)


def page(markup: Markup) -> Any:
    return parsed(f"<!DOCTYPE html><html><head><title>t</title></head><body>{markup}</body></html>").find(f"{HTML}body")


@settings(deadline=None)
@given(st.text())
def test_any_text_stays_text(text: str) -> None:
    body = page(tag("p", text, title=text))
    (paragraph,) = body
    assert list(paragraph) == []
    shown = str(escape(text))
    assert texts(paragraph) == paragraph.get("title") == str(Markup(shown).unescape())
    for sign in text:
        if ord(sign) < 32 and sign not in "\t\n\r":
            assert sign not in shown


def test_controls_and_signs_that_turn_text_around_are_shown_by_their_code() -> None:
    assert escape("a\x00b\u202ec\x1b[31m") == "a\u20390000\u203ab\u2039202E\u203ac\u2039001B\u203a[31m"
    assert escape("a\u061cb\u180ec\U000e0041") == "a\u2039061C\u203ab\u2039180E\u203ac\u2039E0041\u203a"
    assert escape("lone \ud800 half") == "lone ? half"
    assert escape("é ü 漢 🙂\r\nx") == "é ü 漢 🙂\nx"


def test_what_is_markup_is_escaped_once_and_attributes_cannot_be_left() -> None:
    inner = tag("b", "<i>", class_='x" onclick="y', hidden=True, id=None)
    assert inner == '<b class="x&#34; onclick=&#34;y" hidden>&lt;i&gt;</b>'
    assert tag("p", inner, " & ") == f"<p>{inner} &amp; </p>"


@pytest.mark.parametrize(("value", "shown"), [
    (0, "0"), (-3, "−3"), (1234567, "1,234,567"), (0.12345, "0.1235"), (-0.0002, "−2e−4"), (5e-5, "5e−5"), (3.2e20, "3.2e20"),
    (12345.6, "12,346"), (None, "–"), ("x", "x"), (True, "True"), (math.inf, "inf"), (1e300, "1e300"),
])  # fmt: skip
def test_numbers(value: Any, shown: str) -> None:
    assert number(value) == shown


def test_shares_times_and_sizes() -> None:
    assert (percent(0.2037), percent(None), points(-0.0123), points(0.1)) == ("20.4%", "–", "−1.2", "+10.0")
    assert interval(0.1, 0.25) == "[10.0%, 25.0%]" and interval(None, 0.1) == "–"
    assert [seconds(s) for s in (0.04, 42.4, 185, 7260, 100000)] == ["0.0 s", "42 s", "3 min 05 s", "2 h 01 min", "1 d 3 h"]
    assert (size(2.5e6), size(3.21e9), short(0.12345), short(-1.0)) == ("2 MB", "3.21 GB", "0.123", "−1")


@settings(deadline=None)
@given(finite, st.floats(1e-6, 1e9), st.integers(2, 10))
def test_ticks_cover_the_range_with_round_steps(low: float, span: float, count: int) -> None:
    high = low + span
    found = ticks(low, high, count)
    step = found[1] - found[0]
    assert found == sorted(found) and 2 <= len(found) <= 2 * count + 3
    assert found[0] <= low + 1e-6 * (abs(low) + step) and found[-1] >= high - 1e-6 * (abs(high) + step)


def test_ticks_of_a_known_range() -> None:
    assert ticks(0.13, 0.63) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert ticks(0, 45, 6) == [0, 10, 20, 30, 40, 50]
    assert ticks(2.0, 2.0)[0] < 2.0 < ticks(2.0, 2.0)[-1]
    assert ticks(0.0, 4e-13) == [0.0, 1e-13, 2e-13, 3e-13, 4e-13]
    assert ticks(0.0, 5e-324) == ticks(0.0, 0.0) and ticks(0.3, 0.1 + 0.2) == ticks(0.3, 0.3)


def test_places_in_a_picture_by_hand() -> None:
    """600 x 300 less margins of 74, 16, 14 and 46 leaves 510 x 240."""
    frame = Frame((600, 300), (0, 10), (0, 1))
    assert (frame.at(0, 0), frame.at(10, 1), frame.at(5, 0.25)) == ((74, 254), (584, 14), (329, 194))


def test_a_line_chart_draws_values_intervals_and_titles() -> None:
    lines = [Line("greedy", [Point(0, 0.2, 0.1, 0.3), Point(1, 0.5, 0.4, 0.6)], 0), Line("sampled", [Point(0, 0.25)], 1)]
    body = page(line_chart("Accuracy", lines, x_label="iteration", y_label="share", form=percent))
    assert [texts(li) for li in body.iter(f"{HTML}li")] == ["greedy", "sampled"]
    svg = list(body.iter(f"{SVG}svg"))[-1]
    assert svg.get("role") == "img" and svg.get("aria-label") == "Accuracy"
    titles = [texts(t) for t in svg.iter(f"{SVG}title")]
    assert titles == ["Accuracy", "greedy: 20.0% [10.0%, 30.0%]", "greedy: 50.0% [40.0%, 60.0%]", "sampled: 25.0%"]
    classes = [p.get("class") for p in svg.iter(f"{SVG}path")]
    assert (classes.count("line s0"), classes.count("error s0"), classes.count("line s1")) == (1, 2, 0)
    assert {"iteration", "share"} <= {texts(t) for t in svg.iter(f"{SVG}text")}


def test_values_that_are_not_finite_are_left_out() -> None:
    one = Line("x", [Point(0, math.nan), Point(1, math.inf), Point(2, 1.0), Point(3, 2.0)], 0)
    svg = str(line_chart("t", [one], x_label="x", y_label="y"))
    assert "nan" not in svg and "inf" not in svg.replace("infinite", "") and svg.count('class="hit"') == 2
    assert "no finite values" in line_chart("t", [Line("x", [Point(0, math.nan)], 0)], x_label="x", y_label="y")


@settings(deadline=None)
@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=400))
@example([(0.0, 5e-324)])
@example([(0.3, 1.0), (0.1 + 0.2, 1.0)])
def test_marks_lie_within_the_picture(values: list[tuple[float, float]]) -> None:
    dots = [Point(x, y) for x, y in sorted(values)]
    svg = str(line_chart("t", [Line("x", dots, 0)], x_label="x", y_label="y", size=(600, 300)))
    for x, y in re.findall(r'<circle cx="([^"]+)" cy="([^"]+)" r="9"', svg):
        assert 73 <= float(x) <= 585 and 13 <= float(y) <= 255
    assert svg.count('class="hit"') <= 121, "not a title for each of thousands"


def test_thinned_means() -> None:
    assert thinned([Point(i, i) for i in range(5)], 10) == ([Point(i, i) for i in range(5)], 1)
    kept, size_ = thinned([Point(i, float(i)) for i in range(10)], 4)
    assert size_ == 3 and [(p.x, p.y) for p in kept] == [(2, 1.0), (5, 4.0), (8, 7.0), (9, 9.0)]


def test_bars_with_marks() -> None:
    body = page(bar_chart("Time", [Bar("train", 10.0, 1, 20.0), Bar("verify", 0.0)], number, "estimated", [("training", 1)]))
    titles = [texts(t) for t in body.iter(f"{SVG}title")]
    assert "train: 10" in titles and "estimated: 20" in titles
    bars = {r.get("class"): float(r.get("width")) for r in body.iter(f"{SVG}rect") if r.get("class") != "bar s1" or r.get("x")}
    mark = next(p for p in body.iter(f"{SVG}path") if p.get("class") == "mark")
    start = next(float(r.get("x")) for r in body.iter(f"{SVG}rect") if r.get("x"))
    assert float(mark.get("d")[1:].partition(",")[0]) == pytest.approx(start + 2 * bars["bar s1"], abs=0.2)


def test_stacked_shares_fill_the_row() -> None:
    shares = [("wrong", 3.0), ("right", 1.0)]
    body = page(stacked_chart("Verdicts", [("iteration1", shares)], {"right": 0, "wrong": 1, "none": 6}))
    rects = [r for r in body.iter(f"{SVG}rect") if "edge" in r.get("class")]
    assert [r.get("class") for r in rects] == ["bar edge s0", "bar edge s1"], "in the order of the legend"
    widths = [float(r.get("width")) for r in rects]
    assert widths[1] == pytest.approx(3 * widths[0], abs=0.3)
    assert [texts(li) for li in body.iter(f"{HTML}li")] == ["right", "wrong"], "only what occurs"


def test_intervals_beside_a_reference() -> None:
    svg = str(interval_chart("d", [Interval("a", 1.0, -1.0, 3.0)], x_label="points", reference=0.0))
    assert 'class="reference"' in svg and "a: 1 [−1, 3]" in svg


def test_a_heat_map_frames_what_was_chosen() -> None:
    values = [[0.0, 0.5], [1.0, None]]
    body = page(heat_map("s", ["0.6", "1"], ["high", "low"], values, x_label="temperature", y_label="threshold", chosen=(1, 0)))
    heats = {texts(r): r for r in body.iter(f"{SVG}rect") if r.get("class", "").startswith("heat")}
    assert {t: r.get("class") for t, r in heats.items()} == {
        "temperature 0.6, threshold high: 0": "heat h0", "temperature 1, threshold high: 0.5": "heat h5",
        "temperature 0.6, threshold low: 1": "heat h9",
    }  # fmt: skip
    chosen = next(r for r in body.iter(f"{SVG}rect") if r.get("class") == "chosen")
    best = heats["temperature 0.6, threshold low: 1"]
    assert (chosen.get("x"), chosen.get("y")) == (best.get("x"), best.get("y"))
