"""Advantages of tokens: gradients against the loss written out, and what else a sample with its own advantages changes."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM

from configs.schema import TrainingSection
from tests.trainers.test_policy_gradient import gradients, make_groups, make_trainer
from trainers.estimators import token_advantages
from trainers.rollouts import Group, Trajectory, advantages_of_tokens, useful

REINFORCE = TrainingSection.model_validate({"method": "reinforce"})


def with_steps(groups: list[Group]) -> list[Group]:
    """The same groups: two samples of each with two or three steps, one of them worth nothing throughout; the third keeps
    the advantage of its reward."""
    found = []
    for k, g in enumerate(groups):
        first, second, third = g.samples
        n = len(first.token_ids)
        own = [0.75] * 2 + [0.0] * (n - 3) + [-0.5 - k]
        worthless = [0.0] * len(second.token_ids)
        samples = [dataclasses.replace(first, advantages=own), dataclasses.replace(second, advantages=worthless), third]
        found.append(dataclasses.replace(g, samples=samples))
    return found


def logprobs(model: Any, group: Group, sample: Trajectory) -> torch.Tensor:
    """log pi of a sample's tokens [T], from full logits."""
    logits = model(input_ids=torch.tensor([group.prompt_ids + sample.token_ids])).logits[0, len(group.prompt_ids) - 1 : -1]
    return log_softmax(logits, -1).gather(1, torch.tensor(sample.token_ids)[:, None])[:, 0]


def written_out(models: dict[str, Any], groups: list[Group], loss: str, kl: str, beta: float, clip: float) -> torch.Tensor:
    """The loss of one optimiser step on `groups`, token by token. Models: now (differentiated), old, reference."""
    everyone = [(g, s) for g in groups for s in g.samples]
    tokens = sum(len(s.token_ids) for _, s in everyone)
    total = torch.zeros(())
    for g, s in everyone:
        now = logprobs(models["now"], g, s)
        with torch.no_grad():
            old, reference = logprobs(models["old"], g, s), logprobs(models["reference"], g, s)
        for t in range(len(s.token_ids)):
            a = s.reward if s.advantages is None else s.advantages[t]
            if kl == "token":
                a = a - beta * float(old[t] - reference[t])
            if kl == "to_go":
                a = a - beta * float((old - reference)[t:].sum())
            rho = torch.exp(now[t] - old[t])
            term = -torch.min(rho * a, rho.clamp(1 - clip, 1 + clip) * a)
            term = term * min(2.0, float(torch.exp(old[t] - s.logprobs[t])))
            if kl == "loss":
                d = reference[t] - now[t]
                term = term + beta * (torch.exp(d) - d - 1)
            share = {"token_mean": 1 / tokens, "sequence_sum": 1 / len(everyone)}
            total = total + term * share.get(loss, 1 / (len(s.token_ids) * len(everyone)))
    return total


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize(
    ("loss", "kl"),
    [("token_mean", "none"), ("sequence_sum", "none"), ("sequence_mean", "none"), ("token_mean", "token"),
     ("sequence_sum", "to_go"), ("sequence_mean", "loss")],
)  # fmt: skip
def test_gradients_equal_the_loss_written_out(tiny_model: Path, loss: str, kl: str, sharing: bool) -> None:
    """The second of two updates on a batch, after a first batch has moved the weights: the reference is not the policy,
    the sampler is not the trainer, ratios are clipped."""
    rl = {"loss": loss, "kl": kl, "kl_coefficient": 0.3, "updates": 2, "clip": 0.05, "steps": 5}
    trainer = make_trainer(
        tiny_model, method="reinforce", learning_rate=3e-3, schedule="constant", prefix_sharing=sharing, rl=rl
    )
    start = AutoModelForCausalLM.from_pretrained(tiny_model)
    groups = with_steps(make_groups(start))
    trainer.update(groups, 0)
    old = copy.deepcopy(start)
    old.load_state_dict({n: p.detach().clone() for n, p in trainer.policy.model.state_dict().items()})
    step, seen = trainer.optimizer.step, []

    def watching(rate: float) -> float:
        found = {n: p.grad.clone() for n, p in trainer.parameters.items() if p.grad is not None}
        seen.append((found, {n: p.detach().clone() for n, p in trainer.policy.model.state_dict().items()}))
        return step(rate)

    trainer.optimizer.step = watching  # type: ignore[method-assign]
    record = trainer.update(groups, 1)
    assert record["clipped"] > 0 and record["updates"] == 2
    ours, weights = seen[1]
    now = copy.deepcopy(start)
    now.load_state_dict(weights)
    models = {"now": now, "old": old, "reference": start}
    written_out(models, groups[1::2], loss, kl, 0.3, 0.05).backward()
    plain = {n: p.grad for n, p in now.named_parameters() if p.grad is not None}
    assert ours.keys() == plain.keys()
    largest = max(float(g.abs().max()) for g in plain.values())
    assert largest > 1e-2
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-3, atol=1e-4 * largest)


def test_equal_advantages_on_all_tokens_are_the_advantage_of_the_sample(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    groups = make_groups(model)
    spelled = [
        dataclasses.replace(g, samples=[dataclasses.replace(s, advantages=[s.reward] * len(s.token_ids)) for s in g.samples])
        for g in groups
    ]
    trainers = [make_trainer(tiny_model, method="reinforce") for _ in range(2)]
    whole, by_token = (gradients(t, g) for t, g in zip(trainers, (groups, spelled), strict=True))
    assert all(torch.equal(whole[n], by_token[n]) for n in whole)


def test_samples_whose_tokens_are_worth_nothing_do_not_go_through_the_model(tiny_model: Path) -> None:
    groups = with_steps(make_groups(AutoModelForCausalLM.from_pretrained(tiny_model)))
    record = make_trainer(tiny_model, method="reinforce").update(groups, 0)
    rewarded = sum(g.samples[2].reward != 0 for g in groups)
    assert record["learned_samples"] == len(groups) + rewarded
    silent = [
        dataclasses.replace(g, samples=[dataclasses.replace(s, advantages=[0.0] * len(s.token_ids)) for s in g.samples])
        for g in groups
    ]
    assert make_trainer(tiny_model, method="reinforce").update(silent, 0)["updates"] == 0.0


def test_a_kl_per_token_by_hand() -> None:
    """Advantages 1, 0 and -1 of three tokens with log ratios 1, 2, 3 and weight 0.1."""
    own, k = torch.tensor([1.0, 0.0, -1.0]), torch.tensor([1.0, 2.0, 3.0])
    assert token_advantages(own, k, 0.1, "token").tolist() == pytest.approx([0.9, -0.2, -1.3])
    assert token_advantages(own, k, 0.1, "to_go").tolist() == pytest.approx([0.4, -0.5, -1.3])
    assert token_advantages(own, k, 0.1, "none").tolist() == [1.0, 0.0, -1.0]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="1 advantages for 2 tokens"):
        Trajectory([5, 1], [0.0, 0.0], 1.0, True, False, [0.5])
    group = Group("p", [3], [Trajectory([5, 1], [0.0, 0.0], 1.0, True, False, [0.5, 0.5])])
    with pytest.raises(ValueError, match="problem p: advantages of tokens do not go with the KL of whole sequences"):
        advantages_of_tokens(group, REINFORCE, kl=torch.zeros(1))


def test_with_step_rollouts_groups_of_equal_rewards_are_of_no_use() -> None:
    settings = TrainingSection.model_validate({"method": "reinforce", "rl": {"step_rollouts": 2}})
    for rewards, plain, by_step in (([1.0, 1.0], True, False), ([0.0, 1.0], True, True), ([0.0, 0.0], False, False)):
        group = Group("p", [3], [Trajectory([5], [0.0], r, bool(r), False) for r in rewards])
        assert (useful(group, REINFORCE), useful(group, settings)) == (plain, by_step)
