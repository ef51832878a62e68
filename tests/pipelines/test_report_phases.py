"""Reports of runs of several phases: their models by name and in order, and beside runs without phases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.report import write_report
from pipelines.report.record import RunRecord, flat
from pipelines.report.settings import value
from pipelines.runfolder import RunFolder
from tests.conftest import TinyRun
from tests.pipelines.report_world import HTML, SVG, HandMadeRun, cells, parsed, section, texts

MODELS = ["sft", "rft1", "rft2", "dpo", "remax"]


@pytest.fixture(scope="module")
def tree(phase_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The report of the run of four phases."""
    return parsed(write_report([phase_run.folder], tmp_path_factory.mktemp("report") / "r.html").read_text())


def chart(tree: Any, name: str) -> Any:
    return next(s for s in tree.iter(f"{SVG}svg") if s.get("aria-label") == name)


def marks(picture: Any) -> list[str]:
    """Names on the scale of models, from left to right."""
    found = [t for t in picture.iter(f"{SVG}text") if t.get("class") in ("mid", "end") and t.get("x")]
    return [texts(t) for t in sorted(found, key=lambda t: float(t.get("x"))) if not texts(t).endswith("%")]


def test_models_stand_in_the_order_of_training(phase_run: TinyRun, tree: Any) -> None:
    metrics = RunFolder(phase_run.folder).read_metrics()
    shown = section(tree, "accuracy")
    rows = [r[:2] for r in cells(shown) if len(r) == 8 and r[0] != "model"]
    told = [[m, f"{metrics[f'{m}/held/greedy']['accuracy']:.1%}"] for m in ("initial", *MODELS)]
    once = [[m, f"{metrics[f'{m}/words/greedy']['accuracy']:.1%}"] for m in ("initial", "remax")]
    assert rows == [*told, *once], "each evaluation set with all its models"
    picture = chart(shown, "Accuracy by iteration")
    assert marks(picture) == ["start", *MODELS]
    assert "model after phase or iteration" in texts(picture)


def test_the_head_names_each_phase_and_what_it_does(tree: Any) -> None:
    phases = next(o for o in tree.iter(f"{HTML}ol"))
    assert [texts(li).partition(":")[0] for li in phases] == ["sft", "rft", "dpo", "remax"]
    human, sampled, pairs, online = (texts(li) for li in phases)
    assert "the solutions that came with" in human
    assert sampled.startswith("rft: 2 iterations of supervised fine-tuning on") and "8 samples each" in sampled
    assert "DPO on per-step pairs" in pairs and "temperature 0.6" in pairs
    assert "ReMax (3 steps)" in online and "4 samples each" in online


def test_every_training_has_its_curves_by_name(tree: Any) -> None:
    header = next(r for r in cells(section(tree, "training")) if r and r[0].startswith("first"))
    assert header[1:] == [f"{m}/train" for m in MODELS]
    legends = [texts(li) for li in section(tree, "training").iter(f"{HTML}li")]
    assert {"sft", "rft1", "rft2", "dpo", "remax, samples", "remax, greedy baseline"} <= set(legends)


def test_settings_of_phases_are_told_by_key(phase_run: TinyRun, tree: Any) -> None:
    rows = {r[0]: r[1] for r in cells(section(tree, "settings")) if len(r) == 3}
    assert rows["phases.dpo.training.method"] == "dpo" and rows["phases.remax.training.rl.steps"] == "3"
    assert rows["phases.rft.iterations.count"] == value(2)
    assert "phases" not in flat(RunRecord(phase_run.folder).recipe)


def scored(world: HandMadeRun, *names: str) -> Path:
    """A run that has trained models of these names, with an accuracy for each and for the one before them."""
    train: dict[str, str] = {}
    for i, name in enumerate(["initial", *names]):
        if i:
            train = {"model": world.add("train", f"{name}/train", train, metrics={"steps": 1})}
        samples = world.add("sample", f"{name}/own/greedy/sample", train, metrics={"samples": 4})
        world.add("score", f"{name}/own/greedy", {"samples": samples},
                  metrics={"accuracy": 0.25 * i, "low": 0.0, "high": 1.0, "problems": 4})  # fmt: skip
    return world.write()


def test_phases_beside_iterations_are_numbered_where_names_differ(tmp_path: Path) -> None:
    phases = scored(HandMadeRun(tmp_path / "phased", name="p", phases=[{"name": "sft"}, {"name": "rft"}]), "sft", "rft")
    plain = scored(HandMadeRun(tmp_path / "plain"), "iteration1", "iteration2", "iteration3")
    tree = parsed(write_report([phases, plain], tmp_path / "both.html").read_text())
    picture = chart(tree, "Accuracy, own, greedy")
    assert marks(picture) == ["start", "1", "2", "3"] and "model after training" in texts(picture)
    rows = [r[:2] for r in cells(section(tree, "accuracy")) if len(r) == 5 and r[0] != "run"]
    assert rows == [*(["phased/run", m] for m in ("initial", "sft", "rft")), ["plain/run", "initial"],
                    *(["plain/run", f"iteration {i}"] for i in (1, 2, 3))]  # fmt: skip


def test_long_names_of_phases_are_slanted_and_kept_apart(tmp_path: Path) -> None:
    names = [f"{letter * 3}_of_many_words" for letter in "abcdefgh"]
    folder = scored(HandMadeRun(tmp_path, name="long", phases=[{"name": n} for n in names]), *names)
    picture = chart(parsed(write_report([folder]).read_text()), "Accuracy by iteration")
    turned = [t for t in picture.iter(f"{SVG}text") if (t.get("transform") or "").startswith("rotate(-30")]
    assert len(turned) == len(names) + 1
    height, label = float(picture.get("viewBox").split()[3]), next(
        t for t in picture.iter(f"{SVG}text") if texts(t) == "model after phase or iteration"
    )
    assert max(float(t.get("y")) for t in turned) < float(label.get("y")) < height
    told = [texts(t) for t in picture.iter(f"{SVG}title")]
    assert all(any(n in t for t in told) for n in names), "whole names where a pointer stands"


def test_a_run_that_began_with_another_runs_model_names_it(tmp_path: Path) -> None:
    world = HandMadeRun(tmp_path, name="second", model={"name": "/somewhere/deep/first@rft2"})
    samples = world.add("sample", "first@rft2/own/greedy/sample", {"model": "of another run"}, metrics={"samples": 4})
    world.add("score", "first@rft2/own/greedy", {"samples": samples},
              metrics={"accuracy": 0.5, "low": 0.0, "high": 1.0, "problems": 4})  # fmt: skip
    tree = parsed(write_report([world.write()]).read_text())
    assert ["start (first@rft2)", "50.0%"] in [r[:2] for r in cells(section(tree, "accuracy"))]
    head = texts(next(tree.iter(f"{HTML}header")))
    assert "first@rft2" in head and "/somewhere" not in head
