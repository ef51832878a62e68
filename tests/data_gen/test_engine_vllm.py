"""vLLM against the transformers engine on the real model: one engine for all tests, since it takes long to start."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from configs.schema import PromptSection
from data_gen.engine import Completion, Engine, EngineConfig, Request, open_engine
from data_gen.procedural import generate
from data_gen.prompts import PromptEncoder
from pipelines.engines import close_engine, engine_for
from pipelines.models import ResolvedModel

pytestmark = pytest.mark.vllm


def _config(kind: str, model: ResolvedModel) -> EngineConfig:
    return EngineConfig(
        kind=kind, model=str(model.path), dtype="float32", batch_size=32, max_model_len=512, gpu_memory=0.5, max_lora_rank=8
    )


@pytest.fixture(scope="module")
def vllm(bundled: ResolvedModel) -> Iterator[Engine]:
    engine = open_engine(_config("vllm", bundled))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def plain(bundled: ResolvedModel) -> Engine:
    return open_engine(_config("transformers", bundled))


@pytest.fixture(scope="module")
def adapter(bundled: ResolvedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random adapter that visibly changes the model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(bundled.path),
        LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


def _requests(model: ResolvedModel, count: int, n: int, temperature: float, max_tokens: int = 24) -> list[Request]:
    encoder = PromptEncoder(model.path, PromptSection())
    return [
        Request(
            id=p.id, prompt_ids=encoder.encode(p.question), seeds=[100 * i + k for k in range(n)],
            temperature=temperature, top_p=1.0, max_tokens=max_tokens,
        )
        for i, p in enumerate(generate(count, "train", 3))
    ]


def _draw(engine: Engine, requests: list[Request]) -> dict[tuple[str, int], Completion]:
    return {(c.request, c.index): c for group in engine.generate(requests) for c in group}


def _agreement(a: dict[tuple[str, int], Completion], b: dict[tuple[str, int], Completion]) -> float:
    assert a.keys() == b.keys()
    return statistics.mean(a[k].token_ids == b[k].token_ids for k in a)


def test_greedy_tokens_and_logprobs_equal_the_plain_engine(vllm: Engine, plain: Engine, bundled: ResolvedModel) -> None:
    requests = _requests(bundled, 12, 1, 0.0)
    ours, theirs = _draw(plain, requests), _draw(vllm, requests)
    assert _agreement(ours, theirs) >= 0.9  # float32 sums in another order may flip a tie
    for key, completion in ours.items():
        if theirs[key].token_ids == completion.token_ids:
            assert theirs[key].logprobs == pytest.approx(completion.logprobs, abs=2e-3)
            assert theirs[key].text == completion.text and theirs[key].finish_reason == completion.finish_reason


def test_adapters_are_served_and_taken_away(vllm: Engine, plain: Engine, bundled: ResolvedModel, adapter: Path) -> None:
    """First-token log-probabilities tell which weights were used: the adapter moves them, and by how much is known."""
    requests = _requests(bundled, 6, 1, 0.0, max_tokens=12)
    base = _draw(vllm, requests)
    for engine in (vllm, plain):
        engine.set_adapter(adapter)
    adapted, expected = _draw(vllm, requests), _draw(plain, requests)
    assert _agreement(adapted, expected) >= 0.8
    for key, completion in adapted.items():
        assert completion.logprobs[0] == pytest.approx(expected[key].logprobs[0], abs=2e-3)
        assert abs(completion.logprobs[0] - base[key].logprobs[0]) > 1e-2
    for engine in (vllm, plain):
        engine.set_adapter(None)
    again = _draw(vllm, requests)
    for key, completion in again.items():
        assert completion.logprobs[0] == pytest.approx(base[key].logprobs[0], abs=1e-4)


def test_many_seeded_samples_of_long_prompts(vllm: Engine, bundled: ResolvedModel) -> None:
    """More prompt tokens than one step holds, each with its own seed: what broke the CPU build with split prompts."""
    requests = [
        Request(id=f"r{i}", prompt_ids=(list(range(100 + i, 400 + i))), seeds=[7 * i + k for k in range(3)],
                temperature=0.8, top_p=0.9, max_tokens=6)
        for i in range(30)
    ]
    drawn = _draw(vllm, requests)
    assert len(drawn) == 90
    assert len({tuple(c.token_ids) for c in drawn.values()}) > 30


def test_done_requests_are_not_drawn_again(vllm: Engine, bundled: ResolvedModel) -> None:
    requests = _requests(bundled, 3, 2, 1.0, max_tokens=4)
    groups = list(vllm.generate(requests, {requests[0].id}))
    assert sorted(c.request for g in groups for c in g) == sorted([requests[1].id, requests[2].id] * 2)


def test_weights_of_another_folder_replace_the_loaded_ones(bundled: ResolvedModel, tmp_path: Path) -> None:
    """The next completions are those of an engine opened on the other folder, and the way back leads to the first ones."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(bundled.path, dtype=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1 + 0.2 * torch.randn_like(p))
    other = tmp_path / "other"
    model.save_pretrained(other)
    AutoTokenizer.from_pretrained(bundled.path).save_pretrained(other)
    del model
    requests = _requests(bundled, 6, 1, 0.0)
    config = msgspec.structs.replace(_config("vllm", bundled), max_lora_rank=0)
    try:
        first = _draw(engine_for(config, 2), requests)
        there = engine_for(config, 2)
        second = _draw(engine_for(msgspec.structs.replace(config, model=str(other)), 2), requests)
        assert engine_for(msgspec.structs.replace(config, model=str(other)), 2) is there, "the engine was started again"
        again = _draw(engine_for(config, 2), requests)
    finally:
        close_engine()
    plain = open_engine(msgspec.structs.replace(config, kind="transformers", model=str(other)))
    assert _agreement(second, _draw(plain, requests)) > 0.8
    assert _agreement(first, again) == 1.0
    assert _agreement(first, second) < 0.5
