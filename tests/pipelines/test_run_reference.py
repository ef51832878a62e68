"""RUN@ITERATION as a model: to evaluate it, and to begin another run from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TinyRun
from tests.pipelines.helpers import ratchet


@pytest.fixture
def begun(tiny_run: TinyRun, tmp_path: Path) -> tuple[Path, Path]:
    """A home and a run folder of one's own, with the finished run's artefacts in them."""
    home, folder = tmp_path / "home", tmp_path / "run"
    shutil.copytree(tiny_run.home, home)
    shutil.copytree(tiny_run.folder, folder, symlinks=True)
    ratchet("resume", str(folder), home=home, cwd=tmp_path)  # moves plan and links to the new home
    return home, folder


def test_an_evaluation_is_a_run_that_can_be_resumed(begun: tuple[Path, Path], tmp_path: Path) -> None:
    home, folder = begun
    asked = ("eval", str(folder), "--benchmarks", "procedural", "--limit", "3")
    shown = ratchet(*asked, "--run-dir", "e", home=home, cwd=tmp_path)
    assert f"{folder.name}@1" in shown.stdout and "95% interval" in shown.stdout and "prompt: " in shown.stdout
    stages = json.loads((tmp_path / "e" / "plan.json").read_text())["stages"]
    assert not [s for s in stages if s["kind"] == "train"]
    again = ratchet("resume", "e", home=home, cwd=tmp_path)
    assert again.stdout.count("(cached)") == len(stages)
    first = ratchet(*asked, "--iteration", "0", home=home, cwd=tmp_path)
    assert "initial" in first.stdout and f"{folder.name}@1" not in first.stdout


def test_a_run_can_begin_from_another_ones_model(
    begun: tuple[Path, Path], tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    home, folder = begun
    done = ratchet("run", str(tiny_recipe(f"model.name={folder}@1")), "--run-dir", "next", home=home, cwd=tmp_path)
    assert done.returncode == 0
    of_first = json.loads((folder / "plan.json").read_text())
    of_next = json.loads((tmp_path / "next" / "plan.json").read_text())
    train = next(s for s in of_next["stages"] if s["kind"] == "train")
    assert train["inputs"]["model"] == of_first["trained"][0]
    assert train["key"] not in of_first["trained"]
    labels = [s["label"] for s in of_next["stages"]]
    assert len(labels) == len(set(labels)), "the start is not taken for an iteration of this run"
    assert f"{folder.name}@1/words/greedy" in labels and "iteration1/words/greedy" in labels


def test_weights_and_adapters_are_not_taken_for_each_other(
    begun: tuple[Path, Path], tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    home, folder = begun
    recipe = str(tiny_recipe(f"model.name={folder}@1", "training.adapter=lora"))
    done = ratchet("run", recipe, "--run-dir", "next", home=home, cwd=tmp_path, check=False)
    assert done.returncode == 2 and "has trained all weights, and training.adapter is `lora`" in done.stderr, done.stderr
    assert f"`ratchet export {folder}@1 --to FOLDER`" in done.stderr and not (tmp_path / "next").exists()
    ratchet("export", f"{folder}@1", "--to", "whole", home=home, cwd=tmp_path)
    recipe = str(tiny_recipe("model.name=./whole", "training.adapter=lora"))
    ratchet("run", recipe, "--run-dir", "next", home=home, cwd=tmp_path)
    recipe = str(tiny_recipe(f"model.name={tmp_path / 'next'}@1"))
    done = ratchet("plan", recipe, home=home, cwd=tmp_path, check=False)
    assert done.returncode == 2 and "has trained an adapter, and training.adapter is `full`" in done.stderr, done.stderr


def test_references_that_lead_nowhere(begun: tuple[Path, Path], tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    home, folder = begun
    for name, message in ((f"{folder}@7", "iterations 1 to 1, not `7`"), (str(folder), f"give {folder}@1")):
        done = ratchet("plan", str(tiny_recipe(f"model.name={name}")), home=home, cwd=tmp_path, check=False)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    shutil.rmtree(home / "store" / "train")
    done = ratchet("plan", str(tiny_recipe(f"model.name={folder}@1")), home=home, cwd=tmp_path, check=False)
    assert done.returncode == 2 and "is not finished: ratchet resume" in done.stderr
