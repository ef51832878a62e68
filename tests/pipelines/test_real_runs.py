"""Whole runs on the real model. Slow: minutes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.rows import ProblemScore
from pipelines.statistics import paired_difference
from pipelines.store import planned, read_rows
from tests.conftest import DemoRun
from tests.pipelines.helpers import assert_same, contents, ratchet

SMALL = (
    "data.train.limit=24", "sampling.n=2", "sampling.max_tokens=16", "sampling.shard_size=4",
    "evaluation.benchmarks.0.source.limit=8", "evaluation.max_tokens=16", "iterations.count=1",
    "selection.include_human=true", "training.epochs=1",
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_raises_accuracy_beyond_chance(demo_run: DemoRun) -> None:
    """Every model of the demo is scored on the same unseen problems; the gain's interval must exclude zero."""
    plan = json.loads((demo_run.folder / "plan.json").read_text())
    scores = []
    for stage in (s for s in plan["stages"] if s["kind"] == "score"):
        rows: list[ProblemScore] = read_rows(planned(plan, stage), ProblemScore)
        assert len(rows) >= 100
        scores.append([r.correct / r.samples for r in rows])
    gain, low, _ = paired_difference(scores[0], scores[-1], seed=1)
    print(demo_run.output[-900:])
    assert low > 0.0
    assert gain >= 0.15


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_real_model_gives_the_same_rows_everywhere(tmp_path: Path) -> None:
    stores = []
    for kind, workers in (("local", 1), ("local", 4), ("ray", 4)):
        home = tmp_path / f"{kind}{workers}"
        ratchet("run", "demo", *SMALL, f"executor.kind={kind}", f"executor.workers={workers}", "--run-dir",
                f"run-{kind}{workers}", home=home, cwd=tmp_path)
        stores.append(contents(home))
    for other in stores[1:]:
        assert_same(stores[0], other)


@pytest.mark.vllm
@pytest.mark.timeout(1800)
def test_a_run_on_vllm_and_ray(tmp_path: Path) -> None:
    """Engine vLLM and executor Ray, the adapter served by vLLM; then `eval` of the run on the same engine."""
    small = (*SMALL, "data.train.limit=8", "evaluation.benchmarks.0.source.limit=4", "data.fresh_per_iteration=false",
             "sampling.engine=vllm", "executor.kind=ray")
    home = tmp_path / "home"
    done = ratchet("run", "demo", *small, "--run-dir", "run", home=home, cwd=tmp_path)
    assert "engine vllm" in done.stdout and "executor ray" in done.stdout
    again = ratchet("run", "demo", *small, "--run-dir", "run", home=home, cwd=tmp_path)
    assert again.stdout.count("(cached)") == 13
    shown = ratchet("eval", "run", "--benchmarks", "procedural", "--limit", "4", home=home, cwd=tmp_path)
    assert "95% interval" in shown.stdout and "'engine': 'vllm'" in shown.stdout
