from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.errors import ConfigError, InputError
from configs.load import load_recipe
from configs.schema import Recipe
from pipelines.models import ResolvedModel
from pipelines.plan import build, resolve
from pipelines.runfolder import RunFolder
from pipelines.store import Store


def recipe(*overrides: str) -> Recipe:
    return load_recipe("demo", [*overrides])


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A run folder locked by another process, and that process's id."""
    folder = tmp_path / "run"
    RunFolder.create(folder, recipe())
    code = """
import sys
from pathlib import Path
from pipelines.runfolder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    yield folder, other.pid
    other.communicate()


def test_the_same_recipe_continues(tmp_path: Path):
    first = RunFolder.create(tmp_path / "run", recipe("training.learning_rate=5e-4", "sampling.stop=['\\n', 'ü']"))
    before = (tmp_path / "run" / "recipe.yaml").read_bytes()
    again = RunFolder.create(tmp_path / "run", first.recipe())
    assert again.recipe() == first.recipe()
    assert (tmp_path / "run" / "recipe.yaml").read_bytes() == before


def test_another_recipe_is_refused_with_the_keys_that_differ(tmp_path: Path):
    RunFolder.create(tmp_path / "run", recipe())
    before = (tmp_path / "run" / "recipe.yaml").read_bytes()
    with pytest.raises(InputError) as caught:
        RunFolder.create(tmp_path / "run", recipe("sampling.temperature=0.123", "training.lora.r=3"))
    message = str(caught.value)
    assert "  sampling.temperature: 0.7 there, 0.123 here\n" in message
    assert "  training.lora.r: 16 there, 3 here\n" in message
    assert "sampling.n" not in message
    assert f"ratchet resume {tmp_path / 'run'}" in message
    assert (tmp_path / "run" / "recipe.yaml").read_bytes() == before


def test_the_executor_may_change(tmp_path: Path):
    RunFolder.create(tmp_path / "run", recipe())
    RunFolder.create(tmp_path / "run", recipe("executor.kind=ray", "executor.workers=4"))


def test_a_folder_in_use_is_refused_with_the_process(held: tuple[Path, int]):
    folder, pid = held
    assert RunFolder(folder).in_use()
    with pytest.raises(InputError) as caught, RunFolder(folder).locked():
        pass
    assert f"{folder} is in use by process {pid}" in str(caught.value)
    assert f"ratchet status {folder}" in str(caught.value)


def test_the_lock_ends_with_its_holder(tmp_path: Path):
    run = RunFolder.create(tmp_path / "run", recipe())
    assert not run.in_use()
    for _ in range(2):
        with run.locked():
            assert run.in_use()
    assert not run.in_use()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(InputError, match="exists and is not a run folder"):
        RunFolder.create(tmp_path, recipe())
    with pytest.raises(InputError, match="exists and is not a run folder"):
        RunFolder.create(tmp_path / "thesis.tex", recipe())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match=r"is not a run folder \(it has no recipe\.yaml\)"):
        RunFolder.existing(tmp_path)


def test_an_empty_folder_may_be_used(tmp_path: Path):
    (tmp_path / "run").mkdir()
    assert RunFolder.create(tmp_path / "run", recipe()).recipe() == recipe()


def test_a_parent_that_cannot_be_written_is_an_input_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot make the run folder .*file/run: .*choose another --run-dir"):
        RunFolder.create(tmp_path / "file" / "run", recipe())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("text", "kind"), [("{", InputError), ("sampling: {zzz: 1}", ConfigError)])
def test_a_damaged_recipe_is_named(tmp_path: Path, text: str, kind: type[Exception]):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(kind, match=r"recipe\.yaml: "):
        RunFolder.existing(tmp_path).recipe()


def test_a_torn_last_line_is_not_read_and_not_kept(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.event("one", stage="ü")
    whole = (tmp_path / "events.jsonl").read_bytes()
    run.event("two")
    line = (tmp_path / "events.jsonl").read_bytes()[len(whole) :]
    for cut in range(len(line)):
        (tmp_path / "events.jsonl").write_bytes(whole + line[:cut])
        assert [e["event"] for e in run.events()] == ["one"]
        run.event("three")
        assert [e["event"] for e in run.events()] == ["one", "three"]


def test_a_damaged_line_is_named(tmp_path: Path):
    (tmp_path / "events.jsonl").write_text('{"event": "a"}\n{oops\n{"event": "b"}\n')
    with pytest.raises(InputError, match=r"events\.jsonl, line 2: damaged"):
        RunFolder(tmp_path).events()


def test_metrics_of_a_stage_are_its_last(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.metrics("a", "score", "k", False, {"accuracy": 0.1})
    run.metrics("a", "score", "k", True, {"accuracy": 0.2})
    assert run.read_metrics()["a"] == {"stage": "a", "kind": "score", "key": "k", "cached": True, "accuracy": 0.2}
    assert RunFolder(tmp_path / "none").events() == []


def test_the_plan_is_recorded_and_linked_and_links_follow_the_store(tmp_path: Path):
    plan = build(resolve(recipe("model.dtype=float32")), ResolvedModel("m", tmp_path, "f" * 32))
    run = RunFolder.create(tmp_path / "run", plan.recipe)
    for root in ("old", "new"):
        store = Store(tmp_path / root)
        run.write_plan(plan, store)
        links = sorted((tmp_path / "run" / "artefacts").iterdir())
        assert [link.readlink() for link in links] == [store.artefact(s.kind, s.key).path for s in plan.stages]
    assert links[0].name == "00-problems-word-problems"
    recorded = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert [s["key"] for s in recorded["stages"]] == [s.key for s in plan.stages]
    assert recorded["trained"] == [s.key for s in plan.trained]
    assert recorded == run.plan()
