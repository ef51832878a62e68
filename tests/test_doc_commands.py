"""Every block of commands in the documents is run, or at least planned; a new block must say which.

BLOCKS names each block by its page and first line. What its class means:

RUN    every line is run for real, in order, in a folder that holds what the page speaks of
SLOW   the same on the real model, marked `slow`; the reader's own problems are few, and sampled less
PLAN   too long, or for a cluster, a GPU or a fresh environment: `ratchet run`, `plan` and `eval` are resolved and planned
       on the bundled model; of other programmes it is checked that what they are given exists
a test that runs the same command for real, named by its id
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

from configs.load import load_recipe
from data_gen.problems import load_problems
from pipelines.cli import app
from pipelines.evaluation import evaluation_recipe
from pipelines.models import ResolvedModel, model_for_plan
from pipelines.plan import Plan, build, resolve
from rewards import verify
from tests.conftest import DemoRun, TinyRun
from tests.pipelines.helpers import environment, ratchet, write_reward_run
from tests.test_docs import DOCUMENTS, ROOT, blocks

RUN, SLOW, PLAN = "run", "slow", "plan"
_DEMO = "tests/pipelines/test_real_runs.py::test_the_demo_raises_accuracy_beyond_chance"
_PROBE = "tests/pipelines/test_memorisation.py::test_train_probe_and_resume"
_WORKERS = "tests/pipelines/test_real_runs.py::test_the_real_model_gives_the_same_rows_everywhere"
_TABLE = "tests/pipelines/test_sources.py::test_the_recipe_in_own_data_md_runs"
_SAMPLES = "tests/pipelines/test_export_rows.py::test_samples_go_to_ratchet_score_and_back"

BLOCKS: dict[str, dict[str, str]] = {
    "README.md": {"make demo": _DEMO},
    "index.md": {"make demo": _DEMO},
    "getting-started.md": {
        "make demo": _DEMO,
        "source .venv/bin/activate": PLAN,
        "python3 -m venv .venv": PLAN,
        "ratchet plan demo": SLOW,
        "python -c": SLOW,
        "ratchet run demo training.learning_rate=3e-4": PLAN,
        "ratchet plan rft_gsm8k": PLAN,
        "ratchet run mine.yaml": SLOW,
        "ratchet verify": RUN,
    },
    "own_data.md": {
        "ratchet plan mine.yaml": _TABLE,
        "ratchet plan smollm2_gsm8k": PLAN,
        "ratchet verify": RUN,
        "ratchet export runs/demo --what samples": _SAMPLES,
    },
    "concepts.md": {"ratchet plan demo": RUN},
    "recipes.md": {"ratchet recipes": RUN},
    "own_model.md": {
        "ratchet plan rft_gsm8k model.name=./my-model": PLAN,
        "ratchet plan rft_gsm8k model.name=./my-model training": RUN,
    },
    "self_training.md": {"ratchet run rft_gsm8k": PLAN},
    "pairs.md": {"ratchet plan rise_gsm8k": PLAN},
    "rollouts.md": {"ratchet plan per_step_dpo_gsm8k": PLAN},
    "training.md": {"ratchet run rft_gsm8k": PLAN, "ratchet plan rise_gsm8k": PLAN},
    "papers.md": {"ratchet plan rise_qwen2_7b": PLAN},
    "policy_gradient.md": {
        "ratchet run remax_gsm8k": PLAN,
        "ratchet run remax_gsm8k training.method=rloo sampling.n=16": PLAN,
        "ratchet run remax_gsm8k training.method=reinforce": PLAN,
    },
    "bstar.md": {
        "ratchet run bstar_gsm8k": PLAN,
        "ratchet run bstar_gsm8k balance.scorer=reward_model": PLAN,
        "python -m benchmarks.bstar_arms": PLAN,
    },
    "gsm8k.md": {"python -m benchmarks.gsm8k": PLAN},
    "reward_models.md": {"ratchet run reward_model_gsm8k": PLAN, "ratchet score": RUN},
    "engines.md": {
        "make vllm-cpu": PLAN, "ratchet run demo executor.workers=2": _WORKERS,
        "ratchet run smollm2_gsm8k executor.kind=ray": PLAN,
    },
    "memory.md": {"ratchet plan rft_gsm8k": RUN},
    "ray.md": {"pip install -e '.[ray]'": _WORKERS, "ray start --head": PLAN, "ratchet run rft_gsm8k executor.kind=ray": PLAN},
    "evaluation.md": {
        "ratchet eval runs/demo --benchmarks gsm8k,math500": PLAN,
        "ratchet eval runs/demo --benchmarks gsm8k evaluation.prompt=few_shot": PLAN,
        "ratchet eval runs/reward_model_gsm8k": PLAN,
        "ratchet compare runs/demo@1 runs/demo@2": SLOW,
        "ratchet contamination runs/rft_gsm8k": PLAN,
        "pip install -e '.[lm-eval]'": PLAN,
    },
    "export.md": {
        "ratchet export runs/demo --to demo-model": PLAN,
        "ratchet export runs/demo --what samples": _SAMPLES,
    },
    "memorisation.md": {"ratchet run knights_demo": _PROBE},
    "resume.md": {"ratchet resume runs/demo": SLOW},
    "report.md": {
        "ratchet status runs/demo": RUN,
        "ratchet report runs/demo": RUN,
        "ratchet report runs/demo runs/three": RUN,
        "pip install -e '.[tensorboard]'": PLAN,
    },
}

LESS = {"mine.yaml": ("sampling.n=2", "sampling.max_tokens=48", "training.epochs=1")}  # minutes less, the same stages
PROGRAMMES = ("ratchet", "make", "python", "python3", "pip", "ray", "source", "mkdocs", "export", "git", "cd")


class Block(NamedTuple):
    page: str
    lines: list[str]

    @property
    def title(self) -> str:
        return f"{self.page}: {self.lines[0]}"

    @property
    def words(self) -> list[list[str]]:
        return [shlex.split(line) for line in self.lines]


def _plain(line: str) -> str:
    """A line without its prompt, the environment's folder and the comment."""
    line = re.sub(r"^(\$ )?(\.venv(-vllm)?/bin/)?", "", line.strip())
    return re.sub(r"\s+# .*$", "", line)


def command_blocks() -> Iterator[Block]:
    """Blocks in which some line begins with a programme."""
    for page in DOCUMENTS:
        for language in ("", "sh", "bash", "shell", "console"):
            for body in blocks(page, language):
                lines = [plain for line in body.splitlines() if (plain := _plain(line))]
                if any(line.split()[0] in PROGRAMMES for line in lines):
                    yield Block(page.name, lines)


def named(block: Block) -> str | None:
    """The key of the block in BLOCKS: the longest that its first line begins with."""
    keys = [k for k in BLOCKS.get(block.page, {}) if block.lines[0].startswith(k)]
    return max(keys, key=len, default=None)


ALL = list(command_blocks())


def of(kind: str) -> list[Any]:
    return [pytest.param(b, id=b.title) for b in ALL if (key := named(b)) and BLOCKS[b.page][key] == kind]


def test_every_block_of_commands_has_a_class() -> None:
    unnamed = [b.title for b in ALL if named(b) is None]
    assert not unnamed, "say in BLOCKS how these are checked"
    used = sorted((b.page, named(b) or "") for b in ALL)
    assert used == sorted((page, key) for page, keys in BLOCKS.items() for key in keys), "once each, and none is left over"
    mixed = [b.title for b in ALL if any(words[0] not in PROGRAMMES for words in b.words)]
    assert not mixed, "what a command prints belongs in a block of its own"


def test_tests_that_run_a_block_exist() -> None:
    for kind in {k for keys in BLOCKS.values() for k in keys.values()} - {RUN, SLOW, PLAN}:
        file, _, name = kind.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(), kind


@pytest.fixture
def reader(
    tmp_path: Path, home: Path, tiny_model: Path, tiny_run: TinyRun, bundled: ResolvedModel, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder in which a reader types: what the pages speak of is there, small."""
    (tmp_path / "runs").mkdir()
    home.mkdir()
    (home / "models").symlink_to(bundled.path.parent)
    write_reward_run(tmp_path / "runs" / "reward_model_gsm8k", home, bundled.fingerprint)
    for name in ("demo", "small", "three"):
        shutil.copytree(tiny_run.folder, tmp_path / "runs" / name, symlinks=True)
    (tmp_path / "my-model").symlink_to(tiny_model)
    problems = [{"question": f"What is {a} + {b}?", "answer": a + b} for a in (1, 2, 3, 4) for b in (2, 5)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(p) + "\n" for p in problems))
    (tmp_path / "held_out.jsonl").write_text('{"question": "What is 6 + 7?", "answer": 13}\n')
    (tmp_path / "my_shots.jsonl").write_text('{"question": "What is 6 + 7?", "answer": 13, "solution": "6 + 7 = 13"}\n')
    answers = [{"id": "a", "gold": "12", "prediction": "The answer is 12."}, {"id": "b", "gold": "3", "prediction": "#### 4"}]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(a) + "\n" for a in answers))
    samples = next(body for body in blocks(ROOT / "docs" / "reward_models.md", "") if '"response"' in body)
    (tmp_path / "samples.jsonl").write_text(samples)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", of(RUN))
def test_quick_blocks_run(block: Block, reader: Path) -> None:
    for words in block.words:
        assert words[0] == "ratchet", "other programmes are not quick"
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, (words, done.output, done.exception)
        assert done.output.strip()


@pytest.mark.parametrize("block", of(PLAN))
def test_long_blocks_can_be_planned(block: Block, reader: Path) -> None:
    for words in block.words:
        _check(words, reader)


def _check(words: list[str], folder: Path) -> None:
    """What can be known of a command without running it."""
    name, *rest = words
    if name == "make":
        subprocess.run(["make", "-n", *rest], cwd=ROOT, check=True, capture_output=True)
    elif words[1:3] == ["-m", "venv"] or name in ("source", "ray"):
        return
    elif name == "pip" or words[1:3] == ["-m", "pip"]:
        _check_install(rest)
    elif name == "python":
        assert rest[0] == "-m", words
        source = (ROOT / f"{rest[1].replace('.', '/')}.py").read_text()
        assert not [o for o in rest if o.startswith("--") and f'"{o}"' not in source], words
    elif rest[0] in ("run", "plan", "eval"):
        plan = _planned(rest)
        assert plan.stages
    else:
        assert rest[0] in {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}, words


def _planned(arguments: list[str]) -> Plan:
    """The plan of a `ratchet run`, `plan` or `eval`, on the bundled model if it names another one."""
    import typer.main

    group: Any = typer.main.get_command(app)
    name = arguments[0]
    given = group.commands[name].make_context(name, arguments[1:]).params
    overrides = [o for o in given.get("overrides") or [] if not o.startswith("model.name=")]
    if name == "eval":
        recipe = evaluation_recipe("bundled:smollm2-135m-instruct", given["benchmarks"], given["limit"], None, overrides)
    else:
        recipe = load_recipe(given["recipe"], overrides)
    recipe = resolve(recipe)
    return build(recipe, model_for_plan(recipe.model)[0])


def _check_install(words: list[str]) -> None:
    """An extra of ours exists; a pinned package is the one that the Makefile installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words:
        extra = re.fullmatch(r"\.\[(.+)\]", word)
        if extra:
            assert set(extra[1].split(",")) <= set(project["optional-dependencies"])
        elif "==" in word:
            assert word in (ROOT / "Makefile").read_text()


def test_the_conversion_of_another_set_gives_problems(reader: Path) -> None:
    (body,) = blocks(ROOT / "docs" / "evaluation.md", "python")
    record = {"ID": "chal-1", "Body": "Ann has 8 pens.", "Question": "How many are 3 more?", "Answer": 11.0, "Type": "Addition"}
    Path("SVAMP.json").write_text(json.dumps([record]))
    subprocess.run([sys.executable, "-c", body], check=True)
    (problem,) = load_problems("jsonl", "test", path="svamp.jsonl")
    assert (problem.question, problem.subject) == ("Ann has 8 pens. How many are 3 more?", "Addition")
    assert verify("The answer is 11.", problem.answer, "lenient").correct


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("block", of(SLOW))
def test_blocks_on_the_real_model_run(block: Block, reader: Path, demo_run: DemoRun) -> None:
    """In the folder of the demo run: what it has finished is found in the store."""
    for file in ("mine.jsonl", "held_out.jsonl"):
        shutil.copy(reader / file, demo_run.cwd / file)
    for body in blocks(ROOT / "docs" / block.page, "yaml"):
        recipe = yaml.safe_load(body)
        if "name" in recipe:
            (demo_run.cwd / f"{recipe['name']}.yaml").write_text(body)
    for words in block.words:
        if words[0] == "python":
            subprocess.run([sys.executable, *words[1:]], cwd=demo_run.cwd, env=environment(demo_run.home), check=True)
        else:
            less = [o for word in words for o in LESS.get(word, ())]
            done = ratchet(*words[1:], *less, home=demo_run.home, cwd=demo_run.cwd)
            assert done.stdout.strip()
