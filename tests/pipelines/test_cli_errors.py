"""What the command line promises: exit codes, one clear message, nothing half-written, and whole artefacts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from pipelines import cli as command_line
from pipelines.files import sha256_of
from pipelines.runfolder import RunFolder
from tests.conftest import TinyRun

Recipe = Callable[..., Path]


class Result(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs `ratchet ARGUMENTS` in this process."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["ratchet", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            command_line.main()
        captured = capsys.readouterr()
        code = exit_.value.code
        return Result(code if isinstance(code, int) else 0, captured.out, captured.err)

    return call


def assert_refused(result: Result, *expected: str, code: int = 2) -> None:
    """One message on stderr with all of `expected`, no traceback."""
    assert result.code == code, result
    assert result.err.count("error: ") == 1, result.err
    assert re.search(r"(^|\s)error: ", result.err)
    assert "Traceback" not in result.out + result.err
    for text in expected:
        assert text in result.err


def assert_nothing_half_written(home: Path, folder: Path | None = None) -> None:
    """Rows only beside a manifest, no temporary files; the run folder is absent or links to nothing unfinished."""
    files = [p for p in home.rglob("*") if p.is_file()] if home.exists() else []
    assert [p for p in files if p.name.endswith(".tmp") or p.name.startswith(".probe")] == []
    parts = [p for p in files if p.suffix in (".parquet", ".safetensors")]
    assert all((p.parent / "manifest.json").is_file() for p in parts)
    if folder is not None and folder.exists():
        assert list(folder.rglob("*.tmp")) == []
        assert all(m["kind"] for m in RunFolder(folder).read_metrics().values())


def test_an_unknown_key_of_a_file(cli: Cli, tiny_recipe: Recipe, home: Path, tmp_path: Path):
    recipe = tiny_recipe()
    recipe.write_text(recipe.read_text() + "rewards:\n  tiemout: 1\n")
    line = recipe.read_text().splitlines().index("  tiemout: 1") + 1
    result = cli("run", recipe, "--run-dir", tmp_path / "run")
    assert_refused(result, f"{recipe}:{line}: unknown key `rewards.tiemout`; did you mean `rewards.timeout`?")
    assert not home.exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["run", "plan"])
def test_an_unknown_key_of_the_command_line(cli: Cli, tiny_recipe: Recipe, home: Path, command: str):
    result = cli(command, tiny_recipe(), "sampling.temprature=0.8")
    assert_refused(result, "override `sampling.temprature=0.8`", "did you mean `sampling.temperature`?")
    assert not home.exists()


def test_an_unknown_recipe_and_an_unknown_option(cli: Cli, home: Path):
    assert_refused(cli("run", "dmo"), "did you mean `demo`?")
    usage = cli("run", "demo", "--run-dri", "x")
    assert usage.code == 2
    assert "--run-dir" in usage.err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"question": "1+1?", "answer": ', "line 2: not valid JSON"),
        ('{"question": "1+1?"}', "line 2: answer is missing"),
        ('{"question": "1+1?", "answer": ""}', "line 2: answer is empty"),
        ("[1]", "line 2: expected a JSON object"),
    ],
)
def test_a_bad_line_of_own_problems(
    cli: Cli, tiny_recipe: Recipe, home: Path, tmp_path: Path, line: str, expected: str
):
    own = tmp_path / "own.jsonl"
    own.write_text('{"question": "2+2?", "answer": "4"}\n' + line + "\n")
    recipe = tiny_recipe(f"data.train={{source: jsonl, path: {own}}}", "evaluation.benchmarks=[]")
    result = cli("run", recipe, "--run-dir", tmp_path / "run")
    assert_refused(result, f"{own}: 1 bad line", expected)
    assert_nothing_half_written(home, tmp_path / "run")
    own.write_text('{"question": "2+2?", "answer": "4", "solution": "#### 4"}\n')
    assert cli("run", recipe, "--run-dir", tmp_path / "run").code == 0, "once mended, the same command does it"


def test_a_file_of_problems_that_is_not_there(cli: Cli, tiny_recipe: Recipe, home: Path, tmp_path: Path):
    recipe = tiny_recipe(f"data.train={{source: jsonl, path: {tmp_path / 'none.jsonl'}}}")
    assert_refused(cli("run", recipe, "--run-dir", tmp_path / "run"), f"{tmp_path / 'none.jsonl'} does not exist")
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_not_there_leaves_no_run_folder(cli: Cli, tiny_recipe: Recipe, home: Path, tmp_path: Path):
    result = cli("run", tiny_recipe(), "model.name=/no/such/model", "--run-dir", tmp_path / "run")
    assert_refused(result, "model.name: /no/such/model does not exist")
    assert_nothing_half_written(home)
    assert not (tmp_path / "run").exists(), "the right model could not be used in it"


def test_a_run_folder_in_use(cli: Cli, tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RATCHET_HOME", str(tiny_run.home))
    code = "import fcntl, sys; f = open(sys.argv[1], 'a+'); fcntl.flock(f, fcntl.LOCK_EX); print(); sys.stdin.read()"
    lock = str(tiny_run.folder / ".lock")
    before = {p: p.read_bytes() for p in tiny_run.folder.rglob("*") if p.is_file()}
    other = subprocess.Popen([sys.executable, "-c", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline()
        for arguments in (("run", tiny_run.recipe, "--run-dir", tiny_run.folder), ("resume", tiny_run.folder)):
            assert_refused(cli(*arguments), f"run folder {tiny_run.folder} is in use by process ")
        assert ": running, " in cli("status", tiny_run.folder).out
    finally:
        other.communicate()
    assert {p: p.read_bytes() for p in tiny_run.folder.rglob("*") if p.is_file()} == before


def test_a_run_folder_of_another_config(cli: Cli, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    result = cli("run", tiny_run.recipe, "sampling.temperature=0.25", "--run-dir", tiny_run.folder)
    assert_refused(result, "belongs to another config", "sampling.temperature: 0.1 there, 0.25 here", "--run-dir")
    assert not (tmp_path / "home").exists()


def test_a_folder_that_is_no_run(cli: Cli, tiny_recipe: Recipe, home: Path, tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("dear")
    assert_refused(cli("run", tiny_recipe(), "--run-dir", tmp_path / "full"), "is not a run folder")
    for command in ("resume", "status"):
        assert_refused(cli(command, tmp_path / "full"), f"{tmp_path / 'full'} is not a run folder")
    assert os.listdir(tmp_path / "full") == ["thesis.tex"]


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_home_that_cannot_be_written(
    cli: Cli, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "file" / "home"))
    folder = ["--run-dir", tmp_path / "run"] if command == "run" else []
    assert_refused(cli(command, tiny_recipe(), *folder), f"cannot write {tmp_path / 'file'}", "set RATCHET_HOME")
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_cannot_be_made(cli: Cli, tiny_recipe: Recipe, home: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    result = cli("run", tiny_recipe(), "--run-dir", tmp_path / "file" / "run")
    assert_refused(result, "cannot make the run folder", "choose another --run-dir")


def test_a_file_without_permission(cli: Cli, tiny_recipe: Recipe, home: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = tiny_recipe()

    def denied(self: Path, *_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", denied)
    assert_refused(cli("plan", recipe), "Permission denied", str(recipe))


def test_a_run_that_fails_exits_with_1_and_goes_on_when_mended(
    cli: Cli, tiny_recipe: Recipe, home: Path, tmp_path: Path
):
    recipe = tiny_recipe("selection.include_human=false", "selection.min_examples=30", "evaluation.initial=false")
    result = cli("run", recipe, "--run-dir", tmp_path / "run")
    assert_refused(result, "fewer than selection.min_examples=30", code=1)
    assert f"continue with: ratchet resume {tmp_path / 'run'}" in result.out
    assert_nothing_half_written(home, tmp_path / "run")
    events = RunFolder(tmp_path / "run").events()
    assert (events[-1]["event"], events[-1]["stage"]) == ("failed", "iteration1/select")
    mended = cli("plan", recipe, "selection.min_examples=1", "selection.include_human=true", "--json")
    cached = {s["label"] for s in json.loads(mended.out)["stages"] if s["cached"]}
    assert {"iteration1/sample", "iteration1/verify"} <= cached


def test_ctrl_c_exits_with_130_and_the_command_that_continues(tiny_recipe: Recipe, home: Path, tmp_path: Path):
    long = ("data.train={limit: 2000, seed: 1}", "sampling.n=8", "sampling.max_tokens=64")
    recipe = tiny_recipe(*long, "evaluation.benchmarks=[]")
    arguments = [sys.executable, "-m", "pipelines.cli", "run", str(recipe), "--run-dir", str(tmp_path / "run")]
    run = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until = time.monotonic() + 60
    while not list(home.glob("store/sample/*/work/shard-*.json")) and time.monotonic() < until:
        assert run.poll() is None, run.communicate()
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, (out, err)
    assert f"interrupted; continue with: ratchet resume {tmp_path / 'run'}" in out
    assert "Traceback" not in out + err
    assert not list(home.rglob(".part-*.tmp"))


def test_help_is_quick_and_does_without_torch():
    code = "import sys; import pipelines.cli; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "pipelines.cli", "--help"], capture_output=True, text=True, check=True)
        seconds.append(time.monotonic() - began)
    assert all(name in done.stdout for name in ("run", "resume", "status", "plan", "eval", "verify", "doctor"))
    assert min(seconds) < 0.5 * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


def test_plan_and_status_print_json(cli: Cli, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RATCHET_HOME", str(tiny_run.home))
    planned = json.loads(cli("plan", tiny_run.recipe, "--json").out)
    assert [s["cached"] for s in planned["stages"]] == [True] * 13
    state = json.loads(cli("status", tiny_run.folder, "--json").out)
    assert (state["done"], state["total"], state["running"]) == (13, 13, False)
    assert [s["key"] for s in state["stages"]] == [s["key"] for s in planned["stages"]]
    assert "finished, 13 of 13" in cli("status", tiny_run.folder).out


def test_plan_writes_nothing_but_what_it_remembers(cli: Cli, tiny_recipe: Recipe, home: Path):
    assert cli("plan", tiny_recipe()).code == 0
    assert list((home / "store").rglob("*")) == []


def test_a_second_run_computes_nothing(cli: Cli, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("RATCHET_HOME", str(tiny_run.home))
    before = {p: p.stat().st_mtime_ns for p in tiny_run.store.rglob("*") if p.is_file()}
    result = cli("run", tiny_run.recipe, "--run-dir", tmp_path / "again")
    assert result.code == 0
    stages = [line for line in result.out.splitlines() if re.match(r"\[\d+/13\] ", line)]
    assert len(stages) == 13
    assert all(line.endswith("(cached)") for line in stages)
    assert {p: p.stat().st_mtime_ns for p in tiny_run.store.rglob("*") if p.is_file()} == before
    assert all(m["cached"] for m in RunFolder(tmp_path / "again").read_metrics().values())


def test_the_run_folder_holds_the_record(tiny_run: TinyRun):
    run = RunFolder(tiny_run.folder)
    stages = run.plan()["stages"]
    metrics = run.read_metrics()
    assert list(metrics) == [s["label"] for s in stages]
    assert [m["key"] for m in metrics.values()] == [s["key"] for s in stages]
    assert not any(m["cached"] for m in metrics.values())
    score = metrics["iteration1/words/greedy"]
    assert {"accuracy", "low", "high", "problems", "mode", "prompt", "sampling"} <= score.keys()
    assert score["problems"] == 8
    events = [e["event"] for e in run.events()]
    assert events == ["run started", *["started", "finished"] * 13, "run finished"]
    for link in (tiny_run.folder / "artefacts").iterdir():
        assert (link / "manifest.json").is_file()


def manifests(run: TinyRun) -> list[tuple[Path, dict[str, Any]]]:
    return [(p.parent, json.loads(p.read_text())) for p in sorted(run.store.glob("*/*/manifest.json"))]


def test_manifests_say_what_made_each_artefact(tiny_run: TinyRun):
    keys = {(m["kind"], m["key"]) for _, m in manifests(tiny_run)}
    assert len(keys) == 13
    planned = {s["key"]: s for s in RunFolder(tiny_run.folder).plan()["stages"]}
    for folder, m in manifests(tiny_run):
        assert (folder.parent.name, folder.name) == (m["kind"], m["key"])
        assert {name: p["key"] for name, p in m["parents"].items()} == planned[m["key"]]["inputs"]
        assert all((p["kind"], p["key"]) in keys for p in m["parents"].values())
        assert m["software"]["torch"] and m["software"]["transformers"] and m["software"]["python"]
        assert m["timing"]["seconds"] >= 0
        assert (m["seed"] is None) == (m["kind"] in ("problems", "verify", "decontaminate") and m["config"].get("seed") is None)
        present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {"manifest.json"}
        assert present == set(m["files"])
        for name, file in m["files"].items():
            assert file == {"sha256": sha256_of(folder / name), "bytes": (folder / name).stat().st_size}
        rows = sum(pq.read_metadata(folder / n).num_rows for n in m["files"] if n.endswith(".parquet"))
        assert m["kind"] == "train" or rows == m["rows"]


def rows_of(run: TinyRun, label: str) -> list[dict[str, Any]]:
    stage = next(s for s in RunFolder(run.folder).plan()["stages"] if s["label"] == label)
    folder = run.store / stage["kind"] / stage["key"]
    return [r for p in sorted(folder.glob("part-*.parquet")) for r in pq.read_table(p).to_pylist()]


def test_every_example_leads_back_to_a_sample_its_verdict_and_a_problem(tiny_run: TinyRun):
    problems = {r["id"]: r for r in rows_of(tiny_run, "problems/clean")}
    samples = {r["id"]: r for r in rows_of(tiny_run, "iteration1/sample")}
    verdicts = {r["id"]: r for r in rows_of(tiny_run, "iteration1/verify")}
    examples = rows_of(tiny_run, "iteration1/select")
    assert len(samples) == len(verdicts) == 16 * 8
    assert len({e["id"] for e in examples}) == len(examples)
    own = [e for e in examples if e["kind"] == "model"]
    assert len(own) >= 1, "the answers are what the tiny model says most"
    for example in own:
        sample, verdict = (by[i] for by, i in zip((samples, verdicts), example["parents"], strict=True))
        assert sample["parents"] == [example["problem"]] and verdict["parents"] == [sample["id"]]
        assert (verdict["outcome"], sample["finish_reason"]) == ("correct", "stop")
        assert example["token_ids"] == sample["token_ids"]
        assert example["problem"] in problems
    for example in examples:
        if example["kind"] == "human":
            assert example["parents"] == [example["problem"]]
            assert problems[example["problem"]]["solution"] == example["text"]


def test_scores_lead_back_to_verdicts(tiny_run: TinyRun):
    verdicts = {r["id"]: r for r in rows_of(tiny_run, "initial/words/greedy/verify")}
    scores = rows_of(tiny_run, "initial/words/greedy")
    assert len(scores) == 8
    for score in scores:
        mine = [verdicts[i] for i in score["parents"]]
        assert score["correct"] == sum(v["outcome"] == "correct" for v in mine)
        assert all(v["problem"] == score["problem"] for v in mine)


def test_eval_of_a_run_and_what_it_refuses(cli: Cli, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("RATCHET_HOME", str(tiny_run.home))
    monkeypatch.chdir(tmp_path)
    arguments = ("eval", tiny_run.folder, "--benchmarks", "procedural")
    result = cli(*arguments, "--limit", 6)
    assert result.code == 0, result
    assert re.search(r"run@1 +procedural +greedy +\d+\.\d%  \[", result.out)
    assert "prompt: 'user: " in result.out
    assert_refused(cli(*arguments, "--iteration", 3), "has iterations 0 to 1, not 3")
    assert_refused(cli("eval", tiny_run.folder, "--benchmarks", "gsm8"), "did you mean `gsm8k`?")
    for command in ("eval", "contamination"):
        assert_refused(cli(command, tiny_run.folder, "--benchmarks", "gsm8k,gsm8k"), "two are called `gsm8k`")
    assert_refused(cli("eval", "/no/such", "--benchmarks", "procedural"), "/no/such does not exist")
