from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from configs.errors import ConfigError, InputError
from configs.load import load_recipe
from configs.rows import Group, Pair, Problem, Row
from configs.schema import PromptSection
from data_gen.prompts import PromptEncoder
from pipelines.cli import app
from pipelines.contamination import check_run, lines
from pipelines.runfolder import RunFolder
from pipelines.store import Store, write_rows
from tests.conftest import TinyRun

QUESTION = "Weng earns 12 dollars an hour for babysitting. Yesterday she did 50 minutes of babysitting and earned how much?"
SOLUTION = "She earns 12 / 60 = 0.2 dollars a minute. Working 50 minutes she earned 0.2 * 50 = 10 dollars in all."

PROBLEM = Problem(
    id="p", parents=[], stage="problems", source="own", split="train", question=QUESTION, answer="1", solution=SOLUTION
)


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps({"answer": 1, **r}) + "\n" for r in records))
    return path


@pytest.fixture
def encoder(tiny_model: Path) -> PromptEncoder:
    return PromptEncoder(tiny_model, PromptSection())


def a_run(root: Path, model: Path, label: str, kind: str, rows: list[Row], trains: str = "train") -> Path:
    """A run folder whose training stage reads `rows`."""
    store = Store(root / "store")
    artefact = store.artefact(kind, "a" * 32)
    write_rows(artefact.part(0), rows, type(rows[0]))
    store.finish(artefact, {"metrics": {}})
    stages = [
        {"label": label, "kind": kind, "key": "a" * 32, "inputs": {}},
        {"label": "iteration1/train", "kind": trains, "key": "b" * 32, "inputs": {"rows": "a" * 32, "elsewhere": "c" * 32}},
    ]
    folder = RunFolder.create(root / "run", load_recipe("demo")).path
    plan = {"store": str(store.root), "stages": stages, "trained": [], "model": {"path": str(model)}}
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def test_a_run_that_trained_on_its_test_set_is_found_out(tiny_run: TinyRun):
    """The tiny run trains on the very problems of own.jsonl; its evaluation set is another."""
    own = str(load_recipe(str(tiny_run.recipe)).data.train.path)
    found = check_run(tiny_run.folder, own)
    (label,) = found["rows"]
    assert label == "iteration1/select" and found["rows"][label] >= 16
    assert found["benchmarks"]["own"]["question"] == {"checked": 16, "contained": 16, "touched": 16}
    assert found["benchmarks"]["own"]["solution"]["checked"] == 0, "too short to look for"
    of_recipe = check_run(tiny_run.folder, None)["benchmarks"]
    assert of_recipe["words"]["question"] == {"checked": 8, "contained": 0, "touched": 0}


def test_both_sides_of_a_pair_were_trained_on(tiny_model: Path, tmp_path: Path, encoder: PromptEncoder):
    pair = Pair(
        id="p/pair", parents=[], stage="pairs", problem="p", context_ids=encoder.encode(QUESTION),
        chosen_ids=encoder.completion_ids("No."), rejected_ids=encoder.completion_ids(SOLUTION),
        chosen="shown text is not looked at", rejected="", kind="full", error=None, first_difference=0, chosen_eos=True,
        rejected_eos=True,
    )  # fmt: skip
    run = a_run(tmp_path, tiny_model, "iteration1/pairs", "pairs", [pair])
    found = check_run(run, str(write(tmp_path / "t.jsonl", {"question": QUESTION, "solution": SOLUTION})))
    assert [(o["part"], o["share"], o["row"]) for o in found["benchmarks"]["t"]["overlaps"]] == [
        ("solution", 1.0, "p/pair"), ("question", 1.0, "p/pair"),
    ]  # fmt: skip
    shown = lines(found, worst=1)
    assert shown[0] == "trained on: 1 rows of iteration1/pairs"
    assert sum(line.startswith("t: 100% of the ") for line in shown) == 1


def test_reward_models_and_online_training_read_other_rows(tiny_model: Path, tmp_path: Path, encoder: PromptEncoder):
    ids = encoder.completion_ids(SOLUTION)
    group = Group(
        id="g", parents=[], stage="reward_data", problem="p", split="train", prompt_ids=encoder.encode("?"), samples=["s"],
        models=["m"], token_ids=ids, lengths=[len(ids)], marks=[0], labels=[1.0], counts=[1], solve_rate=0.5,
    )
    test_set = str(write(tmp_path / "t.jsonl", {"question": QUESTION, "solution": SOLUTION}))
    run = a_run(tmp_path / "a", tiny_model, "iteration1/reward_data", "reward_data", [group], trains="reward_train")
    assert [o["part"] for o in check_run(run, test_set)["benchmarks"]["t"]["overlaps"]] == ["solution"]
    run = a_run(tmp_path / "b", tiny_model, "problems/train", "problems", [PROBLEM])
    assert [o["part"] for o in check_run(run, test_set)["benchmarks"]["t"]["overlaps"]] == ["question"], "it sees no solutions"


def test_runs_that_cannot_be_checked(tiny_run: TinyRun, tiny_model: Path, tmp_path: Path, encoder: PromptEncoder):
    run = a_run(tmp_path, tiny_model, "problems/train", "problems", [PROBLEM])
    with pytest.raises(ConfigError, match="did you mean `gsm8k`"):
        check_run(run, "gsm8")
    with pytest.raises(ConfigError, match=r"none\.jsonl does not exist"):
        check_run(run, "none.jsonl")
    with pytest.raises(InputError, match="is not a run folder"):
        check_run(tmp_path / "store", None)
    own = str(write(tmp_path / "t.jsonl", {"question": QUESTION}))
    plan_file = run / "plan.json"
    plan = plan_file.read_text()
    plan_file.write_text(plan.replace(str(tiny_model), "/gone"))
    with pytest.raises(InputError, match=r"the tokenizer of .* is gone with /gone"):
        check_run(run, own)
    plan_file.write_text(plan.replace('"train"', '"score"'))
    with pytest.raises(InputError, match="trains nothing"):
        check_run(run, own)
    plan_file.write_text(plan)
    shutil.rmtree(tmp_path / "store" / "problems")
    with pytest.raises(InputError, match="problems/train is not finished: ratchet resume"):
        check_run(run, own)


def test_the_command(tiny_run: TinyRun):
    own = str(load_recipe(str(tiny_run.recipe)).data.train.path)
    shown = CliRunner().invoke(app, ["contamination", str(tiny_run.folder), "--benchmarks", own, "--worst", "2"])
    assert shown.exit_code == 0, shown.exception
    assert re.search(r"^own +question +16 +16 +16$", shown.output, re.MULTILINE)
    assert shown.output.count("own: 100% of the question of own/") == 2
    as_json = CliRunner().invoke(app, ["contamination", str(tiny_run.folder), "--benchmarks", own, "--json"])
    assert json.loads(as_json.output)["benchmarks"]["own"]["question"]["contained"] == 16
