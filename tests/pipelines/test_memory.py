"""What a training holds, against what autograd keeps of models with the published widths.

The counting runs the real forward pass of transformers and PEFT on tensors without storage (torch's fake tensors), so
that a 7B model's layers cost nothing.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.memory import HALF, Case, expected, make_weights, run_child
from configs.load import load_recipe
from configs.phases import phases_of
from configs.schema import TrainingSection
from pipelines import memory
from pipelines.estimate import Device, estimate
from pipelines.models import model_for_plan
from pipelines.plan import build, resolve
from pipelines.shape import Shape, published_config, published_shape, shape_of_folder
from pipelines.store import Store
from tests.test_docs import after_papers
from trainers import head, policy, recomputation
from trainers.loop import open_policy

LLAMA, QWEN, MISTRAL = "meta-llama/Llama-2-7b-hf", "Qwen/Qwen2.5-7B-Instruct", "mistralai/Mistral-7B-v0.1"
TOKENS, WIDTH = 1024, 512


def shape_of(name: str) -> Shape:
    shape = published_shape(name)
    assert shape is not None
    return shape


def setting(adapter: str, dtype: str, **more: Any) -> memory.Setting:
    section = TrainingSection.model_validate({"adapter": adapter, "micro_batch_tokens": TOKENS, **more})
    return memory.setting(section, dtype, False, TOKENS)


@functools.cache
def saved_bytes(name: str, layers: int, adapter: str, dtype: str) -> int:
    """Bytes that autograd keeps of a forward pass through the first layers of a model, weights aside."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = published_config(name)
    assert config is not None
    config["num_hidden_layers"] = layers
    kind, full, low = config.pop("model_type"), adapter == "full", getattr(torch, dtype)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(kind, **config), dtype=torch.float32 if full else low, attn_implementation="sdpa"
        )
    if not full:
        lora = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, lora, autocast_adapter_dtype=False, low_cpu_mem_usage=True).get_base_model()
    backbone = model.base_model.train()
    kept: dict[int, tuple[int, torch.Tensor]] = {}
    with FakeTensorMode():
        weights = {
            n: torch.empty(p.shape, dtype=torch.float32 if full else low, requires_grad=p.requires_grad)
            for n, p in backbone.named_parameters()
        }
        weights |= {n: torch.empty(b.shape, dtype=b.dtype) for n, b in backbone.named_buffers()}
        own = {w.untyped_storage()._cdata for w in weights.values()}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = (storage.nbytes(), tensor)  # the tensor: or its number could be given anew
            return tensor

        rows = TOKENS // WIDTH
        inputs = {
            "input_ids": torch.zeros(rows, WIDTH, dtype=torch.long), "use_cache": False,
            "position_ids": torch.arange(WIDTH).repeat(rows, 1),
            "attention_mask": torch.ones(rows, 1, WIDTH, WIDTH, dtype=torch.bool),
        }
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=full and dtype == "bfloat16", cache_enabled=False)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), autocast:
            torch.func.functional_call(backbone, weights, kwargs=inputs)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("adapter", ["lora", "full"])
@pytest.mark.parametrize("name", [LLAMA, QWEN, MISTRAL])
def test_what_autograd_keeps_of_a_layer_is_foretold_to_the_byte(name: str, adapter: str, dtype: str) -> None:
    shape, s = shape_of(name), setting(adapter, dtype)
    counted = saved_bytes(name, 2, adapter, dtype) - saved_bytes(name, 1, adapter, dtype)
    copies = 2 * shape.linear / shape.layers if adapter == "full" and dtype == "bfloat16" else 0
    assert memory.saved_by_layer(shape, s) * TOKENS + copies == counted


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_what_autograd_keeps_of_an_mlp_is_foretold_to_the_byte(tmp_path: Path, adapter: str, dtype: str) -> None:
    config = LlamaConfig(vocab_size=99, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    section = TrainingSection.model_validate({"adapter": adapter, "attention": "sdpa"})
    layer = open_policy(section, tmp_path, dtype, None, 0).model.get_decoder().layers[0]
    own = {p.data_ptr() for p in layer.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    h = torch.randn(2, 25, 64, dtype=torch.float32 if adapter == "full" else getattr(torch, dtype), requires_grad=True)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=adapter == "full" and dtype == "bfloat16", cache_enabled=False)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), autocast:
        _ = h + layer.mlp(layer.post_attention_layernorm(h))
    copies = 2 * 3 * 64 * 160 if adapter == "full" and dtype == "bfloat16" else 0
    counted = sum(size for size, _ in kept.values()) - copies
    assert counted == 50 * memory.saved_by_mlp(shape_of_folder(tmp_path), setting(adapter, dtype))


def test_attention_kinds_keep_what_their_kernels_need() -> None:
    """Grouped heads are repeated for a dense mask only, and only it has a mask to keep."""
    shape = shape_of(QWEN)
    dense = memory.saved_by_layer(shape, setting("lora", "bfloat16"))
    flex = memory.saved_by_layer(shape, setting("lora", "bfloat16", attention="flex"))
    assert dense - flex == 2 * 2 * (28 - 4) * 128 + 2 * WIDTH


def test_the_constants_are_those_of_the_trainers() -> None:
    assert (memory.TILE_BYTES, memory.FROZEN_BYTES) == (head.TILE_BYTES, head.FROZEN_BYTES)
    assert memory.ROW_TOKENS == policy.ROW_TOKENS
    assert memory.MLP_BYTES == recomputation.TILE_BYTES


def test_weights_are_those_of_their_precision() -> None:
    shape = shape_of(LLAMA)
    sizes = {a: memory.base_weights(shape, setting(a, "bfloat16")) for a in ("lora", "qlora", "full")}
    assert sizes["lora"] == 2 * 6738415616
    assert sizes["full"] == 4 * 6738415616
    assert sizes["qlora"] == pytest.approx(3.34e9 + 0.52e9, rel=0.01), "NF4 projections, embeddings in bfloat16"


def test_quantised_weights_take_what_is_foretold(tmp_path: Path) -> None:
    """Double-quantised NF4 of one projection, packed by bitsandbytes."""
    functional = pytest.importorskip("bitsandbytes.functional")
    packed, state = functional.quantize_4bit(
        torch.randn(4096, 4096), blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    scales = [state.absmax, state.state2.absmax]
    size = packed.numel() * packed.element_size() + sum(t.numel() * t.element_size() for t in scales)
    assert size == pytest.approx(memory.NF4 * 4096 * 4096, rel=1e-3)


def test_the_state_of_an_optimiser_is_what_it_holds() -> None:
    from trainers.optimizer import Optimizer

    section = TrainingSection(adapter="lora")
    weight = torch.nn.Parameter(torch.zeros(64, 32, dtype=torch.bfloat16))
    optimizer = Optimizer({"w": weight}, section)
    weight.sum().backward()
    master = optimizer.masters["w"]
    assert master.grad is not None and weight.grad is None
    gradient = master.grad.numel() * master.grad.element_size()
    optimizer.step(0.1)
    moments = sum(t.numel() * t.element_size() for t in optimizer.rule.state[master].values() if t.numel() > 1)
    n, shape = weight.numel(), shape_of(LLAMA)
    s = setting("lora", "bfloat16")
    per = {k: v / memory.trained_parameters(shape, s) for k, v in memory.training_state(shape, s).items()}
    copy = weight.element_size() + master.element_size()
    assert per == {"adapter and its float32 copy": copy, "gradients": gradient / n, "moments": moments / n}


@pytest.mark.parametrize("adapter", ["lora", "qlora", "full"])
@pytest.mark.parametrize("method", ["sft", "dpo", "remax"])
def test_memory_grows_with_tokens_and_falls_with_checkpointing(adapter: str, method: str) -> None:
    shape, more = shape_of(QWEN), {"method": method}

    def total(tokens: int, **settings: Any) -> float:
        section = TrainingSection.model_validate({"adapter": adapter, "micro_batch_tokens": tokens, **more, **settings})
        return sum(memory.training(shape, memory.setting(section, "bfloat16", True, tokens)).values())

    assert total(1024) < total(2048) < total(4096)
    assert total(4096, gradient_checkpointing=True) < total(4096)
    assert total(1024, optimizer="paged_adamw_8bit") < total(1024)


def test_sampler_and_trainer_take_turns() -> None:
    shape, s = shape_of(QWEN), setting("lora", "bfloat16", method="remax", gradient_checkpointing=True)
    engine = memory.Engine(
        kind="vllm", dtype="bfloat16", rank=16, rows=256, max_tokens=1024, max_model_len=2048, share=0.4, gpu=80 * 10**9
    )
    asleep, split = (memory.online(shape, s, engine, asleep=x) for x in (True, False))
    assert sum(asleep.values()) < sum(split.values())
    assert asleep["sampler weights"] + asleep["KV cache"] == pytest.approx(0.4 * 80e9)
    assert "gradients" not in asleep, "none are left while samples are drawn"
    too_small = memory.sampling(shape, engine.__class__(**{**memory.msgspec.structs.asdict(engine), "share": 0.1}))
    assert sum(too_small.values()) > 80e9, "a share that does not hold the weights asks for a larger GPU"


@pytest.mark.gpu
@pytest.mark.parametrize(
    "case",
    [
        Case(HALF, tokens=4096), Case(HALF, "dpo", checkpointing=True, tokens=8192),
        Case(HALF, adapter="full", checkpointing=True, tokens=4096), Case(HALF, "remax", "qlora", tokens=4096),
    ],
    ids=lambda c: c.label,
)  # fmt: skip
def test_a_gpu_needs_what_the_plan_says(case: Case, tmp_path: Path) -> None:
    """The larger cases: python -m benchmarks.memory."""
    make_weights(case.shape, tmp_path)
    measured = run_child(case, str(tmp_path), 600)
    assert "failed" not in measured, measured
    assert sum(expected(case, True).values()) == pytest.approx(measured["peak_bytes"], rel=0.15)


@pytest.mark.parametrize("name", after_papers())
def test_recipes_after_papers_fit_the_gpu_they_name(name: str, tmp_path: Path) -> None:
    small = name.endswith("_lora") or "1_5b" in name
    size = 80 if small else 141
    recipe = resolve(load_recipe(name), True)
    model, shape = model_for_plan(recipe.model)
    device = Device(f"{size} GB", size * 10**9, True)
    found = estimate(build(recipe, model), Store(tmp_path), shape, device)
    assert found["memory_fits"], found["memory"]
    if not small:
        fitted = Device("80 GB", 80 * 10**9, True)
        assert not estimate(build(recipe, model), Store(tmp_path), shape, fitted)["memory_fits"], "all weights need more"
    assert phases_of(recipe)
