"""The update: losses by hand, gradients against a plain computation and TRL's RLOO, entropies without logits."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM

from configs.errors import RatchetError
from configs.schema import TrainingSection
from trainers import head as head_module
from trainers.head import Scale, token_values
from trainers.loop import open_policy
from trainers.policy import Policy
from trainers.policy_gradient import PolicyGradient
from trainers.policy_loss import importance_weights, k3, surrogate, token_weights
from trainers.rollouts import Greedy, Group, Trajectory


def test_surrogate_by_hand() -> None:
    """PPO's objective with clip 0.2 and 0.3: ratios 1.5, 0.5, 1.5, 0.5 with advantages 1, 1, -1, -1."""
    old, ratio = torch.zeros(4), torch.tensor([1.5, 0.5, 1.5, 0.5])
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    loss, cut = surrogate(ratio.log(), old, advantages, 0.2, 0.3)
    assert loss.tolist() == pytest.approx([-1.3, -0.5, 1.5, 0.8])
    assert cut.tolist() == [True, False, False, True]


def test_importance_weights_k3_and_token_weights_by_hand() -> None:
    trainer, sampler = torch.tensor([0.0, -1.0]), torch.tensor([-1.0, 0.0])
    assert importance_weights(trainer, sampler, 2.0).tolist() == pytest.approx([2.0, math.exp(-1)])
    assert k3(trainer, sampler).tolist() == pytest.approx([math.e - 2.0, math.exp(-1)])
    owner = torch.tensor([0, 0, 0, 1])
    assert token_weights(owner, 2, "sequence_sum", 8, 4).tolist() == [0.25] * 4
    assert token_weights(owner, 2, "token_mean", 8, 4).tolist() == [0.125] * 4
    assert token_weights(owner, 2, "sequence_mean", 8, 4).tolist() == pytest.approx([1 / 12] * 3 + [0.25])


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 1.3])
def test_values_and_gradients_equal_those_from_logits(
    monkeypatch: pytest.MonkeyPatch, trainable: bool, temperature: float
) -> None:
    """Also in several tiles. float64 logits are the judge."""
    monkeypatch.setattr(head_module, "_tile", lambda *_: 5)
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 50, bias=False).requires_grad_(trainable)
    hidden, targets = torch.randn(13, 16, requires_grad=True), torch.randint(0, 50, (13,))
    a, b = torch.randn(13), torch.randn(13)
    values = token_values(hidden, head, targets, Scale(_Config()), temperature, True)
    (a @ values.logprobs + b @ values.entropy).backward()
    judge = hidden.detach().double().requires_grad_()
    logits = judge @ head.weight.detach().double().T
    logs = log_softmax(logits / temperature, -1)
    logprobs, entropy = logs.gather(1, targets[:, None])[:, 0], -(logs.exp() * logs).sum(-1)
    (a.double() @ logprobs + b.double() @ entropy).backward()
    torch.testing.assert_close(values.logprobs.double(), logprobs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(values.entropy.double(), entropy, rtol=1e-5, atol=1e-5)
    untempered = log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(values.untempered.double(), untempered, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hidden.grad.double(), judge.grad, rtol=1e-4, atol=1e-5)
    assert not values.untempered.requires_grad
    assert not token_values(hidden, head, targets, Scale(_Config()), temperature, False).entropy.requires_grad


@pytest.mark.parametrize("tile", [5, 13])
@pytest.mark.parametrize("temperature", [None, 1.0, 1.3])
def test_a_trained_projection_gets_its_gradient(
    monkeypatch: pytest.MonkeyPatch, temperature: float | None, tile: int
) -> None:
    """In tiles, and kept whole; the sum over a few rows of the projection at a time. The second backward pass as the first."""
    monkeypatch.setattr(head_module, "_tile", lambda *_: tile)
    monkeypatch.setattr(head_module, "SUM_BYTES", 4 * 16 * 7)
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 50, bias=False)
    hidden, targets = torch.randn(13, 16, requires_grad=True), torch.randint(0, 50, (13,))
    a, scale = torch.randn(13), Scale(_Config())
    if temperature is None:
        logprobs = head_module.token_logprobs(hidden, head, targets, scale)
    else:
        values = token_values(hidden, head, targets, scale, temperature, False)
        logprobs = values.logprobs
        logs = log_softmax(hidden.double() @ head.weight.double().T / temperature, -1)
        torch.testing.assert_close(values.entropy.double(), -(logs.exp() * logs).sum(-1), rtol=1e-5, atol=1e-5)
    (a @ logprobs).backward(retain_graph=True)
    ours = [hidden.grad.clone(), head.weight.grad.clone()]
    (a @ logprobs).backward()
    inputs = [x.detach().double().requires_grad_() for x in (hidden, head.weight)]
    judged = log_softmax(inputs[0] @ inputs[1].T / (temperature or 1.0), -1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(logprobs.double(), judged, rtol=1e-5, atol=1e-5)
    (a.double() @ judged).backward()
    for found, twice, judge in zip(ours, (hidden.grad, head.weight.grad), inputs, strict=True):
        torch.testing.assert_close(found.double(), judge.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(twice, 2 * found)


def test_a_projection_tied_to_the_embedding_sums_both_gradients_over_micro_batches() -> None:
    """The first of them leaves a gradient, to which the others add in place, and autograd the embedding's."""
    torch.manual_seed(0)
    embedding, head = torch.nn.Embedding(50, 16), torch.nn.Linear(16, 50, bias=False)
    head.weight = embedding.weight
    batches, scale = [torch.randint(0, 50, (2, 9)) for _ in range(3)], Scale(_Config())
    for ids, targets in batches:
        head_module.token_logprobs(embedding(ids).tanh(), head, targets, scale).sum().backward()
    weight = embedding.weight.detach().double().requires_grad_()
    for ids, targets in batches:
        log_softmax(weight[ids].tanh() @ weight.T, -1).gather(1, targets[:, None]).sum().backward()
    torch.testing.assert_close(embedding.weight.grad.double(), weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_under_autocast_a_trained_projection_sums_its_gradient_in_float32(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(head_module, "_tile", lambda *_: 64)
    monkeypatch.setattr(head_module, "SUM_BYTES", 4 * 16 * 8)
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 48, bias=False).to(device)
    hidden = torch.randn(640, 16).to(device).requires_grad_()
    targets = torch.randint(0, 48, (640,)).to(device)
    with torch.autocast(device, torch.bfloat16):
        logprobs = head_module.token_logprobs(hidden, head, targets, Scale(_Config()))
    logprobs.mean().backward()
    weight = head.weight.detach().double().requires_grad_()
    log_softmax(hidden.detach().double() @ weight.T, -1).gather(1, targets[:, None]).mean().backward()
    assert (head.weight.grad - weight.grad).norm() < 4e-3 * weight.grad.norm()


class _Config:
    final_logit_softcapping = None
    logits_scaling = None
    logit_scale = None

    def get_text_config(self) -> _Config:
        return self


def make_groups(model: Any, method: str = "rloo", noise: float = 0.0) -> list[Group]:
    """Three problems with three samples of 3 to 7 tokens, log-probabilities as the model itself has them."""
    generator = torch.Generator().manual_seed(1)
    groups = []
    for g in range(3):
        prompt = torch.randint(3, 95, (4 + g,), generator=generator).tolist()
        samples = []
        for i in range(3):
            ids = torch.randint(3, 95, (3 + (g + 2 * i) % 5,), generator=generator).tolist()
            with torch.no_grad():
                logs = log_softmax(model(input_ids=torch.tensor([prompt + ids])).logits[0], -1)
            own = [logs[len(prompt) - 1 + t, x].item() + noise for t, x in enumerate(ids)]
            samples.append(Trajectory(ids, own, float((g + i) % 2), bool((g + i) % 2), False))
        groups.append(Group(f"p{g}", prompt, samples, Greedy(float(g % 2), 4) if method == "remax" else None))
    return groups


def make_trainer(tiny_model: Path, temperature: float = 1.0, **settings: object) -> PolicyGradient:
    values = {"method": "rloo", "adapter": "full", "micro_batch_tokens": 40, "warmup_ratio": 0.0, **settings}
    section = TrainingSection.model_validate(values)
    return PolicyGradient(open_policy(section, tiny_model, "float32", None, 0), section, temperature)


def gradients(trainer: PolicyGradient, groups: list[Group]) -> dict[str, torch.Tensor]:
    """Gradients of one optimiser step, taken instead of making it."""
    found: dict[str, torch.Tensor] = {}

    def instead(rate: float) -> float:
        found.update({n: p.grad.clone() for n, p in trainer.parameters.items() if p.grad is not None})
        return 1.0

    trainer.optimizer.step = instead  # type: ignore[method-assign]
    trainer.update(groups, 0)
    return found


def plain_gradients(model: Any, groups: list[Group], loss: str, worth: Any) -> dict[str, torch.Tensor]:
    """One sample after the other: loss = -sum_i w_i A_i sum_t log pi, with full logits."""
    samples = [(g, s, a) for g in groups for s, a in zip(g.samples, worth(g), strict=True)]
    tokens = sum(len(s.token_ids) for _, s, _ in samples)
    total = torch.zeros(())
    for g, s, a in samples:
        logits = model(input_ids=torch.tensor([g.prompt_ids + s.token_ids])).logits[0, len(g.prompt_ids) - 1 : -1]
        logs = log_softmax(logits, -1).gather(1, torch.tensor(s.token_ids)[:, None]).sum()
        each = 1 / len(samples)
        weight = {"token_mean": 1 / tokens, "sequence_sum": each, "sequence_mean": each / len(s.token_ids)}
        total = total - weight[loss] * a * logs
    total.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("loss", ["token_mean", "sequence_sum", "sequence_mean"])
@pytest.mark.parametrize("method", ["remax", "rloo"])
@pytest.mark.parametrize("sharing", [True, False])
def test_gradients_equal_the_plain_policy_gradient(tiny_model: Path, method: str, loss: str, sharing: bool) -> None:
    """Samples without advantage are left out of the pass, prefixes are shared: neither changes the gradient."""
    trainer = make_trainer(tiny_model, method=method, rl={"loss": loss}, prefix_sharing=sharing)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    groups = make_groups(model, method)

    def worth(g: Group) -> list[float]:
        r = [s.reward for s in g.samples]
        return [x - (g.greedy.reward if g.greedy else (sum(r) - x) / 2) for x in r]

    ours, plain = gradients(trainer, groups), plain_gradients(model, groups, loss, worth)
    assert ours.keys() == plain.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-3, atol=1e-5)


def test_greedy_tokens_never_reach_the_loss_and_equal_rewards_give_no_gradient(tiny_model: Path) -> None:
    trainer = make_trainer(tiny_model, method="remax")
    groups = make_groups(AutoModelForCausalLM.from_pretrained(tiny_model), "remax")
    assert [f.name for f in dataclasses.fields(Greedy)] == ["reward", "tokens"]  # a length, no ids
    equal = [
        dataclasses.replace(g, samples=[dataclasses.replace(s, reward=1.0) for s in g.samples], greedy=Greedy(1.0, 3))
        for g in groups
    ]
    before = {n: p.detach().clone() for n, p in trainer.parameters.items()}
    assert trainer.update(equal, 0)["updates"] == 0.0
    assert all(torch.equal(before[n], p) for n, p in trainer.parameters.items())


def test_loss_and_gradient_equal_trl_rloo(tiny_model: Path, tmp_path: Path) -> None:
    """TRL's RLOOTrainer on the same samples and advantages; its loss is the sum over tokens, the mean over samples."""
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    groups = make_groups(model)
    ours = gradients(make_trainer(tiny_model, rl={"loss": "sequence_sum"}), groups)
    flat = [(g, s) for g in groups for s in g.samples]
    width, longest = max(len(g.prompt_ids) for g in groups), max(len(s.token_ids) for _, s in flat)
    config = RLOOConfig(
        output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, num_generations=3,
        per_device_train_batch_size=9, beta=0.0, disable_dropout=True, gradient_checkpointing=False,
    )
    trainer = RLOOTrainer(
        model=model, reward_funcs=lambda **_: [0.0], args=config, train_dataset=Dataset.from_list([{"prompt": "a"}] * 9),
        processing_class=_tokenizer(tiny_model),
    )
    rewards = torch.tensor([[s.reward for s in g.samples] for g in groups])
    worth = (rewards - (rewards.sum(1, keepdim=True) - rewards) / 2).flatten()
    inputs = {
        "prompt_ids": torch.tensor([[0] * (width - len(g.prompt_ids)) + g.prompt_ids for g, _ in flat]),
        "prompt_mask": torch.tensor([[0] * (width - len(g.prompt_ids)) + [1] * len(g.prompt_ids) for g, _ in flat]),
        "completion_ids": torch.tensor([s.token_ids + [0] * (longest - len(s.token_ids)) for _, s in flat]),
        "completion_mask": torch.tensor([[1] * len(s.token_ids) + [0] * (longest - len(s.token_ids)) for _, s in flat]),
        "advantages": worth, "old_logps": torch.tensor([sum(s.logprobs) for _, s in flat]),
    }
    trainer.model.train()
    trainer._compute_loss(trainer.model, inputs).backward()
    theirs = {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=2e-3, atol=1e-4)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_a_sampler_that_differs_is_reported_and_corrected(tiny_model: Path) -> None:
    """A sampler that finds every token 0.1 nats likelier: each weight is exp(-0.1), the mismatch is k3(-0.1)."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    honest, off = make_groups(model), make_groups(model, noise=0.1)
    plain, corrected = gradients(make_trainer(tiny_model), honest), gradients(make_trainer(tiny_model), off)
    uncorrected = gradients(make_trainer(tiny_model, rl={"importance_cap": None}), off)
    for name, gradient in plain.items():
        torch.testing.assert_close(corrected[name], math.exp(-0.1) * gradient, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(uncorrected[name], gradient, rtol=1e-3, atol=1e-6)
    record = make_trainer(tiny_model).update(off, 0)
    assert record["mismatch_kl"] == pytest.approx(math.exp(-0.1) + 0.1 - 1, rel=1e-2)
    assert record["mismatch_abs"] == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("kl", ["token", "to_go", "sequence", "loss"])
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_kl_against_the_start_is_zero_at_first_and_grows(tiny_model: Path, kl: str, adapter: str) -> None:
    trainer = make_trainer(tiny_model, adapter=adapter, learning_rate=1e-2, schedule="constant", rl={"kl": kl, "steps": 5})
    groups = make_groups(AutoModelForCausalLM.from_pretrained(tiny_model))
    records = [trainer.update(groups, step) for step in range(3)]
    assert records[0]["kl_reference"] == pytest.approx(0.0, abs=1e-6)
    assert records[2]["kl_reference"] > 1e-3
    assert records[2]["kl_initial"] > 0


def test_the_anchor_follows_the_weights(tiny_model: Path, tmp_path: Path) -> None:
    """After one update: anchor = 0.9 start + 0.1 new; it survives a checkpoint."""
    options: dict[str, Any] = {"learning_rate": 1e-2, "rl": {"kl": "sequence", "anchor_decay": 0.9, "steps": 5}}
    trainer = make_trainer(tiny_model, **options)
    groups = make_groups(AutoModelForCausalLM.from_pretrained(tiny_model))
    trainer.update(groups, 0)
    assert trainer.anchor is not None and trainer.initial is not None
    for name, anchor in trainer.anchor.items():
        torch.testing.assert_close(anchor, 0.9 * trainer.initial[name] + 0.1 * trainer.optimizer.masters[name])
    trainer.save(tmp_path, 1, {"note": 1})
    other = make_trainer(tiny_model, **options)
    assert other.load(tmp_path) == {"step": 1, "note": 1}
    assert other.anchor is not None
    assert all(torch.equal(other.anchor[n], t) for n, t in trainer.anchor.items())
    assert trainer.update(groups, 1) == other.update(groups, 1)


def test_several_updates_are_clipped_and_entropy_widens(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    record = make_trainer(tiny_model, learning_rate=3e-2, rl={"updates": 3, "clip": 0.05}).update(make_groups(model), 0)
    assert record["updates"] == 3.0 and record["clipped"] > 0
    trainer = make_trainer(tiny_model, learning_rate=1e-2, schedule="constant", rl={"entropy": 1.0})
    records = [trainer.update(make_groups(model), step) for step in range(4)]
    assert records[-1]["entropy"] > records[0]["entropy"] + 0.1


def test_divergence_stops_the_training(tiny_model: Path) -> None:
    trainer = make_trainer(tiny_model, learning_rate=1e30, schedule="constant")
    groups = make_groups(AutoModelForCausalLM.from_pretrained(tiny_model))
    with pytest.raises(RatchetError, match="diverged at step"):
        for step in range(5):
            trainer.update(groups, step)


def test_logprobs_are_those_of_the_policy(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    groups = make_groups(model)
    trainer = make_trainer(tiny_model, temperature=1.5)
    found = trainer.logprobs_of([g.prompt_ids for g in groups], [g.samples[0].token_ids for g in groups])
    for g, ours in zip(groups, found, strict=True):
        assert ours == pytest.approx(g.samples[0].logprobs, abs=1e-4)
    assert isinstance(trainer.policy, Policy)
