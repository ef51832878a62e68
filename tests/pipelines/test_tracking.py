"""Every tracker gets the same numbers, once, and says how to install what is missing."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from pipelines.tracking import Tracking
from tests.conftest import TinyRun
from tests.pipelines.helpers import COMMAND, environment

METRICS: dict[str, Any] = {"accuracy": 0.25, "problems": 8, "at": [1], "name": "x", "ok": True, "sampling": {"n": 4},
                           "kinds": {"full": 3}}  # fmt: skip


def artefact(tmp_path: Path, steps: int = 3) -> Path:
    folder = tmp_path / "artefact"
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"step": i + 1, "loss": 1.0 / (i + 1)}) for i in range(steps)]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def tell(kind: str, folder: Path, tmp_path: Path) -> None:
    tracking = Tracking(kind, "tiny", folder, {"seed": 0, "sampling": {"n": 4}})
    tracking.stage("initial/words/greedy", "k0", 0, METRICS, tmp_path / "none")
    tracking.stage("iteration1/train", "k1", 0, {"last_loss": 0.5}, artefact(tmp_path))
    tracking.stage("iteration1/words/greedy", "k2", 1, {**METRICS, "accuracy": 0.75}, tmp_path / "none")
    tracking.finish()


EXPECTED = {
    "words/greedy/accuracy": [(0, 0.25), (1, 0.75)], "words/greedy/problems": [(0, 8.0), (1, 8.0)],
    "words/greedy/kinds/full": [(0, 3.0), (1, 3.0)], "train/last_loss": [(0, 0.5)],
    "iteration1/train/loss": [(1, 1.0), (2, 0.5), (3, 1 / 3)],
}  # fmt: skip


def event_files(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalars of a TensorBoard folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_event_files_hold_the_numbers_once(tmp_path: Path) -> None:
    for _ in range(2):  # a resume tells nothing again
        tell("tensorboard", tmp_path, tmp_path)
    found = event_files(tmp_path)
    assert {tag: [(s, pytest.approx(v)) for s, v in values] for tag, values in found.items()} == EXPECTED
    assert (tmp_path / "tracked-tensorboard.txt").read_text().split() == ["k0", "k1", "k2"]


def test_a_tracker_that_is_switched_on_later_gets_everything(tmp_path: Path) -> None:
    tell("none", tmp_path, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["artefact"]
    tell("tensorboard", tmp_path, tmp_path)
    assert event_files(tmp_path).keys() == EXPECTED.keys()


SCRIPT = """
import sys; from pathlib import Path; from tests.pipelines.test_tracking import tell
tell(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[2]))
"""


def in_its_own_process(kind: str, folder: Path, **extra: str) -> None:
    """These trackers read their settings at import and leave threads behind."""
    arguments = [sys.executable, "-c", SCRIPT, kind, str(folder)]
    done = subprocess.run(arguments, env=environment(folder / "home", **extra), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_trackio_keeps_a_local_database(tmp_path: Path) -> None:
    in_its_own_process("trackio", tmp_path, TRACKIO_DIR=str(tmp_path / "trackio"))
    with sqlite3.connect(tmp_path / "trackio" / "ratchet.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by id").fetchall()
    assert {r[0] for r in rows} == {"tiny"}
    found: dict[str, list[tuple[int, float]]] = {}
    for _, step, metrics in rows:
        for name, value in json.loads(metrics).items():
            found.setdefault(name, []).append((step, value))
    assert {k: v for k, v in found.items() if k in EXPECTED} == EXPECTED


def test_wandb_writes_offline(tmp_path: Path) -> None:
    in_its_own_process("wandb", tmp_path, WANDB_MODE="offline")
    record = next((tmp_path / "wandb").glob("offline-run-*/run-*.wandb")).read_bytes()
    for name in EXPECTED:
        assert name.encode() in record
    assert b"0.75" in record and b"iteration1/train/step" in record


def test_wandb_without_a_key_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"WANDB_MODE=offline"):
        Tracking("wandb", "tiny", tmp_path, {})


@pytest.mark.parametrize(("kind", "module", "extra"), [
    ("trackio", "trackio", "track"), ("wandb", "wandb", "wandb"),
    ("tensorboard", "torch.utils.tensorboard.writer", "tensorboard"),
])  # fmt: skip
def test_a_tracker_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"track is `{kind}`.*\[{extra}\]"):
        Tracking(kind, "tiny", tmp_path, {})


def test_a_run_tells_its_tracker(tiny_run: TinyRun, tmp_path: Path, tiny_recipe: Callable[..., Path]) -> None:
    """All stages come from the store here; the tracker hears of them none the less."""
    arguments = [*COMMAND, "run", str(tiny_run.recipe), "track=tensorboard", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(arguments, env=environment(tiny_run.home), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = event_files(tmp_path / "run")
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    accuracies = [m["accuracy"] for m in metrics if m["kind"] == "score"]
    assert [v for _, v in found["words/greedy/accuracy"]] == pytest.approx(accuracies)
    assert [s for s, _ in found["words/greedy/accuracy"]] == [0, 1]
    steps = next(m["steps"] for m in metrics if m["kind"] == "train")
    assert [s for s, _ in found["iteration1/train/loss"]] == list(range(1, steps + 1))
