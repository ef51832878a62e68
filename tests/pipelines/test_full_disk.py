"""A disk that fills up during training: one message, exit code 1, nothing half-written; and the run goes on later."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.pipelines.helpers import COMMAND, assert_same, contents, environment, ratchet


def test_a_disk_that_fills_up_while_training(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe, home = str(tiny_recipe()), tmp_path / "home"
    done = subprocess.run(
        [*COMMAND, "run", recipe, "--run-dir", "run"], env=environment(home), cwd=tmp_path, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no space left while writing" in done.stderr and "Traceback" not in done.stderr
    assert "ratchet resume run" in done.stdout
    assert not [p for p in home.rglob("*") if p.name.endswith(".tmp")]
    ratchet("resume", "run", home=home, cwd=tmp_path)
    calm = tmp_path / "calm"
    ratchet("run", recipe, "--run-dir", "calm-run", home=calm, cwd=tmp_path)
    assert_same(contents(calm), contents(home))


def test_a_slice_without_problems_is_said_plainly(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1), "solution": f"#### {i + 1}"} for i in range(4)]
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = tiny_recipe(
        f"data.train={{source: jsonl, path: {own}, limit: 16}}", "data.fresh_per_iteration=true", "iterations.count=2"
    )
    done = ratchet("run", str(recipe), "--run-dir", "run", home=tmp_path / "home", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "iteration2/sample: no problems left: there are 4" in done.stderr
