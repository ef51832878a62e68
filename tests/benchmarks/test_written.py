"""Benchmarks write down what they have measured, whatever it was: no crash between the work and the file."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import dpo, generation, reward_model, rise_arms, rl_arms
from benchmarks.record import write_results
from configs.errors import RatchetError


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
    assert len(smoothed) == max(1, steps - 9) and smoothed[-1][0] == steps
    assert rl_arms.svg({"remax": [records], "rloo": [records]}).count("<polyline") == 2


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
    options = argparse.Namespace(repeats=1, workers=[1, 2], out=tmp_path / "generation.json")
    ours: list[Any] = [Engine("ours", 10.0), Engine("ours", 30.0)]
    plain: Any = Engine("plain", 5.0)
    generation.compare(options, plain, ours)
    row = json.loads(options.out.read_text())["rows"][-1]
    assert (row["ours"], row["peer"], row["ratio"]) == (20.0, 5.0, 4.0)
    assert row["note"] == "mean of 2; lowest and highest 10.0-30.0"
