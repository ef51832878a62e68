"""Shared fixtures: a home of its own for every test, a tiny random model, and a recipe that runs in seconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, settings

from configs.load import apply_override

if TYPE_CHECKING:
    from pipelines.models import ResolvedModel

# A busy machine may stop any test for longer than hypothesis' 200 ms; `pytest-timeout` limits those that hang.
settings.register_profile("ratchet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ratchet")

CHAT = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """RATCHET_HOME in a temporary folder (not made yet)."""
    folder = tmp_path / "home"
    monkeypatch.setenv("RATCHET_HOME", str(folder))
    return folder


def make_tiny_model(folder: Path) -> None:
    """A Llama with two layers, random weights (seeded) and a byte-level tokenizer, as a safetensors folder.

    The output weights favour digits and the end token: many completions are short numbers.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<pad>", "<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")
    fast.chat_template = CHAT
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=2048, initializer_range=0.3,
                eos_token_id=1, pad_token_id=0, bos_token_id=None,
            )
        )
        with torch.no_grad():
            digits = [words.index(d) for d in "0123456789"]
            model.lm_head.weight[digits] *= 4.0
            model.lm_head.weight[1] *= 8.0
    model.save_pretrained(folder, safe_serialization=True)
    fast.save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model; treat it as read-only."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_tiny_model(folder)
    return folder


@pytest.fixture
def tiny_recipe(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function: dotted overrides in, recipe file out. The run takes seconds and trains on human solutions,
    since a random model solves nothing: 16 problems, 2 samples each in 4 shards, full fine-tuning, 8 test problems."""

    def write(*overrides: str, name: str = "tiny") -> Path:
        return write_tiny_recipe(tmp_path / f"{name}.yaml", tiny_model, overrides)

    return write


def write_tiny_recipe(path: Path, model: Path, overrides: Sequence[str]) -> Path:
    """The recipe of `tiny_recipe` as the file `path`."""
    source = {"source": "procedural", "levels": [1], "max_number": 10}
    data: dict[str, Any] = {
        "name": path.stem,
        "model": {"name": str(model), "dtype": "float32"},
        "data": {"train": {**source, "split": "train", "limit": 16, "seed": 1}},
        "sampling": {"engine": "transformers", "n": 2, "max_tokens": 8, "shard_size": 4, "batch_size": 8},
        "selection": {"include_human": True},
        "training": {"adapter": "full", "epochs": 1, "batch_size": 4, "checkpoint_every": 1},
        "evaluation": {"benchmarks": [{"name": "words", "source": {**source, "split": "test", "limit": 8}}]},
        "iterations": {"count": 1},
        "executor": {"threads": 1},
    }
    for override in overrides:
        apply_override(data, override)
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


@dataclass(frozen=True)
class TinyRun:
    """A finished run: its recipe file, its folder, its RATCHET_HOME, what it printed. Read-only."""

    recipe: Path
    folder: Path
    home: Path
    output: str

    @property
    def store(self) -> Path:
        return self.home / "store"


@pytest.fixture(scope="session")
def tiny_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A run of the tiny recipe on own problems whose answers are what the tiny model says most, so that some of
    its samples are right."""
    root = tmp_path_factory.mktemp("run")
    own = root / "own.jsonl"
    _write_problems(own, {})
    asked = ["iterations.count=0", f"evaluation.benchmarks=[{{name: own, source: {{source: jsonl, path: {own}}}}}]"]
    run_recipe(write_tiny_recipe(root / "first.yaml", tiny_model, ["sampling.max_tokens=32", *asked]), root / "first")
    scores = [r for p in root.glob("first/home/store/score/*/part-*.parquet") for r in pq.read_table(p).to_pylist()]
    _write_problems(own, {r["question"]: r["extracted"] for r in scores})
    sampling = [f"sampling.{s}" for s in ("n=8", "max_tokens=32", "batch_size=32", "temperature=0.1")]
    recipe = write_tiny_recipe(root / "tiny.yaml", tiny_model, [f"data.train={{source: jsonl, path: {own}}}", *sampling])
    return TinyRun(recipe, root / "run", root / "home", run_recipe(recipe, root))


def _write_problems(path: Path, answers: dict[str, str | None]) -> None:
    """Sixteen problems as JSON lines, with these answers by question."""
    rows = []
    for question in (f"{i} eggs, {i * i} hens?" for i in range(16)):
        answer = answers.get(question) or "5"
        rows.append({"question": question, "answer": answer, "solution": f"#### {answer}"})
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def run_recipe(recipe: Path, root: Path) -> str:
    """Run a recipe in this process, with `root` holding its home and its run folder; what it printed."""
    from typer.testing import CliRunner

    from pipelines.cli import app

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATCHET_HOME", str(root / "home"))
        result = CliRunner().invoke(app, ["run", str(recipe), "--run-dir", str(root / "run")])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@dataclass(frozen=True)
class DemoRun:
    """The demo, run for real in `cwd`/runs/demo: its RATCHET_HOME and what it printed."""

    cwd: Path
    home: Path
    output: str

    @property
    def folder(self) -> Path:
        return self.cwd / "runs" / "demo"


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """`ratchet run demo` on the real model: minutes, so only tests marked slow may ask for it."""
    from tests.pipelines.helpers import ratchet

    cwd = tmp_path_factory.mktemp("demo")
    done = ratchet("run", "demo", home=cwd / "home", cwd=cwd)
    return DemoRun(cwd, cwd / "home", done.stdout)


@pytest.fixture(scope="session")
def bundled() -> ResolvedModel:
    """SmolLM2-135M-Instruct, converted into the user's own cache if it is not there yet."""
    from configs.schema import ModelSection
    from pipelines.models import resolve_model

    return resolve_model(ModelSection())
