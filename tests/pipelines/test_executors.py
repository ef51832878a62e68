"""The same recipe gives the same rows in this process, on four processes and on Ray; dead workers are replaced."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from configs.errors import RatchetError
from configs.load import load_recipe
from configs.schema import ExecutorSection
from pipelines.executor import Executor, _Ticking, open_executor
from pipelines.models import resolve_model
from pipelines.plan import build, resolve
from pipelines.progress import Reporter
from pipelines.runfolder import RunFolder
from pipelines.runner import run_plan
from pipelines.stage import ShardResult, Task, kinds, task_of
from pipelines.store import Store
from pipelines.work import marker, missing_shards, run_shard, shard_results
from tests.pipelines.helpers import assert_same, contents, ratchet


def test_rows_do_not_depend_on_workers_or_executor(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = str(tiny_recipe("data.train.limit=24"))
    stores = {}
    for kind, workers in (("local", 1), ("local", 4), ("ray", 1), ("ray", 4)):
        home = tmp_path / f"{kind}{workers}"
        settings = (f"executor.kind={kind}", f"executor.workers={workers}")
        ratchet("run", recipe, *settings, "--run-dir", f"run-{kind}{workers}", home=home, cwd=tmp_path)
        stores[kind, workers] = contents(home)
    first = stores["local", 1]
    assert len(first) > 10
    for other in stores.values():
        assert_same(first, other)


def test_what_is_told_of_progress_comes_from_one_thread_at_a_time() -> None:
    inside, together, counts = threading.Lock(), [], []

    def tick(done: int) -> None:
        together.append(not inside.acquire(blocking=False))
        counts.append(done)
        time.sleep(0.01)
        if not together[-1]:
            inside.release()

    until = time.monotonic() + 1.2
    with _Ticking(tick) as done:
        while time.monotonic() < until:  # busy when the other thread's time comes, twice
            done()
    assert not any(together) and counts == sorted(counts)


@pytest.fixture(params=["local", "ray"])
def executor(request: pytest.FixtureRequest) -> Executor:
    opened = open_executor(ExecutorSection(kind=request.param, workers=2, threads=1, attempts=3))
    request.addfinalizer(opened.close)
    return opened


def _task(store: Path, kind: str, **config: object) -> Task:
    return Task(
        kind=kind, key="k" * 32, label=kind, store=str(store), config=dict(config), inputs={}, paths={}, hints={}
    )


def test_errors_come_back_as_they_are(executor: Executor, tmp_path: Path) -> None:
    task = _task(tmp_path, "problems", source="jsonl", split="train", path=str(tmp_path / "absent.jsonl"))
    with pytest.raises(RatchetError, match=r"absent\.jsonl"):
        executor.run(task, [0], lambda done: None)
    assert not list(tmp_path.rglob("part-*"))


def test_figures_that_are_not_finite_are_refused_before_the_shard_counts_as_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _task(tmp_path, "score")
    result = ShardResult(rows=1, metrics={"total": math.nan, "by": [0.5, {"low": -math.inf}]})
    monkeypatch.setattr(type(kinds()["score"]), "open", lambda *_: lambda *_: result)
    with pytest.raises(RatchetError, match=r"score, shard 3: metrics\.total = nan, metrics\.by\.1\.low = -inf: not finite"):
        run_shard(task, 3)
    assert missing_shards(task, 4) == [0, 1, 2, 3]
    marker(task, 0).write_text('{"rows": 1, "metrics": {"total": NaN}}')  # as an earlier version left it
    with pytest.raises(RatchetError, match=r"shard-00000\.json: .*; remove the file and resume"):
        shard_results(task, 1)


def test_the_executor_works_on_after_an_error(executor: Executor, tmp_path: Path) -> None:
    bad = _task(tmp_path / "a", "problems", source="jsonl", split="train", path=str(tmp_path / "absent.jsonl"))
    with pytest.raises(RatchetError):
        executor.run(bad, [0], lambda done: None)
    good = _task(tmp_path / "b", "problems", source="procedural", split="train", limit=5)
    ticks: list[int] = []
    executor.run(good, [0], ticks.append)
    assert marker(good, 0).is_file() and good.artefact.part(0).is_file()
    assert ticks and ticks[-1] == 1


@pytest.fixture
def sampling(tiny_recipe: Callable[..., Path], tmp_path: Path) -> Task:
    """A sampling task of four shards that takes some seconds, its problems already there."""
    file = tiny_recipe("data.train.limit=256", "sampling.shard_size=64", "sampling.max_tokens=96")
    recipe = resolve(load_recipe(str(file)))
    plan, store = build(recipe, resolve_model(recipe.model)), Store(tmp_path / "store")
    folder = RunFolder.create(tmp_path / "run", recipe)
    sample = next(s for s in plan.stages if s.label == "iteration1/sample")
    first = [s for s in plan.stages if s.kind in ("problems", "decontaminate")]
    run_plan(msgspec.structs.replace(plan, stages=first), store, folder, Reporter())
    return task_of(sample, store)


def _kill_when_working(task: Task, times: int, stop: threading.Event) -> None:
    """SIGKILL the worker that reports progress, a new one each time."""
    killed: set[int] = set()
    while len(killed) < times and not stop.wait(0.02):
        for path in task.artefact.work.glob("progress-*.json"):
            try:
                pid = json.loads(path.read_bytes())["pid"]
            except FileNotFoundError:
                continue
            if pid not in killed and pid != os.getpid():
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)


def test_a_dead_worker_is_replaced(executor: Executor, sampling: Task, tmp_path: Path) -> None:
    stop = threading.Event()
    killer = threading.Thread(target=_kill_when_working, args=(sampling, 1, stop))
    killer.start()
    executor.run(sampling, [0, 1, 2, 3], lambda done: None)
    stop.set()
    killer.join()
    assert missing_shards(sampling, 4) == []


def test_a_worker_that_always_dies_is_an_error(executor: Executor, sampling: Task) -> None:
    stop = threading.Event()
    killer = threading.Thread(target=_kill_when_working, args=(sampling, 99, stop))
    killer.start()
    with pytest.raises(RatchetError, match="3 times"):
        executor.run(sampling, [0, 1, 2, 3], lambda done: None)
    stop.set()
    killer.join()
