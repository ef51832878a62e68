"""Plain supervised fine-tuning on the solutions that came with the problems: the control arm of rejection sampling."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from configs.errors import ConfigError
from configs.load import load_recipe
from pipelines.cli import app

HUMAN = ("selection.max_per_problem=0", "selection.include_human=true", "evaluation.benchmarks=[]")


def run(recipe: Path, *options: str, folder: Path) -> Result:
    return CliRunner().invoke(app, ["run", str(recipe), "--run-dir", str(folder), *options])


def test_a_run_learns_from_human_solutions_and_samples_nothing(
    tiny_recipe: Callable[..., Path], home: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(*HUMAN, "iterations.count=2", "data.fresh_per_iteration=true")
    result = run(recipe, folder=tmp_path / "run")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "8 examples, the solutions that came with 8 problems" in result.output
    assert sorted(p.name for p in (home / "store").iterdir() if p.is_dir()) == ["problems", "select", "train"]
    (file,) = home.glob("store/problems/*/part-*.parquet")
    problems = {p["id"]: p for p in pq.read_table(file).to_pylist()}
    selected = [pq.read_table(f).to_pylist() for f in home.glob("store/select/*/part-*.parquet")]
    assert sorted(len(rows) for rows in selected) == [8, 8]
    rows = [r for part in selected for r in part]
    assert {r["problem"] for r in rows} == set(problems), "each iteration its slice"
    assert {r["kind"] for r in rows} == {"human"}
    assert all(r["text"] == problems[r["problem"]]["solution"] for r in rows)


def test_the_same_examples_as_beside_samples(tiny_recipe: Callable[..., Path], home: Path, tmp_path: Path) -> None:
    """The control arm learns from the human solutions that a run with samples has besides, with the same metrics' names."""
    arms = {
        "alone": tiny_recipe(*HUMAN, name="alone"),
        "beside": tiny_recipe("evaluation.benchmarks=[]", name="beside"),
    }
    rows, metrics = {}, {}
    for name, recipe in arms.items():
        before = set(home.glob("store/select/*/manifest.json"))
        assert run(recipe, folder=tmp_path / name).exit_code == 0
        (manifest,) = set(home.glob("store/select/*/manifest.json")) - before
        rows[name] = pq.read_table(manifest.parent / "part-00000.parquet").to_pylist()
        metrics[name] = json.loads(manifest.read_text())["metrics"]
    human = [r for r in rows["beside"] if r["kind"] == "human"]
    assert rows["alone"] == human and len(human) == 16
    assert metrics["alone"].keys() == metrics["beside"].keys()
    assert metrics["alone"]["samples"] == 0 < metrics["beside"]["samples"]


def test_problems_without_solutions_are_said_to_have_none(
    tiny_recipe: Callable[..., Path], home: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"question": "1+1?", "answer": "2"}\n')
    recipe = tiny_recipe(*HUMAN, f"data.train={{source: jsonl, path: {own}}}")
    result = run(recipe, folder=tmp_path / "run")
    assert result.exit_code == 1
    assert "0 of 1 problems came with a solution" in str(result.exception)
    assert "set selection.max_per_problem above 0" in str(result.exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["selection.max_per_problem=0"], "set `include_human: true` too, or a number above 0"),
        (["selection.max_per_problem=-1"], "selection.max_per_problem"),
        ([*HUMAN, "selection.advantage_weights=0.5"], "`advantage_weights` have none to choose or to weigh"),
        ([*HUMAN, "selection.prefer=reward", "reward_model.kind=outcome"], "`max_per_problem: 0` selects no sample"),
    ],
)
def test_nothing_to_learn_from_is_refused(tiny_recipe: Callable[..., Path], options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(str(tiny_recipe("selection.include_human=false")), options)
