"""Values of steps while training online: they are those of the policy, the reward rises, a kill changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from configs.errors import ConfigError
from configs.keys import derive_seed
from configs.load import load_recipe
from configs.rows import Problem
from configs.schema import PromptSection, TrainingSection
from data_gen.engine import EngineConfig, Request
from data_gen.engine_transformers import TransformersEngine
from data_gen.prompts import PromptEncoder
from pipelines.online.rollouts import Collector
from pipelines.online.step_values import credit_steps
from pipelines.store import Journal
from rewards import VerifierPool
from tests.pipelines.digits import QUESTIONS, TWO_LINES, make_guesser, write_digits_recipe
from tests.pipelines.helpers import assert_kills_change_nothing, assert_same, contents
from tests.pipelines.test_online import run

STEPS = ("training.method=reinforce", "training.rl.step_rollouts=4", "sampling.max_tokens=6")


@pytest.fixture(scope="session")
def copier(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers in two lines of one digit each, the second mostly a copy of the first."""
    return make_guesser(tiny_model, tmp_path_factory.mktemp("copier") / "model", TWO_LINES)


class Watched:
    """The real engine, and what it was asked for."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.engine, self.requests = engine, [[]]

    def generate(self, requests: list[Request], done: Any = ()) -> Iterator[Any]:
        self.requests.append(list(requests))
        return self.engine.generate(requests, done)


def make_collector(model: Path, engine: Any, pool: VerifierPool, stop: list[str] | None = None, **rl: Any) -> Collector:
    problems = {
        q: Problem(id=q, parents=[], stage="problems", source="own", split="train", question=q, answer="7") for q in QUESTIONS
    }
    settings = TrainingSection.model_validate({"method": "reinforce", "rl": rl})
    sampling = {"n": 8, "temperature": 1.0, "max_tokens": 6, "max_model_len": 64, "stop": stop or []}
    encoder = PromptEncoder(model, PromptSection(style="plain"))
    rewards = {"mode": "lenient", "timeout": 1.0}
    return Collector(engine, encoder, pool, problems, settings, sampling, rewards, lambda *parts: derive_seed(5, *parts))


def open_engine(model: Path, stop: list[str] | None = None) -> TransformersEngine:
    return TransformersEngine(
        EngineConfig(
            kind="transformers", model=str(model), dtype="float32", batch_size=512, max_model_len=64, gpu_memory=0.5,
            stop=stop or [],
        )
    )  # fmt: skip


def chance_of_seven(model: Any, ids: list[int], tokenizer: Any) -> float:
    """Exact probability that the model goes on with `7` and the end token."""
    (seven,) = tokenizer("7")["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*ids, seven]])).logits[0].softmax(-1)
    return float(logits[-2, seven] * logits[-1, tokenizer.eos_token_id])


def test_values_are_those_of_the_policy_and_equal_beginnings_are_drawn_once(copier: Path, tmp_path: Path) -> None:
    """First line: the value after it less the mean reward of the other samples. Second line: the reward less that value."""
    count = 400
    engine = Watched(open_engine(copier))
    with VerifierPool(1) as pool:
        collector = make_collector(copier, engine, pool, step_rollouts=count)
        journal = Journal(tmp_path / "journal.jsonl")
        groups = collector.collect(0, 0, QUESTIONS, journal).groups
        credited, record = credit_steps(collector, 0, groups, journal)
        journal.close()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(copier), collector.encoder.tokenizer
    asked = engine.requests[-1]
    prompts = [r.prompt_ids for r in asked]
    useful = [g for g in credited if 0 < sum(s.reward for s in g.samples) < 8]
    beginnings = {(g.problem, *s.token_ids[:2]) for g in useful for s in g.samples if len(s.token_ids) == 4}
    assert len(useful) >= 3 and len(asked) == len(beginnings) == record["rollout_states"]
    assert prompts == sorted(prompts), "common prefixes next to each other"
    seeds = [s for r in asked for s in r.seeds]
    assert len(set(seeds)) == len(seeds) == record["rollouts"] == count * len(asked)
    assert {r.max_tokens for r in asked} == {4}, "as long as the sample could have been"
    values = {}
    for g in useful:
        for s in g.samples:
            if len(s.token_ids) != 4:
                continue
            assert s.advantages is not None
            first, newline, second, end = s.advantages
            others = (sum(x.reward for x in g.samples) - s.reward) / 7
            value = first + others
            assert first == newline and second == end == pytest.approx(s.reward - value)
            exact = chance_of_seven(model, g.prompt_ids + s.token_ids[:2], tokenizer)
            assert abs(value - exact) < 4 * math.sqrt(0.25 / count)
            values[g.problem, tokenizer.decode(s.token_ids[:1])] = value
    assert max(v for (_, digit), v in values.items() if digit == "7") > 0.5
    assert max(v for (_, digit), v in values.items() if digit != "7") < 0.4
    drawn = [c for kind, number, rows in journal.groups if (kind, number) == ("drawn", "steps") for c in rows]
    assert record["rollout_tokens"] == sum(len(c.token_ids) for c in drawn)


def test_groups_of_equal_rewards_are_not_rolled_out(copier: Path, tmp_path: Path) -> None:
    engine = Watched(open_engine(copier))
    with VerifierPool(1) as pool:
        collector = make_collector(copier, engine, pool, step_rollouts=4)
        collector.problems = {q: _answered(p, "1000") for q, p in collector.problems.items()}
        journal = Journal(tmp_path / "journal.jsonl")
        groups = collector.collect(0, 0, QUESTIONS, journal).groups
        credited, record = credit_steps(collector, 0, groups, journal)
    assert engine.requests[-1] == [] and record["rollouts"] == record["rollout_tokens"] == record["steps"] == 0
    assert all(s.advantages == [0.0] * len(s.token_ids) for g in credited for s in g.samples)


def _answered(problem: Problem, answer: str) -> Problem:
    import msgspec

    return msgspec.structs.replace(problem, answer=answer)


def test_a_stop_string_is_no_step_and_stops_continuations_too(copier: Path, tmp_path: Path) -> None:
    """With a stop string at the second line, samples have one step: nothing is to be drawn."""
    engine = Watched(open_engine(copier, ["\n"]))
    with VerifierPool(1) as pool:
        collector = make_collector(copier, engine, pool, ["\n"], step_rollouts=4)
        journal = Journal(tmp_path / "journal.jsonl")
        groups = collector.collect(0, 0, QUESTIONS, journal).groups
        credited, record = credit_steps(collector, 0, groups, journal)
    useful = [g for g in credited if 0 < sum(s.reward for s in g.samples) < 8]
    assert useful and record["rollouts"] == 0 and record["steps"] == 8 * len(useful)
    for g in useful:
        for s in g.samples:
            others = (sum(x.reward for x in g.samples) - s.reward) / 7
            assert s.advantages == pytest.approx([s.reward - others] * len(s.token_ids))


def test_a_scorer_rewards_continuations_as_whole_solutions(copier: Path, tmp_path: Path) -> None:
    """The reward of a wrong answer is sigmoid(score) - 1, of a right one sigmoid(score); the score is the first digit."""
    engine = Watched(open_engine(copier))
    with VerifierPool(1) as pool:
        collector = make_collector(copier, engine, pool, step_rollouts=50)
        collector.scorer, collector.alpha = lambda _, answers: [float(a.text[0]) / 9 for a in answers], 1.0
        journal = Journal(tmp_path / "journal.jsonl")
        groups = collector.collect(0, 0, QUESTIONS, journal).groups
        credited, record = credit_steps(collector, 0, groups, journal)
    tokenizer = collector.encoder.tokenizer
    drawn = [c for kind, number, rows in journal.groups if (kind, number) == ("drawn", "steps") for c in rows]
    prompts = {r.id: r.prompt_ids for r in engine.requests[-1]}
    assert record["rollouts"] == len(drawn) > 0
    for g in credited:
        for s in (s for s in g.samples if len(s.token_ids) == 4):
            assert s.advantages is not None
            state = next(name for name, ids in prompts.items() if ids == g.prompt_ids + s.token_ids[:2])
            rest = [tokenizer.decode(c.token_ids[:-1]) for c in drawn if c.request == state]
            score = 1 / (1 + math.exp(-float(tokenizer.decode(s.token_ids[:1])) / 9))
            value = sum(score - (text != "7") for text in rest) / 50
            assert s.advantages[-1] == pytest.approx(s.reward - value, abs=0.021), "or one of fifty has another form"


@pytest.mark.parametrize(
    "options",
    [
        (), ("training.rl.updates=2", "training.adapter=full", "training.rl.kl=to_go"),
        ("training.rl.penalties=[overlong, repetition, garbage]", "training.rl.oversampling=2.0", "training.rl.min_p=0.05",
         "training.rl.loss=sequence_sum", "sampling.temperature=1.2"),
    ],
    ids=["plain", "updates", "options"],
)  # fmt: skip
def test_reward_rises(copier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]) -> None:
    recipe = write_digits_recipe(tmp_path / "digits.yaml", copier, *STEPS, "training.rl.steps=30", *options)
    history, result = run(recipe, tmp_path, monkeypatch)
    assert result.exit_code == 0, (result.output, result.exception)
    assert history[0]["reward"] < 0.6  # by chance it is 1/3
    assert sum(h["reward"] for h in history[-5:]) / 5 > 0.9
    assert "digits         greedy       100.0%" in result.output
    worked = [h for h in history if h["rollouts"]]
    assert worked and all(h["rollout_tokens"] >= h["rollouts"] == 4 * h["rollout_states"] for h in worked)
    assert all(0 < h["steps_nonzero"] <= 1 for h in worked)
    assert all(h["rollouts"] == 0 for h in history if h["zero_groups"] == h["groups"])
    (manifest,) = (json.loads(p.read_text()) for p in tmp_path.glob("home/store/train/*/manifest.json"))
    assert manifest["metrics"]["rollout_tokens"] == sum(h["rollout_tokens"] for h in history)
    assert manifest["timing"]["rollouts_seconds"] > 0


def test_a_training_that_fails_between_rollouts_goes_on_where_it_was(
    copier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lights go out after one batch of rollouts in step 3. What was drawn since the checkpoint is not drawn again, and
    all artefacts are those of a calm run."""
    options = ("training.rl.steps=5", "training.checkpoint_every=2", "sampling.batch_size=16", "training.learning_rate=0.0005")
    recipe = write_digits_recipe(tmp_path / "digits.yaml", copier, *STEPS, *options)
    assert run(recipe, tmp_path / "calm", monkeypatch)[1].exit_code == 0
    generate, drawn, rounds, failed = TransformersEngine.generate, [], [], []

    def unsteady(self: Any, requests: list[Request], done: Any = ()) -> Iterator[Any]:
        rollouts = any(r.max_tokens == 4 for r in requests)
        rounds.extend([1] * rollouts)
        for number, group in enumerate(generate(self, requests, done)):
            if rollouts and number == 1 and len(rounds) == 3 and not failed:
                failed.append(len(requests))
                raise OSError("the lights went out")
            drawn.extend(c.seed for c in group if c.seed)
            yield group

    monkeypatch.setattr(TransformersEngine, "generate", unsteady)
    assert run(recipe, tmp_path / "torn", monkeypatch)[1].exit_code != 0 and failed
    _, result = run(recipe, tmp_path / "torn", monkeypatch)
    assert result.exit_code == 0, result.output
    assert len(drawn) == len(set(drawn))
    assert_same(contents(tmp_path / "calm" / "home"), contents(tmp_path / "torn" / "home"))


@pytest.mark.slow
def test_a_training_killed_between_rollouts_ends_with_the_same_weights(copier: Path, tmp_path: Path) -> None:
    recipe = write_digits_recipe(
        tmp_path / "digits.yaml", copier, *STEPS, "training.rl.steps=24", "training.checkpoint_every=5",
        "training.learning_rate=0.0002", "sampling.batch_size=16",
    )  # fmt: skip
    assert_kills_change_nothing(recipe, tmp_path, _rolling_out, (1, 8, 16))


def _rolling_out(home: Path, step: int) -> bool:
    """Whether a step from this one on has journalled a rollout."""
    journals = (p for p in home.glob("store/train/*/work/rollouts-*.jsonl") if int(p.stem.split("-")[1]) >= step)
    return any('["drawn","steps"' in p.read_text() for p in journals)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["training.method=remax"], "not with `remax`'s greedy solution"),
        (["training.method=rloo"], "set `method: reinforce` instead of `rloo`"),
        (["training.method=grpo", "training.rl.std=false"], "set `method: reinforce` instead of `grpo`"),
        (["training.method=sft"], "set `method: reinforce` instead of `sft`"),
        (["training.rl.baseline=batch"], "set `baseline: none`"),
        (["sampling.n=1"], "`training.rl.step_rollouts` compares the samples of a problem: set `sampling.n` to 2 or more"),
        (["training.rl.step_rollouts=-1"], "training.rl.step_rollouts"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(copier: Path, tmp_path: Path, options: list[str], message: str) -> None:
    recipe = write_digits_recipe(tmp_path / "digits.yaml", copier, *STEPS)
    with pytest.raises(ConfigError, match=message):
        load_recipe(str(recipe), options)
