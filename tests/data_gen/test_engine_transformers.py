"""The transformers engine against plain forward passes of the same model."""

from __future__ import annotations

import collections
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from configs.errors import InputError
from data_gen.engine import Completion, Engine, EngineConfig, Request, open_engine
from data_gen.engine_transformers import TransformersEngine, batches

PROMPTS = [[5, 9, 30], [5, 9, 31, 40, 41], [5, 9, 32, 50, 51, 52, 53, 60], [70], [5, 9, 33, 34]]


def _config(model: Path, **settings: object) -> EngineConfig:
    return EngineConfig(
        kind="transformers", model=str(model), dtype="float32", max_model_len=128, gpu_memory=0.5,
        **{"batch_size": 16, **settings},  # type: ignore[arg-type]
    )


def _requests(seeds: int = 1, temperature: float = 0.0, top_p: float = 1.0, max_tokens: int = 12) -> list[Request]:
    return [
        Request(
            id=f"p{i}", prompt_ids=ids, seeds=[1000 * i + k for k in range(seeds)], temperature=temperature,
            top_p=top_p, max_tokens=max_tokens,
        )
        for i, ids in enumerate(PROMPTS)
    ]


def _draw(engine: Engine, requests: list[Request]) -> dict[tuple[str, int], Completion]:
    return {(c.request, c.index): c for group in engine.generate(requests) for c in group}


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> TransformersEngine:
    opened = open_engine(_config(tiny_model))
    assert isinstance(opened, TransformersEngine)
    return opened


def _logprobs(model: torch.nn.Module, prompt: list[int], completion: list[int]) -> list[float]:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + completion])).logits[0].double()
    table = torch.log_softmax(logits, -1)
    return [table[len(prompt) + i - 1, token].item() for i, token in enumerate(completion)]


def test_greedy_equals_a_plain_loop(engine: TransformersEngine, tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    drawn = _draw(engine, _requests())
    for i, prompt in enumerate(PROMPTS):
        ids = list(prompt)
        with torch.no_grad():
            while len(ids) - len(prompt) < 12:
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] == 1:
                    break
        assert drawn[f"p{i}", 0].token_ids == ids[len(prompt) :]


def test_logprobs_are_those_of_a_full_forward(engine: TransformersEngine, tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    for temperature, top_p in ((0.0, 1.0), (1.0, 1.0), (1.7, 0.8)):
        for (name, _), c in _draw(engine, _requests(3, temperature, top_p)).items():
            if c.seed % 1000 and temperature == 0.0:
                continue
            expected = _logprobs(model, PROMPTS[int(name[1:])], c.token_ids)
            assert c.logprobs == pytest.approx(expected, abs=2e-4)


def test_a_row_does_not_depend_on_its_company(engine: TransformersEngine) -> None:
    together = _draw(engine, _requests(4, 1.0))
    for request in _requests(4, 1.0):
        alone = _draw(engine, [request])
        for key, completion in alone.items():
            assert completion.token_ids == together[key].token_ids


def test_same_seed_same_tokens_other_seed_other_tokens(engine: TransformersEngine) -> None:
    first, again = _draw(engine, _requests(4, 1.0)), _draw(engine, _requests(4, 1.0))
    assert {k: c.token_ids for k, c in first.items()} == {k: c.token_ids for k, c in again.items()}
    assert len({tuple(first["p0", k].token_ids) for k in range(4)}) > 1


def test_sampled_frequencies_are_the_model_probabilities(tiny_model: Path) -> None:
    """Pearson's chi-square of 4000 first tokens against the exact distribution, at 1e-4."""
    temperature, count = 1.5, 4000
    engine = open_engine(_config(tiny_model, batch_size=count))
    request = Request(id="p", prompt_ids=[5, 9, 30], seeds=list(range(count)), temperature=temperature, top_p=1.0, max_tokens=1)
    seen = collections.Counter(c.token_ids[0] for group in engine.generate([request]) for c in group)
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 9, 30]])).logits[0, -1].double()
    expected = (torch.softmax(logits / temperature, -1) * count).tolist()
    common = [i for i, e in enumerate(expected) if e >= 5]
    rest = count - sum(expected[i] for i in common)
    statistic = sum((seen[i] - expected[i]) ** 2 / expected[i] for i in common)
    if rest > 1:
        statistic += (count - sum(seen[i] for i in common) - rest) ** 2 / rest
    freedom = len(common)
    assert statistic < freedom + 3.7 * math.sqrt(2 * freedom) + 10


def test_top_p_keeps_the_nucleus_only(engine: TransformersEngine, tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    top_p = 0.6
    for (name, _), c in _draw(engine, _requests(8, 1.0, top_p, max_tokens=6)).items():
        ids = list(PROMPTS[int(name[1:])])
        for token in c.token_ids:
            with torch.no_grad():
                p = torch.softmax(model(input_ids=torch.tensor([ids])).logits[0, -1].double(), -1)
            assert p[p > p[token]].sum() < top_p + 1e-5
            ids.append(token)


def test_length_and_stop(engine: TransformersEngine) -> None:
    drawn = _draw(engine, _requests(8, 1.0, max_tokens=5))
    assert {c.finish_reason for c in drawn.values()} == {"stop", "length"}
    for c in drawn.values():
        assert len(c.token_ids) <= 5 and len(c.logprobs) == len(c.token_ids)
        assert (c.finish_reason == "stop") == (c.token_ids[-1] == 1)
        assert 1 not in c.token_ids[:-1]


def test_stop_strings_end_a_row_and_are_cut_from_the_text(tiny_model: Path, engine: TransformersEngine) -> None:
    free = _draw(engine, _requests(4, 1.0))
    letter = next(c.text[2] for c in free.values() if len(c.text) > 4)
    stopping = open_engine(_config(tiny_model, stop=[letter]))
    for key, c in _draw(stopping, _requests(4, 1.0)).items():
        assert letter not in c.text
        assert free[key].text.startswith(c.text)
        if letter in free[key].text:
            assert c.finish_reason == "stop"


def test_resuming_draws_what_is_missing_and_the_same(tiny_model: Path) -> None:
    requests = _requests(4, 1.0)
    engine = open_engine(_config(tiny_model, batch_size=8))
    groups = list(engine.generate(requests))
    assert len(groups) > 1
    done = {c.request for c in groups[0]}
    assert list(engine.generate(requests, done)) == groups[1:]


def test_batches_hold_alike_requests_within_the_limit() -> None:
    requests = _requests(4, 1.0) + _requests(4, 0.5) + _requests(1, 0.0)
    groups = batches(requests, 8)
    assert sorted(r.id for g in groups for r in g) == sorted(r.id for r in requests)
    assert all(sum(len(r.seeds) for r in g) <= 8 for g in groups)
    assert all(len({r.temperature for r in g}) == 1 for g in groups)


def test_adapters_change_the_model_and_leave_no_trace(tiny_model: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    engine = open_engine(_config(tiny_model))
    before = list(engine.generate(_requests()))
    engine.set_adapter(tmp_path / "adapter")
    with_adapter = {(c.request, c.index): c for group in engine.generate(_requests()) for c in group}
    engine.set_adapter(None)
    assert list(engine.generate(_requests())) == before
    assert any(with_adapter[c.request, c.index].token_ids != c.token_ids for group in before for c in group)
    for i, prompt in enumerate(PROMPTS):
        c = with_adapter[f"p{i}", 0]
        assert c.logprobs == pytest.approx(_logprobs(adapted.eval(), prompt, c.token_ids), abs=2e-4)


def test_an_adapter_of_the_same_shape_takes_the_place_of_another(tiny_model: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file

    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    for name in ("a", "b", "broken"):
        get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config).save_pretrained(tmp_path / name)
    engine, other = open_engine(_config(tiny_model)), open_engine(_config(tiny_model))
    engine.set_adapter(tmp_path / "a")
    first = list(engine.generate(_requests()))
    engine.set_adapter(tmp_path / "b")
    other.set_adapter(tmp_path / "b")
    assert list(engine.generate(_requests())) == list(other.generate(_requests())) != first
    engine.set_adapter(tmp_path / "a")
    assert list(engine.generate(_requests())) == first
    file = tmp_path / "broken" / "adapter_model.safetensors"
    save_file({name: t for i, (name, t) in enumerate(load_file(file).items()) if i}, file, {"format": "pt"})
    with pytest.raises(InputError, match="not the adapter that its config describes"):
        engine.set_adapter(tmp_path / "broken")
