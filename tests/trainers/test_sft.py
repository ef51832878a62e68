"""Supervised fine-tuning: the loss against a plain computation, and resume against an undisturbed run."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from configs.errors import InputError, RatchetError
from configs.rows import Example
from configs.schema import TrainingSection
from trainers.averaging import TailAverage
from trainers.loop import Record, batch_plan, train
from trainers.policy import Policy
from trainers.schedule import learning_rate
from trainers.sft import SupervisedFineTuning, weighted_nll


def _example(i: int, prompt: int = 4, completion: int = 3, weight: float = 1.0) -> Example:
    return Example(
        id=f"e{i}", parents=[], stage="select", problem=f"p{i}", prompt_ids=[10 + (7 * i + k) % 90 for k in range(prompt)],
        token_ids=[20 + (3 * i + k) % 50 for k in range(completion - 1)] + [1], text="", kind="model", weight=weight,
    )


EXAMPLES = [_example(i, prompt=2 + i % 5, completion=2 + i % 4) for i in range(14)]


def _plain_nll(model: torch.nn.Module, examples: list[Example]) -> torch.Tensor:
    """One example at a time, no padding, with the model's own labels argument (mean over tokens)."""
    total = torch.zeros(())
    for e in examples:
        ids = torch.tensor([e.prompt_ids + e.token_ids])
        labels = ids.clone()
        labels[:, : len(e.prompt_ids)] = -100
        total = total + e.weight * len(e.token_ids) * model(input_ids=ids, labels=labels).loss
    return total


def test_loss_and_gradients_equal_the_plain_computation(tiny_model: Path) -> None:
    examples = [_example(0, 3, 4), _example(1, 7, 2, weight=0.5), _example(2, 1, 6, weight=2.0)]
    gradients = []
    for packed in (True, False):
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        loss = weighted_nll(Policy(model, "sdpa", True), examples) if packed else _plain_nll(model, examples)
        loss.backward()
        gradients.append((loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (ours, our_gradients), (plain, plain_gradients) = gradients
    assert ours == pytest.approx(plain, rel=1e-5)
    assert our_gradients.keys() == plain_gradients.keys()
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, plain_gradients[name], rtol=1e-4, atol=1e-5)


def test_token_weights_multiply_the_tokens_losses(tiny_model: Path) -> None:
    """Against single tokens by hand; equal weights change nothing; the steps of one example weigh what they are given."""
    plain = [_example(0, 3, 4), _example(1, 7, 2, weight=0.5)]
    weighted = [replace(plain[0], token_weights=[2.0, 0.0, 0.5, 1.0]), plain[1]]
    policy = Policy(AutoModelForCausalLM.from_pretrained(tiny_model), "sdpa", True)
    prefixes = [replace(plain[0], token_ids=plain[0].token_ids[:k]) for k in range(1, 5)]
    sums = [0.0, *(weighted_nll(policy, [e]).item() for e in prefixes)]
    by_token = [b - a for a, b in itertools.pairwise(sums)]
    expected = 2.0 * by_token[0] + 0.5 * by_token[2] + by_token[3] + weighted_nll(policy, plain[1:]).item()
    assert weighted_nll(policy, weighted).item() == pytest.approx(expected, rel=1e-4)
    alike = [replace(e, token_weights=[1.0] * len(e.token_ids)) for e in plain]
    assert weighted_nll(policy, alike).item() == pytest.approx(weighted_nll(policy, plain).item(), rel=1e-6)
    method = SupervisedFineTuning(weighted, TrainingSection(batch_size=2), 0)
    assert method.batch(0)[1][0].normaliser == pytest.approx(3.5 + 0.5 * 2)


@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_prompts_carry_loss_where_they_have_a_weight(tiny_model: Path, weight: float) -> None:
    """Two examples of one problem share their prompt, and each counts it; against the model's own labels argument."""
    first = _example(0, 5, 4)
    examples = [first, replace(first, id="other", token_ids=[7, 9, 1], weight=2.0), _example(1, 1, 3, weight=0.5)]
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    expected, weights = _plain_nll(model, examples), 0.0
    for e in examples:
        prompt = torch.tensor([e.prompt_ids])
        if len(e.prompt_ids) > 1:
            expected = expected + e.weight * weight * (len(e.prompt_ids) - 1) * model(input_ids=prompt, labels=prompt).loss
        weights += e.weight * (len(e.token_ids) + weight * (len(e.prompt_ids) - 1))
    policy = Policy(model, "sdpa", True)
    assert weighted_nll(policy, examples, weight).item() == pytest.approx(expected.item(), rel=1e-5)
    method = SupervisedFineTuning(examples, TrainingSection(batch_size=3, prompt_weight=weight, micro_batch_tokens=99), 0)
    (micro,) = method.batch(0)[1]
    assert micro.normaliser == pytest.approx(weights)
    assert method.loss(policy, micro)[0].item() == pytest.approx(expected.item() / weights, rel=1e-5)


def test_only_supervised_fine_tuning_has_a_loss_on_prompts() -> None:
    with pytest.raises(ValueError, match="`prompt_weight` belongs to `method: sft`"):
        TrainingSection(method="dpo", prompt_weight=0.5)


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0, 0.0], [1.0, -1.0, 1.0]])
def test_token_weights_that_cannot_be_used_are_named(weights: list[float]) -> None:
    with pytest.raises(InputError, match="e3: one weight for each token"):
        SupervisedFineTuning([replace(_example(3), token_weights=weights)], TrainingSection(), 0)


class _Stop(Exception):
    pass


def _train(
    tiny_model: Path, folder: Path, settings: TrainingSection, stop_after: int | None = None, start: Path | None = None,
    dtype: str = "float32",
) -> list[Record]:
    def report(values: dict[str, float]) -> None:
        if stop_after is not None and values["done"] > stop_after:
            raise _Stop

    return train(
        SupervisedFineTuning(EXAMPLES, settings, 3), settings, base=tiny_model, dtype=dtype, start=start, seed=3,
        work=folder / "work", output=folder / "model", report=report,
    )


def _files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "model").iterdir())}


@pytest.mark.parametrize("average", [0.0, 0.5])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_interrupted_training_ends_with_the_same_bytes(
    tiny_model: Path, tmp_path: Path, adapter: str, dtype: str, average: float
) -> None:
    settings = TrainingSection.model_validate({
        "adapter": adapter, "epochs": 3, "batch_size": 4, "checkpoint_every": 2, "learning_rate": 1e-3,
        "lora": {"dropout": 0.1, "r": 4}, "average": average,
    })
    calm = _train(tiny_model, tmp_path / "calm", settings, dtype=dtype)
    for stop_after in (3, 7):
        with pytest.raises(_Stop):
            _train(tiny_model, tmp_path / "cut", settings, stop_after, dtype=dtype)
        assert not (tmp_path / "cut" / "model").exists()
    resumed = _train(tiny_model, tmp_path / "cut", settings, dtype=dtype)
    assert resumed == calm
    assert _files(tmp_path / "cut") == _files(tmp_path / "calm")


def test_the_result_is_the_mean_of_the_last_weights(tiny_model: Path, tmp_path: Path) -> None:
    """Against runs that end one step earlier each: at a constant rate they have the same weights up to there."""
    common = {"adapter": "full", "batch_size": 4, "learning_rate": 1e-2, "schedule": "constant", "warmup_ratio": 0.0}
    ends = []
    for steps in (3, 4, 5):
        _train(tiny_model, tmp_path / str(steps), TrainingSection.model_validate({**common, "steps": steps}))
        ends.append(load_file(tmp_path / str(steps) / "model" / "model.safetensors"))
    _train(tiny_model, tmp_path / "mean", TrainingSection.model_validate({**common, "steps": 5, "average": 0.5}))
    mean = load_file(tmp_path / "mean" / "model" / "model.safetensors")  # of ceil(0.5 * 5) = 3 steps
    assert mean.keys() == ends[0].keys()
    for name, value in mean.items():
        torch.testing.assert_close(value, torch.stack([e[name] for e in ends]).mean(0), rtol=1e-5, atol=1e-6)
        assert not torch.equal(value, ends[-1][name])


@given(share=st.floats(0.001, 1.0), steps=st.integers(1, 40))
def test_a_share_of_the_steps_is_averaged(share: float, steps: int) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    average = TailAverage({"p": parameter}, share, steps)
    values = torch.arange(1.0, steps + 1)
    for step in range(steps):
        parameter.data.fill_(values[step])
        average.after(step)
    average.apply()
    count = steps - average.first
    assert 1 <= count <= steps and count - 1 < share * steps + 1e-9
    torch.testing.assert_close(parameter.data, values[-count:].mean().expand(2), rtol=1e-5, atol=1e-5)


def test_online_methods_have_no_mean_of_weights() -> None:
    with pytest.raises(ValueError, match="`average` belongs to methods"):
        TrainingSection(method="remax", average=0.5)


def test_the_loss_falls_and_the_adapter_can_be_continued(tiny_model: Path, tmp_path: Path) -> None:
    settings = TrainingSection(learning_rate=1e-2, epochs=6, batch_size=7, schedule="constant")
    first = _train(tiny_model, tmp_path / "a", settings)
    assert first[-1]["loss"] < 0.7 * first[0]["loss"]
    second = _train(tiny_model, tmp_path / "b", settings, start=tmp_path / "a" / "model")
    assert second[0]["loss"] < 0.75 * first[0]["loss"]


def test_artefact_bytes_do_not_name_this_machine(tiny_model: Path, tmp_path: Path) -> None:
    _train(tiny_model, tmp_path, TrainingSection(epochs=1))
    for name, content in _files(tmp_path).items():
        assert str(tiny_model).encode() not in content, name


def test_divergence_stops_the_run(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RatchetError, match="diverged at step"):
        _train(tiny_model, tmp_path, TrainingSection(adapter="full", learning_rate=1e30, epochs=5, warmup_ratio=0.0))
    assert not (tmp_path / "model").exists()


def test_no_examples_is_an_error() -> None:
    with pytest.raises(InputError, match="no training examples"):
        SupervisedFineTuning([], TrainingSection(), 0)


@given(st.integers(1, 50), st.integers(1, 4), st.integers(1, 9), st.integers(0, 5))
def test_every_example_once_an_epoch(count: int, epochs: int, size: int, seed: int) -> None:
    plan = batch_plan(count, epochs, size, seed)
    for epoch in range(epochs):
        seen = [i for e, indices in plan if e == epoch for i in indices]
        assert sorted(seen) == list(range(count))


def test_learning_rates() -> None:
    """10 steps, 2 of warm-up, peak 1: by hand."""
    constant = [learning_rate(s, 10, 1.0, "constant", 0.2) for s in range(10)]
    assert constant == [0.5, 1.0] + [1.0] * 8
    linear = [learning_rate(s, 10, 1.0, "linear", 0.2) for s in range(10)]
    assert linear == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    cosine = [learning_rate(s, 10, 1.0, "cosine", 0.0) for s in range(10)]
    assert cosine[0] == 1.0 and cosine[5] == pytest.approx(0.5) and cosine[9] == pytest.approx(0.0244717, abs=1e-7)
