"""Online training as a user runs it: the reward rises, a killed run ends with the same weights, the canary sings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.errors import ConfigError
from configs.load import load_recipe
from tests.pipelines.digits import make_guesser, write_digits_recipe
from tests.pipelines.helpers import assert_kills_change_nothing

T1 = (
    "training.method=rloo", "training.rl.kl=sequence", "training.rl.anchor_decay=0.9", "training.rl.entropy=0.001",
    "training.rl.penalties=[overlong, repetition, garbage]", "training.rl.oversampling=2.0", "training.rl.curriculum=true",
    "training.rl.min_p=0.05", "sampling.temperature=1.2",
)


@pytest.fixture(scope="session")
def guesser(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers every question with a random digit."""
    return make_guesser(tiny_model, tmp_path_factory.mktemp("guesser") / "model")


def run(recipe: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[dict[str, float]], Any]:
    """Run a recipe in this process; the records of its training, and click's result."""
    from typer.testing import CliRunner

    from pipelines.cli import app

    monkeypatch.setenv("RATCHET_HOME", str(folder / "home"))
    result = CliRunner().invoke(app, ["run", str(recipe), "--run-dir", str(folder / "run")])
    files = list((folder / "home").glob("store/train/*/train.jsonl"))
    return [json.loads(line) for file in files for line in file.open()], result


@pytest.mark.parametrize(
    "options",
    [
        ("training.method=remax", "training.rl.validation=1"),
        # A lower rate than for an adapter, or one seed in seven makes all samples of a question alike while they are wrong.
        ("training.method=remax", "training.rl.kl=to_go", "training.rl.updates=2", "training.adapter=full",
         "training.learning_rate=0.0005"),
        ("training.method=rloo",),
        ("training.method=grpo", "training.rl.kl=loss"),
        ("training.method=reinforce", "training.rl.loss=sequence_sum"),
        T1,
        ("training.method=remax", "training.adapter=qlora", "training.rl.kl=token"),
    ],
    ids=["remax", "remax-full", "rloo", "grpo", "reinforce", "t1", "remax-qlora"],
)
def test_reward_rises_from_chance_to_above_nine_tenths(
    guesser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    recipe = write_digits_recipe(tmp_path / "digits.yaml", guesser, "training.rl.steps=30", *options)
    history, result = run(recipe, tmp_path, monkeypatch)
    assert result.exit_code == 0, (result.output, result.exception)
    assert history[0]["reward"] < 0.35
    assert sum(h["reward"] for h in history[-5:]) / 5 > 0.9
    learned = [h for h in history if h["learned_tokens"]]
    if "training.adapter=qlora" not in options:  # whose trainer is another model: its log-probabilities are recomputed
        assert max(h["mismatch_kl"] for h in learned) < 1e-6
        assert all(h["canary_arrived"] > 0.9 for h in learned if "canary_arrived" in h)
    assert "digits         greedy       100.0%" in result.output  # the sampler of the evaluation has the result
    if "training.rl.validation=1" in options:
        assert history[-1]["validation_accuracy"] == 1.0


@pytest.mark.parametrize(
    "options",
    [
        ("training.rl.validation=1", "training.rl.validate_every=4"),
        pytest.param(T1, marks=pytest.mark.slow),
        pytest.param(("reward_model={kind: outcome, validation_fraction: 0.0}",), marks=pytest.mark.slow),
    ],
    ids=["remax", "t1", "shaped"],
)
def test_a_killed_training_ends_with_the_same_weights(guesser: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    recipe = write_digits_recipe(
        tmp_path / "digits.yaml", guesser, "training.rl.steps=24", "training.checkpoint_every=5",
        "training.learning_rate=0.0005", *options,
    )  # fmt: skip

    def sampled(home: Path, step: int) -> bool:
        return bool(list(home.glob(f"store/train/*/work/rollouts-{step:06d}.jsonl")))

    assert_kills_change_nothing(recipe, tmp_path, sampled, (2, 8, 17))


def test_samples_of_a_finished_step_are_not_drawn_again(
    guesser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training fails in step 4; the resumed one, checkpointed after step 2, asks for no sample of step 3."""
    from data_gen.engine_transformers import TransformersEngine
    from trainers.policy_gradient import PolicyGradient

    recipe = write_digits_recipe(tmp_path / "digits.yaml", guesser, "training.rl.steps=6", "training.checkpoint_every=2")
    drawn: list[str] = []
    generate, update = TransformersEngine.generate, PolicyGradient.update

    def counting(self: Any, requests: Any, done: Any = ()) -> Any:
        drawn.extend(str(s) for r in requests if r.id not in done for s in r.seeds if s)
        return generate(self, requests, done)

    def failing(self: Any, groups: Any, step: int) -> Any:
        if step == 3 and not (tmp_path / "failed").exists():
            (tmp_path / "failed").touch()
            raise OSError("the lights went out")
        return update(self, groups, step)

    monkeypatch.setattr(TransformersEngine, "generate", counting)
    monkeypatch.setattr(PolicyGradient, "update", failing)
    assert run(recipe, tmp_path, monkeypatch)[1].exit_code != 0
    history, result = run(recipe, tmp_path, monkeypatch)
    assert result.exit_code == 0, result.output
    assert len(history) == 6
    assert len(drawn) == len(set(drawn)) == 6 * 4 * 8


@pytest.mark.parametrize("adapter", ["lora", "full"])
@pytest.mark.parametrize("rate", [0.002, 0.000005])
def test_a_sabotaged_swap_stops_the_run(
    guesser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: str, rate: float
) -> None:
    """The engine quietly keeps its first weights. With tiny updates the differences stay far below the tolerance, and
    only the comparison with the trainer's own way from the start shows it."""
    from data_gen.engine_transformers import TransformersEngine

    def once(method: Callable[..., None]) -> Callable[..., None]:
        calls: list[int] = []

        def swap(self: TransformersEngine, value: Path | Mapping[str, torch.Tensor] | None) -> None:
            calls.append(1)
            if len(calls) == 1:
                method(self, value)

        return swap

    name = "set_weights" if adapter == "full" else "set_adapter"
    monkeypatch.setattr(TransformersEngine, name, once(getattr(TransformersEngine, name)))
    options = [f"training.adapter={adapter}", f"training.learning_rate={rate}", "training.rl.kl=token", "training.rl.steps=20"]
    recipe = write_digits_recipe(tmp_path / "digits.yaml", guesser, *options)
    history, result = run(recipe, tmp_path, monkeypatch)
    assert not history
    assert "sampler does not have the trainer's weights" in str(result.exception)
    assert ("of what the training has changed" if rate < 0.001 else "nats a token on the canary") in str(result.exception)


@pytest.mark.parametrize("kind", ["outcome", "process"])
def test_a_reward_model_of_the_same_run_shapes_the_rewards(
    guesser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Right answers in (0, 1), wrong ones in (-1, 0), and the training still learns to be right."""
    from pipelines.online.rollouts import Collector, Round

    rounds: list[Round] = []
    collect = Collector.collect

    def watched(self: Collector, *arguments: Any) -> Round:
        rounds.append(collect(self, *arguments))
        return rounds[-1]

    monkeypatch.setattr(Collector, "collect", watched)
    recipe = write_digits_recipe(
        tmp_path / "digits.yaml", guesser, "training.method=rloo", "training.rl.steps=30", "rollouts.n=5",
        f"reward_model={{kind: {kind}, validation_fraction: 0.0, epochs: 2, alpha: 1.0}}",
    )  # fmt: skip
    history, result = run(recipe, tmp_path, monkeypatch)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "iteration1/reward_train" in result.output
    samples = [s for r in rounds for g in r.groups for s in g.samples]
    assert all(0.0 < s.reward < 1.0 if s.right else -1.0 < s.reward < 0.0 for s in samples)
    assert len({s.reward for s in samples}) > 10
    assert sum(h["right"] for h in history[-5:]) / 5 > 0.9


def test_too_many_answers_that_cannot_be_judged_stop_the_run(
    guesser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_digits_recipe(tmp_path / "digits.yaml", guesser)
    rows = recipe.with_suffix(".jsonl")
    rows.write_text(rows.read_text().replace('"7"', '"\\\\boxed{}"'))
    _, result = run(recipe, tmp_path, monkeypatch)
    assert "could not be judged" in str(result.exception) and "max_failure_rate" in str(result.exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["training.method=grpo", "sampling.n=1"], "set `sampling.n` to 2 or more"),
        (["sampling.temperature=0"], "set `sampling.temperature` above 0"),
        (["sampling.top_p=0.9"], "needs `sampling.top_p: 1`"),
        (["sampling.shots=[[a, b]]"], "remove `sampling.shots`"),
        (["training.rl.kl=sequence"], "belongs to method `rloo`"),
        (["training.rl.anchor_decay=0.9"], "set `kl` too"),
        (["training.rl.klip=0.2"], "did you mean `training.rl.clip`"),
    ],
)
def test_settings_that_cannot_work_are_refused(guesser: Path, tmp_path: Path, options: list[str], message: str) -> None:
    recipe = write_digits_recipe(tmp_path / "digits.yaml", guesser)
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        load_recipe(str(recipe), options)


def test_held_out_problems_must_leave_some(guesser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_digits_recipe(tmp_path / "digits.yaml", guesser, "training.rl.validation=4")
    _, result = run(recipe, tmp_path, monkeypatch)
    assert "leaves none of 4 problems" in str(result.exception)


@pytest.fixture(scope="session")
def wide_guesser(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guesser whose heads are as wide as vLLM's kernels want."""
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("wide")
    config = AutoConfig.from_pretrained(tiny_model, hidden_size=128, head_dim=64, initializer_range=0.1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder / "start")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder / "start")
    return make_guesser(folder / "start", folder / "model")


@pytest.mark.vllm
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_vllm_gets_every_version_of_the_weights(
    wide_guesser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: str
) -> None:
    recipe = write_digits_recipe(
        tmp_path / "digits.yaml", wide_guesser, "sampling.engine=vllm", "training.rl.steps=12", f"training.adapter={adapter}",
        "sampling.max_model_len=64",
    )  # fmt: skip
    history, result = run(recipe, tmp_path, monkeypatch)
    assert result.exit_code == 0, (result.output, result.exception)
    assert history[-1]["reward"] > 0.9
    assert all(h["canary"] < 1e-3 and h.get("mismatch_kl", 0.0) < 1e-5 for h in history if "canary" in h)
