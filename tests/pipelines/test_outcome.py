from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from configs.errors import InputError
from configs.load import load_recipe
from configs.rows import ProblemScore
from pipelines.compare import paired
from pipelines.models import ResolvedModel
from pipelines.outcome import accuracy_table
from pipelines.plan import build, resolve
from pipelines.results import write_results
from pipelines.runfolder import RunFolder
from pipelines.statistics import accuracy
from pipelines.status import status_of, status_table
from pipelines.store import Store
from tests.conftest import TinyRun


def test_a_finished_run_says_so(tiny_run: TinyRun):
    state = status_of(tiny_run.folder)
    assert state["done"] == state["total"] == 13
    assert not state["running"]
    assert {s["state"] for s in state["stages"]} == {"done"}
    assert state["last_event"]["event"] == "run finished"
    lines = status_table(state)
    assert lines[0] == f"{tiny_run.folder}: finished, 13 of 13 stages done"
    assert not any("continue with" in line for line in lines)


@pytest.mark.parametrize("holder", [True, False])
def test_a_run_that_is_under_way_or_broken_off(tiny_run: TinyRun, tmp_path: Path, holder: bool):
    shutil.copytree(tiny_run.folder, tmp_path / "run", symlinks=True)
    shutil.copytree(tiny_run.store, tmp_path / "store")
    plan_file = tmp_path / "run" / "plan.json"
    plan_file.write_text(plan_file.read_text().replace(str(tiny_run.store), str(tmp_path / "store")))
    run = RunFolder(tmp_path / "run")
    stages = run.plan()["stages"]
    for stage in stages[6:]:
        folder = tmp_path / "store" / stage["kind"] / stage["key"]
        (folder / "manifest.json").unlink(missing_ok=True)
    work = tmp_path / "store" / stages[6]["kind"] / stages[6]["key"] / "work"
    work.mkdir()
    for shard in range(2):
        (work / f"shard-{shard:05d}.json").write_text("{}")
    if holder:
        with run.locked():
            state = status_of(run.path)
    else:
        state = status_of(run.path)
    assert state["running"] is holder
    assert [s["state"] for s in state["stages"]] == ["done"] * 6 + ["running" if holder else "broken off"] + [
        "waiting"
    ] * 6
    assert state["stages"][6]["shards_done"] == 2
    lines = status_table(state)
    assert f"{'running' if holder else 'stopped'}, 6 of 13" in lines[0]
    assert (lines[-1] == f"continue with: ratchet resume {run.path}") is not holder


def test_a_folder_that_is_no_run_or_has_only_begun(tmp_path: Path):
    with pytest.raises(InputError, match="is not a run folder"):
        status_of(tmp_path)
    RunFolder.create(tmp_path / "run", load_recipe("demo"))
    assert "stopped, 0 of 0" in status_table(status_of(tmp_path / "run"))[0]


def test_the_table_shows_each_model_with_its_interval_and_the_paired_gain():
    first, second = (
        [
            ProblemScore(id=str(i), parents=[], stage="score", problem=str(i), question="", answer="", samples=1,
                         correct=int(i < right), extracted=None, outcome="", text="")
            for i in range(100)
        ]
        for right in (20, 50)
    )
    of = {"benchmark": "word-problems", "decoding": "greedy"}
    told = {**of, "mode": "lenient", "sampling": {}}
    gain = paired(first, second)
    assert gain is not None
    lines = accuracy_table({
        "evaluations": [{"model": "initial", **told, **accuracy(first)}, {"model": "iteration1", **told, **accuracy(second)}],
        "comparisons": [{"model": "iteration1", "with": "start@2", **of, **msgspec.structs.asdict(gain)}],
    })  # fmt: skip
    assert lines[1].endswith("gain over start@2"), "the model that is compared with, whatever it is called"
    assert lines[2].split() == ["initial", "word-problems", "greedy", "20.0%", "[13.3%,", "28.9%]", "100"]
    after = lines[3].split()
    assert after[:7] == ["iteration1", "word-problems", "greedy", "50.0%", "[40.4%,", "59.6%]", "100"]
    assert after[7:9] == ["+30.0", "points"]
    low, high = (float(x.strip("[],")) for x in after[9:])
    assert 20 < low < 30 < high < 40
    assert lines[4].startswith("extraction: lenient")


def test_without_benchmarks_there_is_no_table(tmp_path: Path):
    recipe = resolve(load_recipe("demo", ["evaluation.benchmarks=[]", "model.dtype=float32"]))
    plan = build(recipe, ResolvedModel("m", tmp_path, "f" * 32))
    assert accuracy_table(write_results(tmp_path, plan, Store(tmp_path))) == []
