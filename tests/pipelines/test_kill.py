"""SIGKILL at random moments, resume until done: the same bytes, nothing lost, doubled or repeated."""

from __future__ import annotations

import datetime
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from configs.load import apply_override
from configs.rows import Sample
from pipelines.runfolder import RunFolder
from pipelines.store import Artefact, read_rows
from tests.conftest import TinyRun
from tests.pipelines.helpers import assert_same, contents, ratchet, start
from tests.pipelines.phase_world import write_phase_recipe

KILLS = int(os.environ.get("RATCHET_TEST_KILLS", "10"))
SEED = int(os.environ.get("RATCHET_TEST_SEED", "20261123"))
OVERRIDES = ("data.train.limit=48", "sampling.max_tokens=48", "training.epochs=4", "iterations.count=2")


@pytest.mark.parametrize(
    ("executor", "workers", "wanted"),
    [
        ("local", 1, KILLS),
        pytest.param("local", 4, 5, marks=pytest.mark.slow),
        pytest.param("ray", 2, 5, marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_runs_equal_an_undisturbed_one(
    tiny_recipe: Callable[..., Path], tmp_path: Path, executor: str, workers: int, wanted: int
) -> None:
    recipe = tiny_recipe(*OVERRIDES, f"executor.kind={executor}", f"executor.workers={workers}")
    _assert_kills_leave_no_trace(recipe, tmp_path, wanted)


def test_preference_training_killed_and_resumed_equals_an_undisturbed_one(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Pairs of right and wrong samples, their reference, DPO with an adapter."""
    recipe = tmp_path / "dpo.yaml"
    overrides = (
        "training={method: dpo, epochs: 12, batch_size: 2, checkpoint_every: 2, dpo: {validation_fraction: 0.2}}",
        "pairs={kind: rise, rise: {arm: full_only, samples: 8}}", "sampling.temperature=0.6", "rewards.mode=lenient",
    )
    data = yaml.safe_load(tiny_run.recipe.read_text())
    for override in overrides:
        apply_override(data, override)
    recipe.write_text(yaml.safe_dump(data))
    _assert_kills_leave_no_trace(recipe, tmp_path, 4)
    steps = next((tmp_path / "calm" / "store" / "train").glob("*/train.jsonl")).read_text().splitlines()
    assert len(steps) > 12 and "margin" in steps[-1]


def test_a_run_of_phases_killed_and_resumed_equals_an_undisturbed_one(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Human solutions, rejection sampling, pairs, reinforcement learning, one after the other."""
    _assert_kills_leave_no_trace(write_phase_recipe(tmp_path / "phases.yaml", tiny_run), tmp_path, 3)


def _assert_kills_leave_no_trace(recipe: Path, tmp_path: Path, wanted: int) -> None:
    calm = tmp_path / "calm"
    ratchet("run", str(recipe), "--run-dir", "calm-run", home=calm, cwd=tmp_path)
    expected = contents(calm)
    seconds = _busy_seconds(tmp_path / "calm-run")
    rng = random.Random(SEED)
    kills = rounds = 0
    while kills < wanted:  # a run that ends before its kills are spent is compared, and another one begun
        rounds += 1
        home = tmp_path / f"killed{rounds}"
        kills += _run_under_fire(recipe, tmp_path / f"run{rounds}", home, wanted - kills, seconds, rng)
        assert_same(expected, contents(home))
        assert not list(home.rglob("*.tmp")) and not list((home / "store").glob("*/*/work"))
        _assert_no_sample_lost_or_doubled(home)
    print(f"{kills} kills in {rounds} runs of {seconds:.1f} s")


def _run_under_fire(recipe: Path, folder: Path, home: Path, limit: int, seconds: float, rng: random.Random) -> int:
    """Run, kill, resume, ... until the run ends; at most `limit` kills. The number of kills."""
    kills = 0
    finished: dict[str, tuple[int, int]] = {}
    code = -1
    while code != 0:
        before = _written(home)
        process = start(recipe, folder, home)
        if kills < limit:
            if rng.random() < 0.8:  # somewhere in the work; else anywhere, imports included
                _wait_for_work(process, home, before)
            time.sleep(rng.uniform(0.0, 0.1 * seconds))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
        _, errors = process.communicate()
        code = process.returncode
        assert code in (0, -signal.SIGKILL), errors
        _assert_kept(finished, home)
        finished = _finished_parts(home)
    return kills


def _busy_seconds(folder: Path) -> float:
    """Seconds between the first stage's start and the end, without the imports."""
    times = [datetime.datetime.fromisoformat(e["time"]) for e in RunFolder(folder).events()]
    return (times[-1] - times[0]).total_seconds()


def _assert_no_sample_lost_or_doubled(home: Path) -> None:
    for path in (home / "store" / "sample").iterdir():
        if path.is_dir():
            artefact = Artefact("sample", path.name, path)
            rows: list[Sample] = read_rows(artefact, Sample)
            assert len({r.id for r in rows}) == len(rows) == artefact.manifest()["metrics"]["samples"]


def _wait_for_work(process: subprocess.Popen[str], home: Path, before: set[tuple[str, int]]) -> None:
    """Wait until this attempt has written something into the store: a journal line, a part, a checkpoint, ..."""
    while process.poll() is None and _written(home) <= before:
        time.sleep(0.01)


def _written(home: Path) -> set[tuple[str, int]]:
    """Names and sizes of the store's files, locks and signs of life aside."""
    found = set()
    for path in (home / "store").rglob("*"):
        try:
            if path.is_file() and not path.name.startswith((".", "lock-", "progress-")):
                found.add((str(path), path.stat().st_size))
        except FileNotFoundError:  # renamed or removed meanwhile
            continue
    return found


def _finished_parts(home: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every part whose shard is marked complete."""
    found = {}
    for part in (home / "store").glob("*/*/part-*.parquet"):
        number = part.stem.removeprefix("part-")
        if (part.parent / "manifest.json").exists() or (part.parent / "work" / f"shard-{number}.json").exists():
            stat = part.stat()
            found[str(part)] = (stat.st_ino, stat.st_mtime_ns)
    return found


def _assert_kept(finished: dict[str, tuple[int, int]], home: Path) -> None:
    """No finished shard was computed again: with one worker, a kill repeats the one shard in flight at most."""
    now = _finished_parts(home)
    assert {name: now.get(name) for name in finished} == finished
