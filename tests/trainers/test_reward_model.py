"""Reward models: losses by brute force, refusals, a task that can be learned, resume, saving and scoring."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

from configs.errors import InputError
from configs.rows import Group
from configs.schema import RewardModelSection, TrainingSection
from trainers.loop import Record, train
from trainers.policy import Policy
from trainers.process_reward_model import process_reward_model
from trainers.reward_groups import GroupTraining, responses
from trainers.reward_head import FILE, Response, RewardHead, Scorer, mark_scores, saved_kind
from trainers.reward_model import outcome_reward_model

LORA = {"adapter": "lora", "lora": {"r": 4, "dropout": 0.1}}


def make_group(
    number: int, labels: Sequence[float], split: str = "train", steps: int = 1, ids: Callable[[float], list[int]] | None = None
) -> Group:
    """A problem with a prompt of its own and one solution for each label (for each of its marks: with `steps` > 1
    every solution has so many steps, all labelled alike)."""
    generator = random.Random(number)
    prompt = [generator.randrange(3, 95) for _ in range(generator.randrange(4, 12))]
    solutions = [ids(y) if ids else [generator.randrange(3, 95) for _ in range(generator.randrange(steps, 9))] for y in labels]
    marks = [[len(s) - 1 - k for k in reversed(range(steps))] for s in solutions]
    return Group(
        id=f"p{number}/group", parents=[], stage="reward_data", problem=f"p{number}", split=split, prompt_ids=prompt,
        samples=[f"p{number}#{i}" for i in range(len(labels))], models=["m"] * len(labels),
        token_ids=[t for s in solutions for t in s], lengths=[len(s) for s in solutions],
        marks=[m for own in marks for m in own], labels=[y for y in labels for _ in range(steps)],
        counts=[steps] * len(labels), solve_rate=0.5,
    )


GROUPS = [make_group(0, [1, 0, 0, 1, 0, 0]), make_group(1, [0, 1]), make_group(2, [1, 1, 1, 0]), make_group(3, [0, 0, 1])]


def settings_of(**changes: object) -> TrainingSection:
    return TrainingSection.model_validate({"method": "reward_model", "micro_batch_tokens": 64, **LORA, **changes})


def one_by_one(model: torch.nn.Module, response: Response) -> torch.Tensor:
    """The head on the model's own hidden states, one solution at a time."""
    ids = torch.tensor([response.prompt_ids + response.token_ids])
    hidden = model.base_model(input_ids=ids).last_hidden_state[0]  # type: ignore[operator]
    marks = [len(response.prompt_ids) + m for m in response.marks]
    return model.reward_head(hidden[marks])[:, 0]  # type: ignore[operator]


@pytest.mark.parametrize("share", [True, False])
def test_listwise_loss_and_gradients_equal_brute_force_over_pairs(tiny_model: Path, share: bool) -> None:
    """Mean over problems of the mean over all k (m - k) pairs of -log sigmoid(r+ - r-), one solution at a time."""
    results = []
    for packed in (True, False):
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        policy = Policy(model, "sdpa", share)
        RewardHead("outcome", seed=5).attach(policy)
        if packed:
            settings = settings_of(batch_size=len(GROUPS), prefix_sharing=share)
            method = outcome_reward_model(GROUPS, settings, RewardModelSection(), 0)
            _, micros = method.batch(0)
            assert len(micros) > 1
            loss = torch.stack([method.loss(policy, m)[0] for m in micros]).sum()
        else:
            losses = []
            for g in GROUPS:
                scores = [one_by_one(model, r)[0] for r in responses(g)]
                pairs = [(a, b) for a, b in itertools.permutations(range(len(scores)), 2) if g.labels[a] > g.labels[b]]
                losses.append(-sum(logsigmoid(scores[a] - scores[b]) for a, b in pairs) / len(pairs))
            loss = torch.stack(losses).mean()  # type: ignore[arg-type]
        loss.backward()
        results.append((loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (ours, our_gradients), (plain, plain_gradients) = results
    assert ours == pytest.approx(plain, rel=1e-5)
    assert "reward_head.0.weight" in our_gradients and our_gradients.keys() == plain_gradients.keys()
    for name, gradient in our_gradients.items():
        expected = plain_gradients[name]
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-7 + 1e-4 * expected.abs().max().item())


def test_process_loss_equals_brute_force(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    policy = Policy(model, "sdpa", True)
    RewardHead("process", seed=5).attach(policy)
    groups = [make_group(0, [0.25, 1.0], steps=2), make_group(1, [0.0, 0.75, 0.5], steps=3)]
    for labels in ("soft", "hard"):
        method = process_reward_model(groups, settings_of(), RewardModelSection(kind="process", labels=labels), 0)
        _, micros = method.batch(0)
        loss = sum(method.loss(policy, m)[0].item() for m in micros)
        expected = []
        for g in groups:
            scores = torch.cat([one_by_one(model, r) for r in responses(g)]).tolist()
            for s, y in zip(scores, g.labels, strict=True):
                y = float(y > 0) if labels == "hard" else y
                expected.append(-y * math.log(1 / (1 + math.exp(-s))) - (1 - y) * math.log(1 / (1 + math.exp(s))))
        assert loss == pytest.approx(sum(expected) / len(expected), rel=1e-4)


@pytest.mark.parametrize(("labels", "said"), [([0, 0, 0], "all 3 solutions are wrong"), ([1, 1], "all 2 solutions are right")])
def test_groups_without_both_classes_are_refused(labels: list[float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        outcome_reward_model([*GROUPS, make_group(9, labels)], settings_of(), RewardModelSection(), 0)


def test_what_cannot_be_learned_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no groups"):
        outcome_reward_model([make_group(0, [1, 0], "validation")], settings_of(), RewardModelSection(), 0)
    with pytest.raises(InputError, match="scores each solution once"):
        outcome_reward_model([make_group(0, [1, 0], steps=2)], settings_of(), RewardModelSection(), 0)
    with pytest.raises(InputError, match="between 0 and 1"):
        process_reward_model([make_group(0, [1.5])], settings_of(), RewardModelSection(), 0)
    with pytest.raises(InputError, match="holds no reward model"):
        saved_kind(tmp_path)


def test_the_control_arm_makes_disjoint_pairs_anew_each_epoch() -> None:
    method = outcome_reward_model(GROUPS, settings_of(epochs=4, batch_size=4), RewardModelSection(loss="pairs"), 0)
    seen = []
    for step in range(method.steps):
        groups = [g for micro in method.batch(step)[1] for g in micro.groups]
        assert sorted(g.problem for g in groups) == ["p0", "p0", "p1", "p2", "p3"]
        assert all(g.labels == [1.0, 0.0] for g in groups)
        used = [name for g in groups for name in g.samples]
        assert len(used) == len(set(used))
        seen.append(tuple(sorted(tuple(g.samples) for g in groups)))
    assert len(set(seen)) > 1


def separable(number: int, labels: Sequence[float], split: str) -> Group:
    """Solutions of random tokens in which the right ones hold one telling token somewhere."""
    generator = random.Random(1000 + number)

    def ids(y: float) -> list[int]:
        solution = [generator.randrange(20, 95) for _ in range(7)]
        solution[generator.randrange(7)] = 7 if y else 8
        return [*solution, 1]  # the end token

    return make_group(number, labels, split, ids=ids)


def run(
    method: GroupTraining, model: Path, folder: Path, settings: TrainingSection, stop_after: int | None = None,
    kind: str = "outcome",
) -> list[Record]:
    def report(values: dict[str, float]) -> None:
        if stop_after is not None and values["done"] > stop_after:
            raise KeyboardInterrupt

    return train(
        method, settings, base=model, dtype="float32", start=None, seed=3, work=folder / "work",
        output=folder / "model", report=report, part=RewardHead(kind, seed=3),
    )


@pytest.mark.parametrize("loss", ["listwise", "pairs"])
def test_a_separable_task_is_learned_and_holds_for_new_problems(tiny_model: Path, tmp_path: Path, loss: str) -> None:
    groups = [separable(i, [1, 0, 1, 0], "train" if i < 96 else "validation") for i in range(128)]
    settings = settings_of(learning_rate=5e-3, epochs=6, batch_size=8, micro_batch_tokens=1024, lora={"r": 8})
    section = RewardModelSection.model_validate({"kind": "outcome", "loss": loss})
    history = run(outcome_reward_model(groups, settings, section, 0), tiny_model, tmp_path, settings)
    first = next(h for h in history if "validation/accuracy" in h)
    assert history[-1]["validation/accuracy"] > 0.9 and history[-1]["validation/margin"] > 1.0, (first, history[-1])

    scorer = Scorer(tmp_path / "model", settings, tiny_model, "float32")
    held = [r for g in groups[96:] for r in responses(g)]
    labels = [y for g in groups[96:] for y in g.labels]
    scores = [s[0] for s in scorer.score(held)]
    right = [s for s, y in zip(scores, labels, strict=True) if y]
    wrong = [s for s, y in zip(scores, labels, strict=True) if not y]
    assert sum(a > b for a in right for b in wrong) > 0.9 * len(right) * len(wrong)
    alone = [scorer.score([r])[0][0] for r in held[:5]]
    assert scores[:5] == pytest.approx(alone, abs=1e-4)
    doubled = scorer.score([*held, *held])
    assert [s[0] for s in doubled] == pytest.approx(scores * 2, abs=1e-4)


def test_step_values_are_learned(tiny_model: Path, tmp_path: Path) -> None:
    groups = [separable(i, [1.0, 0.0, 1.0, 0.0], "train" if i < 96 else "validation") for i in range(128)]
    settings = settings_of(learning_rate=5e-3, epochs=6, batch_size=8, micro_batch_tokens=1024, lora={"r": 8})
    method = process_reward_model(groups, settings, RewardModelSection(kind="process"), 0)
    history = run(method, tiny_model, tmp_path, settings, kind="process")
    assert history[-1]["validation/accuracy"] > 0.9
    assert saved_kind(tmp_path / "model") == "process"


@pytest.mark.parametrize(("adapter", "loss"), [("lora", "listwise"), ("lora", "pairs"), ("full", "listwise")])
def test_interrupted_training_ends_with_the_same_bytes(tiny_model: Path, tmp_path: Path, adapter: str, loss: str) -> None:
    groups = [*GROUPS, make_group(7, [1, 0, 0], "validation")]
    settings = settings_of(adapter=adapter, epochs=4, batch_size=2, checkpoint_every=2, learning_rate=1e-3)
    section = RewardModelSection.model_validate({"kind": "outcome", "loss": loss})

    def method() -> GroupTraining:
        return outcome_reward_model(groups, settings, section, 0)

    calm = run(method(), tiny_model, tmp_path / "calm", settings)
    for stop_after in (3, 7):
        with pytest.raises(KeyboardInterrupt):
            run(method(), tiny_model, tmp_path / "cut", settings, stop_after)
    assert run(method(), tiny_model, tmp_path / "cut", settings) == calm
    names = sorted(p.name for p in (tmp_path / "calm" / "model").iterdir())
    assert FILE in names
    for name in names:
        assert (tmp_path / "calm" / "model" / name).read_bytes() == (tmp_path / "cut" / "model" / name).read_bytes(), name


def test_full_training_saves_a_language_model_and_a_head(tiny_model: Path, tmp_path: Path) -> None:
    settings = settings_of(adapter="full", epochs=1, learning_rate=1e-2)
    run(outcome_reward_model(GROUPS, settings, RewardModelSection(), 0), tiny_model, tmp_path, settings)
    loaded, told = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    before = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    assert any(not torch.equal(t, before[n]) for n, t in loaded.state_dict().items())
    response = responses(GROUPS[0])[0]
    scorer = Scorer(tmp_path / "model", settings, tiny_model, "float32")
    expected = mark_scores(scorer.policy, [[response]])[0][0].item()
    assert scorer.score([response])[0][0] == pytest.approx(expected, abs=1e-5)


def test_quantised_base(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=99, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "wide")
    settings = settings_of(adapter="qlora", epochs=3, learning_rate=1e-3)
    history = train(
        outcome_reward_model(GROUPS, settings, RewardModelSection(), 0), settings, base=tmp_path / "wide", dtype="bfloat16",
        start=None, seed=3, work=tmp_path / "work", output=tmp_path / "model", report=lambda _: None,
        part=RewardHead("outcome"),
    )
    assert history[-1]["loss"] < history[0]["loss"]
    scores = Scorer(tmp_path / "model", settings, tmp_path / "wide", "bfloat16").score(responses(GROUPS[0]))
    assert all(math.isfinite(s[0]) for s in scores)
