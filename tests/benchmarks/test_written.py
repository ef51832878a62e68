"""Benchmarks write down what they have measured, whatever it was: no crash between the work and the file."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import dpo, generation, gsm8k, reward_model, rise_arms, rl_arms
from benchmarks.chart import Point, chart, ticks
from benchmarks.record import write_results
from configs.errors import InputError, RatchetError
from pipelines.runfolder import RunFolder


def test_results_are_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "new" / "x.json"
    write_results(path, "x", [{"what": "a"}], (), "cpu")
    former = path.read_bytes()

    def half(self: Path, text: str, **_: Any) -> None:
        self.write_bytes(text.encode()[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(RatchetError, match="no space left"):
        write_results(path, "x", [{"what": "b"}], (), "cpu")
    assert path.read_bytes() == former and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("start", "ratio"), [(0.0, None), (0.25, 2.0)])
def test_a_start_that_solves_nothing_has_no_ratio(start: float, ratio: float | None):
    before, after = ({"accuracy": a, "low": 0.0, "high": 1.0, "problems": 8} for a in (start, 0.5))
    row = rise_arms.row({"arm": "both", "before": before, "after": after, "pairs": {"kinds": {}}, "train": {"steps": 3}})
    assert row["ratio"] == ratio and row["peer"] == start


@pytest.mark.parametrize("steps", [1, 9, 12])
def test_a_training_of_a_few_steps_has_a_picture(steps: int):
    records = [{"step": float(i), "reward": i / steps} for i in range(1, steps + 1)]
    smoothed = rl_arms.smoothed(records)
    assert len(smoothed) == max(1, steps - 9) and smoothed[-1].x == steps
    assert chart("rewards", {"remax": [smoothed], "rloo": [smoothed]}, "end").count("<polyline") == 2


def test_a_curve_has_the_models_of_each_arm_in_order():
    score = {"kind": "score", "accuracy": 0.1, "low": 0.05, "high": 0.2}
    names = {"a": ["initial", "sft"], "b": ["practice", "rft1", "rft2"], "c": []}
    measured = ("validation", "gsm8k")
    stages = {arm: {f"{n}/{what}/greedy": score for n in each for what in measured} for arm, each in names.items()}
    drawn = gsm8k.curve(stages)
    assert drawn.count("<polyline") == 2 and drawn.count("<circle") == 5
    places = {label: float(x) for x, label in re.findall(r'<text x="([\d.]+)"[^>]*>(\w+)</text>', drawn)}
    assert places["initial"] < places["sft"] < places["practice"] < places["rft1"] < places["rft2"]
    assert gsm8k.curve({"c": {}}) == ""


def test_overhead_is_what_no_stage_took(tmp_path: Path):
    """Ten seconds: the arm computed for two and four of them, and waited for two until another had computed what it needs."""
    stages = {"a": [("x", "12:00:03", 2.0), ("z", "12:00:09.5", 4.0)], "b": [("y", "12:00:05", 3.0), ("w", "12:00:09", 3.0)]}
    runs = {}
    for arm, finished in stages.items():
        runs[arm] = RunFolder(tmp_path / arm)
        runs[arm].path.mkdir()
        lines = [{"event": "run started", "time": "2026-01-01T12:00:00+00:00"}]
        lines += [{"event": "finished", "key": k, "time": f"2026-01-01T{t}+00:00", "seconds": s} for k, t, s in finished]
        (runs[arm].path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    keys = "".join(json.dumps({"stage": k, "key": k}) + "\n" for k in "xyz")
    (runs["a"].path / "metrics.jsonl").write_text(keys)
    (runs["a"].path / gsm8k.WALL).write_text('{"seconds": 10.0}')
    row = gsm8k.overhead("a", runs)
    assert (row["ours"], row["peer"], row["ratio"]) == pytest.approx((10.0, 8.0, 1.25))


def test_a_report_on_nothing_leaves_the_former_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    former = tmp_path / "gsm8k.json"
    former.write_text("{}")
    monkeypatch.setattr(sys, "argv", ["gsm8k", "report", "--folder", str(tmp_path / "typo"), "--output", str(former)])
    with pytest.raises(SystemExit, match="typo has no run of an arm"):
        gsm8k.main()
    assert former.read_text() == "{}"


def test_an_axis_has_round_numbers():
    assert ticks(0.109, 0.262) == [0.15, 0.2, 0.25]
    assert ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-0.3, 0.31) == [-0.2, 0.0, 0.2]


def test_labels_do_not_lie_on_each_other():
    lines = {name: [[Point(0.0, y, label="sft"), Point(1.0, 0.5, label="remax")]] for name, y in (("a", 0.1), ("b", 0.101))}
    drawn = chart("accuracy", lines, "end", percent=True)
    placed = [(float(x), float(y)) for x, y in re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>(?:sft|remax)</text>', drawn)]
    assert len(placed) == 4 and len({(round(x), y // 10) for x, y in placed}) == 4
    assert 'text-anchor="end" fill="#1f77b4">remax' in drawn, "at the right edge it ends there"


def test_arms_are_compared_where_both_were_measured():
    score = {"kind": "score"}
    stages = {"a": {"initial/gsm8k/greedy": score, "sft/gsm8k/greedy": score}, "b": {"rft2/gsm8k/greedy": score}}
    pairs = gsm8k.pairs_of({"a": ["0", "sft"], "b": ["rft1", "rft2"]}, stages)
    assert pairs == [("a@0", "a@sft"), ("b@rft1", "b@rft2"), ("a@0", "b@rft2"), ("a@sft", "b@rft2")]


def test_a_report_is_compared_with_an_earlier_one_by_problem():
    (row,) = gsm8k.differences_beside({"new@rft": "11011"}, {"old@sft": "00010"})
    assert row["what"] == "new@rft less old@sft, gsm8k, greedy, paired" and row["n"] == 5
    assert row["ours"] == pytest.approx(0.6) and 0 <= row["low"] < 0.6 < row["high"] <= 1
    assert row["note"] == "80.0% less 20.0%; McNemar, exact p = 0.25"  # three won, none lost: 2 / 2^3
    with pytest.raises(InputError, match="old@sft was measured on 1 test problems, new@rft on 2"):
        list(gsm8k.differences_beside({"new@rft": "10"}, {"old@sft": "1"}))


@pytest.mark.parametrize(("module", "arguments"), [(dpo, ["run", "pairs.jsonl"]), (reward_model, [])])
@pytest.mark.parametrize("option", ["--warmup", "--steps"])
def test_a_speed_needs_a_step_before_it_and_one_in_it(
    module: Any, arguments: list[str], option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments, option, "0"])
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("the work has begun"))
    with pytest.raises(SystemExit):
        module.main()
    assert f"argument {option}: must be at least 1, not 0" in capsys.readouterr().err


class Engine:
    """A child that took `start` seconds to start and generates without end."""

    def __init__(self, kind: str, start: float) -> None:
        self.kind, self._answers = kind, [{"start": start}]

    def ask(self, question: dict[str, Any]) -> None:
        self._answers.append({"samples": 2, "tokens": 20, "seconds": 1.0})

    def answer(self) -> dict[str, Any]:
        return self._answers.pop(0)


def test_the_start_of_every_engine_counts(tmp_path: Path):
    options = argparse.Namespace(repeats=1, workers=[1, 2], batch=8, out=tmp_path / "generation.json")
    ours: list[Any] = [Engine("ours", 10.0), Engine("ours", 30.0)]
    peers: list[Any] = [Engine("plain", 5.0), Engine("wide", 50.0)]
    generation.compare(options, peers, ours)
    *rates, row = json.loads(options.out.read_text())["rows"]
    assert {r["peer_name"].split(",")[1] for r in rates} == {" 8 sequences at a time", " 16 sequences at a time"}
    assert len(rates) == 8
    assert (row["ours"], row["peer"], row["ratio"]) == (20.0, 5.0, 4.0)
    assert row["note"] == "mean of 2; lowest and highest 10.0-30.0"
