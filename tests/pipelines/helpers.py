"""Running `ratchet` as a user does, and comparing what two runs left in their stores."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "pipelines.cli")


def ratchet(*arguments: str, home: Path, cwd: Path, check: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
    """`ratchet ARGUMENTS` to its end, with a RATCHET_HOME of its own."""
    done = subprocess.run([*COMMAND, *arguments], env=environment(home, **extra), cwd=cwd, capture_output=True, text=True)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def start(recipe: Path, folder: Path, home: Path) -> subprocess.Popen[str]:
    """`ratchet run` of a recipe in a folder, or `ratchet resume` where it has begun, in a process group of its own."""
    resuming = (folder / "plan.json").exists()
    arguments = ["resume", str(folder)] if resuming else ["run", str(recipe), "--run-dir", str(folder)]
    return subprocess.Popen(
        [*COMMAND, *arguments], env=environment(home), cwd=folder.parent, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )


def assert_kills_change_nothing(
    recipe: Path, folder: Path, reached: Callable[[Path, int], bool], steps: Sequence[int]
) -> None:
    """A run that is killed when each of these steps is `reached` in its home, and resumed, ends like a calm one."""
    calm = start(recipe, folder / "calm-run", folder / "calm")
    _, errors = calm.communicate()
    assert calm.returncode == 0, errors
    home = folder / "killed"
    for step in steps:
        process = start(recipe, folder / "killed-run", home)
        while process.poll() is None and not reached(home, step):
            time.sleep(0.002)
        assert process.poll() is None, "the run ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    last = start(recipe, folder / "killed-run", home)
    _, errors = last.communicate()
    assert last.returncode == 0, errors
    assert_same(contents(folder / "calm"), contents(home))


def environment(home: Path, **extra: str) -> dict[str, str]:
    """The environment of a ratchet process."""
    return {**os.environ, "RATCHET_HOME": str(home), **extra}


def write_reward_run(folder: Path, home: Path, fingerprint: str) -> Path:
    """A run folder with a finished outcome reward model, without weights, in the store of `home`."""
    artefact = home / "store" / "reward_train" / ("b" * 32)
    artefact.mkdir(parents=True)
    config = {"model": fingerprint, "reward_model": {"kind": "outcome"}, "training": {"adapter": "lora", "lora": {"r": 5}}}
    (artefact / "manifest.json").write_text(json.dumps({"config": config}))
    return write_plan(folder, home, [{"kind": "reward_train", "key": "b" * 32}])


def write_plan(folder: Path, home: Path, stages: list[dict[str, Any]]) -> Path:
    """A folder with the plan of a run."""
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps({"store": str(home / "store"), "stages": stages}))
    return folder


def contents(home: Path) -> dict[str, bytes]:
    """Every file of every artefact, manifests without what may differ between runs (times)."""
    store = home / "store"
    found: dict[str, bytes] = {}
    for path in sorted(p for p in store.rglob("*") if p.is_file() and not p.name.startswith(".")):
        name = path.relative_to(store).as_posix()
        timeless = path.name == "manifest.json"
        found[name] = json.dumps(_timeless(path), sort_keys=True).encode() if timeless else path.read_bytes()
    return found


def _timeless(manifest: Path) -> dict[str, Any]:
    return {k: v for k, v in json.loads(manifest.read_text()).items() if k != "timing"}


def assert_same(a: dict[str, bytes], b: dict[str, bytes]) -> None:
    """Same files, same bytes."""
    assert sorted(a) == sorted(b)
    differing = [name for name in a if a[name] != b[name]]
    assert not differing, differing
