"""A run's sign of life, what a terminal shows of it, and following it from another process or machine."""

from __future__ import annotations

import io
import itertools
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from pipelines.live import CurveKeeper, Live, read_live, write_live
from pipelines.progress import Reporter, clock, describe
from pipelines.runfolder import RunFolder
from pipelines.screen import watch_view
from pipelines.stage import Task
from pipelines.status import status_of, status_table
from pipelines.store import Progress
from pipelines.watch import Lines, watch
from tests.conftest import TinyRun
from tests.pipelines.helpers import COMMAND, environment, ratchet

Recipe = Callable[..., Path]
LONG = ("data.train.limit=160", "sampling.n=4", "sampling.max_tokens=48", "training.batch_size=32", "evaluation.initial=false")


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 40))
def test_a_curve_is_thinned_evenly_and_keeps_its_ends(steps: int, stride: int) -> None:
    keeper = CurveKeeper()
    for step in range(1, steps + 1, stride):
        keeper.add(step, {"loss": 1.0 / step})
    xs = [p["step"] for p in keeper.points]
    assert xs[0] == 1 and xs == sorted(set(xs)) and len(xs) <= 240
    gaps = {b - a for a, b in itertools.pairwise(xs)}
    assert len(gaps) <= 1
    assert all(p["loss"] == 1.0 / p["step"] for p in keeper.points)
    assert steps - xs[-1] <= max([*gaps, stride])


def test_a_training_that_goes_back_to_its_checkpoint_draws_no_step_twice() -> None:
    keeper = CurveKeeper()
    for step in (1, 2, 3, 4, 5, 3, 4):
        keeper.add(step, {"loss": float(step)})
    assert [p["step"] for p in CurveKeeper(keeper.points).points] == [1, 2, 3, 4]


def test_the_sign_of_life_survives_a_torn_file(tmp_path: Path) -> None:
    assert read_live(tmp_path) is None
    live = Live(host="h", pid=1, beat=0.0, stage="a", fraction=0.5)
    write_live(tmp_path, live)
    assert read_live(tmp_path) == live and live.beat == pytest.approx(time.time(), abs=30)
    for torn in (b'{"host": "h"', b"", b'{"host": "\xff\xfe"}'):
        (tmp_path / "live.json").write_bytes(torn)
        assert read_live(tmp_path) is None


@pytest.mark.parametrize(("host", "age", "ended", "locked", "expected"), [
    ("here", 0.0, False, True, True), ("here", 0.0, False, False, False),  # on its own machine the lock decides
    ("there", 5.0, False, False, True), ("there", 600.0, False, False, False), ("there", 5.0, True, False, False),
])  # fmt: skip
def test_who_counts_as_running(
    host: str, age: float, ended: bool, locked: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.node", lambda: "here")
    live = Live(host=host, pid=1, beat=time.time() - age, ended=ended)
    assert live.fresh(locked) is expected


def sampling_task(tmp_path: Path) -> Task:
    rest: dict[str, Any] = {"config": {}, "inputs": {}, "paths": {}, "hints": {}}
    return Task(kind="sample", key="k", label="iteration1/sample", store=str(tmp_path), **rest)


def test_progress_adds_up_over_shards_and_resumes(tmp_path: Path) -> None:
    """Four shards, one done before: halfway through the second and a quarter through the third is 1.75 / 4."""
    task, reporter = sampling_task(tmp_path), Reporter(every=0.0, stream=io.StringIO())
    tick = reporter.stage(3, 9, task, shards=4, missing=3)
    for shard, done in ((1, 5), (2, 2.5)):
        Progress(task.artefact.work / f"progress-{shard:05d}.json", 0.0)({"done": done, "total": 10, "tokens": 100 * done})
    tick(0)
    live = reporter.live
    assert (live.shards_done, live.fraction, live.number, live.total) == (1, pytest.approx(1.75 / 4), 3, 9)
    assert (live.unit, live.done, live.of) == ("rows", 7.5, None)
    (task.artefact.work / "progress-00001.json").unlink()
    tick(1)
    assert (live.shards_done, live.fraction) == (2, pytest.approx(2.25 / 4))
    assert live.done == 7.5, "what a finished shard has told still counts"


def test_progress_files_torn_by_a_power_cut_stop_no_run(tmp_path: Path) -> None:
    task, reporter = sampling_task(tmp_path), Reporter(every=0.0, stream=io.StringIO())
    tick = reporter.stage(1, 1, task, shards=4, missing=4)
    Progress(task.artefact.work / "progress-00000.json", 0.0)({"done": 5, "total": 10})
    for shard, torn in enumerate((b"", b'{"pid": 1, "do', b'{"pid": "\xff"}'), 1):
        (task.artefact.work / f"progress-{shard:05d}.json").write_bytes(torn)
    tick(0)
    assert (reporter.live.done, reporter.live.fraction) == (5, pytest.approx(0.5 / 4))


def test_rates_and_the_time_left_follow_from_a_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("pipelines.progress.time.monotonic", lambda: now[0])
    task, reporter = sampling_task(tmp_path), Reporter(every=1e9, stream=io.StringIO())
    tick = reporter.stage(1, 1, task, shards=1, missing=1)
    progress = Progress(task.artefact.work / "progress-00000.json", interval=-1.0)
    for second in range(0, 41, 10):
        now[0] = 100.0 + second
        progress({"done": second, "total": 100, "tokens": 20.0 * second})
        tick(0)
    live = reporter.live
    assert (live.rate, live.tokens_rate, live.left) == (pytest.approx(1.0), pytest.approx(20.0), pytest.approx(60.0))
    assert describe(live) == " 40%, 0/1 shards, 20 tokens/s, about 1m00s left, 40s gone"


def test_a_training_shows_steps_and_keeps_its_curve(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    task = sampling_task(tmp_path)
    with Reporter(folder, stream=io.StringIO()) as reporter:
        tick = reporter.stage(1, 1, task, shards=1, missing=1)
        progress = Progress(task.artefact.work / "progress-00000.json", interval=-1.0)
        for step in (1, 2, 3):
            progress({"done": step, "total": 10, "tokens": 7, "loss": 1.0 / step, "kl": float("nan")})
            tick(0)
    told = read_live(folder)
    assert told is not None and told.ended
    assert [p["loss"] for p in told.curve] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert (told.unit, told.done, told.of, told.tokens_rate) == ("steps", 3.0, 10.0, None)
    assert "step 3/10 loss 0.333" in describe(told)
    with Reporter(folder, stream=io.StringIO()) as reporter:  # the run goes on where it was
        assert len(reporter.stage(1, 1, task, shards=1, missing=1)._live.curve) == 3


def test_the_run_gives_signs_of_life_between_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.progress._HEARTBEAT", 0.05)
    with Reporter(tmp_path, stream=io.StringIO()):
        first = read_live(tmp_path)
        until = time.monotonic() + 60
        while (now := read_live(tmp_path)) == first and time.monotonic() < until:
            time.sleep(0.01)
    assert first and now and now.beat > first.beat and not now.ended
    ended = read_live(tmp_path)
    assert ended and ended.ended


def test_clock() -> None:
    assert [clock(s) for s in (0.2, 59.6, 185, 7260)] == ["0s", "1m00s", "3m05s", "2h01m"]


@pytest.fixture
def copied(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """The folder of the tiny run as another machine sees it: without the store."""
    shutil.copytree(tiny_run.folder, tmp_path / "seen", symlinks=True)
    plan = tmp_path / "seen" / "plan.json"
    plan.write_text(plan.read_text().replace(str(tiny_run.store), "/on/another/machine"))
    return tmp_path / "seen"


def test_a_finished_run_is_seen_without_its_store(copied: Path) -> None:
    state = status_of(copied)
    assert {s["state"] for s in state["stages"]} == {"done"}
    assert "finished, 13 of 13" in status_table(state)[0]
    assert any("accuracy" in line for line in status_table(state))


def test_a_run_on_another_machine_is_seen_at_work(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (copied / "metrics.jsonl").read_text().splitlines(keepends=True)
    events = (copied / "events.jsonl").read_text().splitlines(keepends=True)
    (copied / "metrics.jsonl").write_text("".join(lines[:6]))
    (copied / "events.jsonl").write_text("".join(events[: 1 + 2 * 6 + 1]))  # the seventh stage has been started
    stage = RunFolder(copied).plan()["stages"][6]
    live = Live(host="elsewhere", pid=7, beat=0.0, stage=stage["label"], key=stage["key"], number=7, total=13, shards=4,
                shards_done=1, fraction=0.4, seconds=20.0, left=30.0)  # fmt: skip
    write_live(copied, live)
    state = status_of(copied)
    assert state["running"] and state["host"] == "elsewhere"
    assert [s["state"] for s in state["stages"]] == ["done"] * 6 + ["running"] + ["waiting"] * 6
    assert state["left"] >= 30.0, "the stage at work, and the estimates of those that wait"
    out = io.StringIO()
    Lines(out)(state)
    assert f"[7/13] {stage['label']}:  40%, 1/4 shards, about 30s left, 20s gone" in out.getvalue()
    console = Console(file=io.StringIO(), width=100, height=40, force_terminal=True, color_system=None)
    console.print(watch_view(state, console))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("✓") == 6 and shown.count("▶") == 1 and "6 of 13 stages" in shown
    low = Console(file=io.StringIO(), width=60, height=12, force_terminal=True, color_system=None)
    low.print(watch_view(state, low))
    assert low.file.getvalue().count("\n") <= 12 and "▶" in low.file.getvalue()  # type: ignore[attr-defined]
    monkeypatch.setattr("pipelines.live._SILENT", -1.0)  # nothing has been heard for too long
    assert [s["state"] for s in status_of(copied)["stages"]][6] == "broken off"


def start(recipe: Path, home: Path, folder: Path) -> subprocess.Popen[str]:
    arguments = [*COMMAND, "run", str(recipe), "--run-dir", str(folder)]
    return subprocess.Popen(arguments, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            start_new_session=True)  # fmt: skip


def wait_for(found: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not found():
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.05)


def test_watching_a_live_run_from_another_process_until_it_ends(tiny_recipe: Recipe, home: Path, tmp_path: Path) -> None:
    folder, seen = tmp_path / "run", tmp_path / "seen.txt"
    run = start(tiny_recipe(*LONG), home, folder)
    wait_for(lambda: (live := read_live(folder)) and live.stage == "iteration1/sample" and live.shards_done > 0, run)
    os.killpg(run.pid, signal.SIGSTOP)  # it stays in this stage, however late the other process is, until that has seen it
    try:
        with seen.open("w") as file:
            arguments = [*COMMAND, "status", str(folder), "--watch"]
            watching = subprocess.Popen(arguments, env=environment(home), stdout=file, stderr=subprocess.STDOUT, text=True)
        wait_for(lambda: "iteration1/sample: " in seen.read_text(), watching)
    finally:
        os.killpg(run.pid, signal.SIGCONT)
    ended = watching.wait(timeout=300)
    out = seen.read_text()
    assert run.wait(timeout=60) == 0 and ended == 0, out
    lines = out.splitlines()
    assert re.search(r": running, \d+ of \d+ stages done, \d+s gone", lines[0]), out
    assert re.search(r"^\[\d+/\d+\] iteration1/sample: +\d+%, \d+/40 shards, .*gone; run: ", out, re.MULTILINE), out
    assert re.search(r"^\[\d+/\d+\] iteration1/train: \d+ steps on \d+ examples", out, re.MULTILINE), "stages as they end"
    assert ": finished, " in out and "last event: run finished" in lines[-1]


def test_watching_a_run_that_is_killed_ends_with_the_command_that_continues(
    tiny_recipe: Recipe, home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    run = start(tiny_recipe(*LONG), home, folder)
    wait_for(lambda: (live := read_live(folder)) and live.stage == "iteration1/sample" and live.shards_done > 2, run)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    out = io.StringIO()
    state = watch(folder, out)
    assert not state["running"] and f"continue with: ratchet resume {folder}" in out.getvalue()
    assert re.search(r"broken off \(\d+ shards\) +iteration1/sample +\d+%", out.getvalue())
    assert ratchet("status", str(folder), "--watch", home=home, cwd=tmp_path, check=False).returncode == 1
    ratchet("resume", str(folder), home=home, cwd=tmp_path)
    assert ratchet("status", str(folder), "--watch", home=home, cwd=tmp_path).returncode == 0
    both = ratchet("status", str(folder), "--watch", "--json", home=home, cwd=tmp_path, check=False)
    assert both.returncode == 2 and "leave out --json" in both.stderr


def on_a_terminal(arguments: list[str], home: Path, cwd: Path) -> tuple[int, str]:
    """Run a command on a pseudo-terminal of 100 columns and 30 lines; exit code and everything that it wrote."""
    leader, follower = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    env = environment(home, TERM="xterm-256color", PYTHONIOENCODING="utf-8")
    process = subprocess.Popen(arguments, env=env, cwd=cwd, stdin=follower, stdout=follower, stderr=follower, close_fds=True)
    os.close(follower)
    written = b""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        if select.select([leader], [], [], 0.2)[0]:
            try:
                written += os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
        elif process.poll() is not None:
            break
    os.close(leader)
    return process.wait(timeout=30), written.decode("utf-8", "replace")


def test_a_terminal_sees_a_moving_table_and_keeps_the_lines(tiny_recipe: Recipe, home: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(*LONG)
    code, seen = on_a_terminal([*COMMAND, "run", str(recipe), "--run-dir", "run"], home, tmp_path)
    assert code == 0, seen
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)
    assert re.search(r"▶ iteration1/sample .*\d+/40 shards", plain), plain[-3000:]
    assert re.search(r"· iteration1/train", plain), "what comes next"
    assert re.search(r"\d+ of \d+ stages, \d+s gone, about ", plain)
    assert re.search(r"\[\d+/\d+\] iteration1/train: \d+ steps", plain), "a line that stays for each stage"
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h") == 1, "the cursor is given back"
    assert "95% interval" in plain


def test_the_memory_of_stages_is_measured(tiny_run: TinyRun) -> None:
    if not sys.platform.startswith("linux"):
        pytest.fail("Ratchet runs on Linux")
    for path in tiny_run.store.glob("*/*/manifest.json"):
        timing = json.loads(path.read_text())["timing"]
        assert 50e6 < timing["peak_resident_bytes"] < 20e9, path
