"""Problem sources as stages: keys follow the content, names on the hub are settled to a commit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from typer.testing import CliRunner

from configs.errors import ConfigError
from configs.evaluation_section import SourceSection
from configs.load import load_recipe
from configs.phases import phases_of
from configs.rows import Problem
from pipelines.cli import app
from pipelines.plan import resolve
from pipelines.sources import problems_stage
from pipelines.store import Artefact, read_rows
from tests.data_gen.hub import COMMIT, serving
from tests.pipelines.helpers import ratchet
from tests.test_docs import ROOT, blocks

ROWS = [{"q": f"{i} + {i}?", "a": str(2 * i)} for i in range(8)]


def key(path: Path, **settings: object) -> str:
    return problems_stage("p", SourceSection.model_validate({"source": "datasets", "path": str(path), **settings})).key


def test_the_key_follows_content_and_name(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    file = folder / "train.jsonl"
    file.write_text("{}\n")
    first, alone = key(folder), key(file)
    shutil.copytree(folder, tmp_path / "else" / "set")
    assert key(tmp_path / "else" / "set") == first
    (folder / ".hidden").write_text("x")
    assert key(folder) == first
    assert key(folder, extract="boxed") != first and key(folder, columns={"question": "q"}) != first
    stat = file.stat()
    file.write_text("[]\n")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert key(folder) != first and key(file) != alone
    file.write_text("{}\n")
    assert key(folder) == first
    file.rename(folder / "test.jsonl")
    assert key(folder) != first


def test_a_run_on_a_csv_file_and_a_column_map(
    tiny_recipe: Callable[..., Path], tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    datasets.Dataset.from_list(ROWS).to_csv(tmp_path / "sums.csv", index=False)
    source = "{source: datasets, path: sums.csv, columns: {question: q, answer: a}}"
    asked = ["run", str(tiny_recipe("iterations.count=0", f"evaluation.benchmarks.0.source={source}")), "--run-dir"]
    done = CliRunner().invoke(app, [*asked, "run"])
    assert "8 rows" in done.output and "accuracy" in done.output
    (stage, *_) = json.loads((tmp_path / "run" / "plan.json").read_text())["stages"]
    rows: list[Problem] = read_rows(Artefact(stage["kind"], stage["key"], home / "store" / "problems" / stage["key"]), Problem)
    assert [(p.id, p.question, p.answer) for p in rows] == [(f"sums/train/{i}", r["q"], r["a"]) for i, r in enumerate(ROWS)]
    (tmp_path / "sums.csv").write_text("q,a\n1 + 2?,3\n")
    assert "1 rows" in CliRunner().invoke(app, [*asked, "again"]).output


def test_wrong_columns_end_a_run_with_a_message(
    tiny_recipe: Callable[..., Path], tmp_path: Path, home: Path
) -> None:
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "sums.parquet")
    source = f"{{source: datasets, path: {tmp_path / 'sums.parquet'}}}"
    recipe = str(tiny_recipe("iterations.count=0", f"evaluation.benchmarks.0.source={source}"))
    error = CliRunner().invoke(app, ["run", recipe, "--run-dir", str(tmp_path / "run")]).exception
    assert isinstance(error, ConfigError) and error.exit_code == 2
    assert "no column `question` (columns.question)" in str(error) and "Columns there: q, a" in str(error)
    assert not list((home / "store").rglob("manifest.json"))


_SETTLE = """
import json, sys
from configs.evaluation_section import SourceSection
from pipelines.sources import problems_stage, settle
source = SourceSection.model_validate(json.loads(sys.argv[1])).model_dump()
settle(source)
print(json.dumps([source, problems_stage("p", SourceSection.model_validate(source)).key]))
"""


def _settled(source: dict[str, Any], **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", **settings}  # the clients read them when they are imported
    return subprocess.run([sys.executable, "-c", _SETTLE, json.dumps(source)], env=environment, capture_output=True, text=True)


def test_a_name_on_the_hub_becomes_a_commit(tmp_path: Path) -> None:
    """The resolved recipe says which commit is read; once it does, the hub is not needed to find what is stored."""
    hub = tmp_path / "hub"
    hub.mkdir()
    datasets.Dataset.from_list(ROWS).to_parquet(hub / "train.parquet")
    asked = {"source": "datasets", "path": "team/sums"}
    with serving("team/sums", hub) as (endpoint, _):
        source, stored = json.loads(_settled(asked, HF_ENDPOINT=endpoint).stdout)
    assert (source["revision"], source["path"]) == (COMMIT, "team/sums")
    assert json.loads(_settled(source, HF_HUB_OFFLINE="1").stdout) == [source, stored]
    refused = _settled(asked, HF_HUB_OFFLINE="1")
    assert "`team/sums` is neither a file or folder here nor reachable" in refused.stderr


def test_settled_recipes_are_settled(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("{}\n")
    recipe = load_recipe("demo", [f"data.train={{source: datasets, path: {file}, limit: 4}}", "model.dtype=float32"])
    once = resolve(recipe)
    assert once.data.train.path == str(file) and resolve(once) == once


def test_a_phase_has_a_commit_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a phase changes is settled too: another set by another commit, a file by none."""
    monkeypatch.setattr("pipelines.sources.pinned", lambda name, revision: revision or f"commit of {name}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.jsonl").write_text("{}\n")
    recipe = load_recipe("demo", [
        "data.train={source: datasets, path: team/sums, levels: null, max_number: null}", "data.fresh_per_iteration=false",
        "phases=[{name: a}, {name: b, data: {train: {limit: 4}}}, {name: c, data: {train: {path: team/more}}}, "
        "{name: d, data: {train: {source: jsonl, path: own.jsonl}}}]",
    ])  # fmt: skip
    settled = resolve(recipe)
    found = {name: (r.data.train.path, r.data.train.revision) for name, r in phases_of(settled)}
    sums = ("team/sums", "commit of team/sums")
    more = ("team/more", "commit of team/more")
    assert found == {"a": sums, "b": sums, "c": more, "d": (str(tmp_path / "own.jsonl"), None)}
    assert resolve(settled) == settled


def test_the_recipe_in_own_data_md_runs(tmp_path: Path, home: Path, tiny_model: Path) -> None:
    """On a hub of this machine, and the tiny model in place of the bundled one."""
    page = ROOT / "docs" / "own_data.md"
    (tmp_path / "mine.yaml").write_text(blocks(page, "yaml")[0])
    (tmp_path / "held_out.csv").write_text("number,task,result,difficulty\n7,What is 2 + 3?,5,easy\n")
    main = tmp_path / "hub" / "main"
    main.mkdir(parents=True)
    rows = [{"question": f"What is {i} + 4?", "answer": f"It is {i + 4}.\n#### {i + 4}"} for i in range(8)]
    datasets.Dataset.from_list(rows).to_parquet(main / "train-00000.parquet")
    named = "configs:\n- config_name: main\n  data_files:\n  - split: train\n    path: main/train-*\n"
    (tmp_path / "hub" / "README.md").write_text(f"---\n{named}---\n")
    less = (
        f"model.name={tiny_model}", "model.dtype=float32", "iterations.count=1", "sampling.max_tokens=8", "training.epochs=1",
        "selection={include_human: true, max_per_problem: 0}", "sampling.engine=transformers",
    )  # fmt: skip
    with serving("openai/gsm8k", tmp_path / "hub") as (endpoint, _):
        for command in ("plan", "run"):
            ratchet(command, "mine.yaml", *less, home=home, cwd=tmp_path, HF_ENDPOINT=endpoint, HF_HUB_DISABLE_XET="1",
                    HF_HOME=str(tmp_path / "hf"))  # fmt: skip
    assert COMMIT in (tmp_path / "runs" / "mine" / "recipe.yaml").read_text()
