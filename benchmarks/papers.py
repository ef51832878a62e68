"""The recipes after papers on random weights of their models' shapes: training steps of each phase, and sampling.

    python -m benchmarks.papers                                        a GPU of 80 GB: every recipe's variant with an adapter
    python -m benchmarks.papers --recipes remax_llama2_7b_lora --only sampling                       some of them
    python -m benchmarks.papers --model HuggingFaceTB/SmolLM2-135M-Instruct --engine transformers    a check, on a CPU

Each phase trains some steps with its own section of the recipe (method, adapter, optimiser, tokens of a forward pass), on
random tokens; sampling starts the recipe's engine on the same weights and draws. Random weights find no right answers, so what
pairs or rewards would be made of is given: memory and speed do not depend on it. A row's `ours` is what the plan
expects in bytes, its `peer` the measured peak. A sampler's "peak" is what torch has reserved for its engine: vLLM fills
its share. Reward models are measured by `benchmarks.reward_model`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.memory import COMPLETION, PACKAGES, PROMPT, STEPS, begin, measured, token_ids, train_steps, weights_in_a_process
from benchmarks.record import accelerator, write_results
from configs.load import load_recipe
from configs.phases import phases_of
from configs.schema import Recipe, TrainingSection
from pipelines import memory
from pipelines.plan import resolve
from pipelines.shape import published_shape

RECIPES = (
    "rise_qwen2_7b_lora", "per_step_dpo_deepseekmath_7b_lora", "remax_llama2_7b_lora", "remax_qwen2_5_7b_lora",
    "bstar_mistral_7b_lora", "bstar_llama3_1_8b_lora", "qwen2_5_math_7b_lora",
)  # fmt: skip
SAMPLE = "sampling"
PROBLEMS, TOKENS = 32, 256  # of one step of sampling


def phases(name: str, overrides: list[str]) -> Iterator[tuple[str, Recipe]]:
    """Phases that train the model itself, by name; a recipe without phases is called `training`."""
    recipe = resolve(load_recipe(name, overrides), gpu_elsewhere=True)
    for phase, settled in phases_of(recipe):
        if settled.training.method != "reward_model":
            yield phase or "training", settled


def short(training: TrainingSection, tokens: int | None) -> TrainingSection:
    """The same for a few steps of two micro-batches each."""
    data = training.model_dump() | {"epochs": 1, "checkpoint_every": 1000, "warmup_ratio": 0.0, "schedule": "constant"}
    data["micro_batch_tokens"] = tokens or training.micro_batch_tokens
    data["batch_size"] = 2 * data["micro_batch_tokens"] // (PROMPT + COMPLETION)
    data["rl"] |= {"steps": STEPS, "updates": 1}
    if training.method == "sft":
        data["steps"] = STEPS
    return TrainingSection.model_validate(data)


def child(name: str, phase: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What one process measures: a phase's training steps, or sampling."""
    import torch

    found = dict(phases(name, options.set))
    if phase == SAMPLE:
        return draw(next(iter(found.values())), folder, options.engine)
    recipe = found[phase]
    settings = short(recipe.training, options.tokens)
    measure, start = begin(), time.perf_counter()
    train_steps(settings, recipe.model.dtype, folder, measure)
    shape = published_shape(options.model or recipe.model.name)
    assert shape is not None
    setting = memory.setting(settings, recipe.model.dtype, torch.cuda.is_available(), settings.micro_batch_tokens)
    return {
        **measure.result(), "expected_bytes": sum(memory.training(shape, setting).values()),
        "seconds": time.perf_counter() - start, "method": settings.method, "tokens": settings.micro_batch_tokens,
    }  # fmt: skip


def draw(recipe: Recipe, folder: Path, kind: str) -> dict[str, Any]:
    """Samples at the recipe's settings, up to TOKENS tokens each."""
    import torch

    from data_gen.engine import EngineConfig, Request, open_engine

    s = recipe.sampling
    start = time.perf_counter()
    engine = open_engine(EngineConfig(
        kind=kind, model=str(folder), dtype=recipe.model.dtype, batch_size=s.batch_size, max_model_len=s.max_model_len,
        gpu_memory=s.gpu_memory, gpu_shared=True,
        max_lora_rank=recipe.training.lora.r if recipe.training.adapter != "full" else 0,
    ))  # fmt: skip
    begun = time.perf_counter()
    requests = [
        Request(id=str(i), prompt_ids=token_ids(PROMPT, i), seeds=[97 * i + k for k in range(s.n)], max_tokens=TOKENS,
                temperature=s.temperature, top_p=s.top_p)
        for i in range(PROBLEMS)
    ]  # fmt: skip
    drawn = [c for group in engine.generate(requests) for c in group]
    seconds = time.perf_counter() - begun
    gpu = torch.cuda.is_available()
    taken = torch.cuda.max_memory_reserved() if gpu else 0  # the engine runs in this process
    total = torch.cuda.get_device_properties(0).total_memory if gpu else 0
    engine.close()
    tokens = sum(len(c.token_ids) for c in drawn)
    return {
        "peak_bytes": taken, "expected_bytes": s.gpu_memory * total if taken else 0, "samples": len(drawn),
        "tokens_per_second": tokens / seconds, "start_seconds": begun - start,
    }  # fmt: skip


def run(options: argparse.Namespace) -> None:
    found: dict[str, dict[str, Any]] = {}
    last = None
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for name in options.recipes:
            every = (*(phase for phase, _ in phases(name, options.set)), SAMPLE)
            wanted = [phase for phase in every if re.search(options.only, f"{name}, {phase}")]
            if not wanted:
                continue
            model = options.model or load_recipe(name, []).model.name
            weights = Path(scratch) / "weights"
            if model != last:  # recipes of one shape share them
                shutil.rmtree(weights, ignore_errors=True)
                weights_in_a_process(model, str(weights))
                last = model
            for phase in wanted:
                label = f"{name}, {phase}"
                found[label] = in_a_process([name, phase, str(weights)], options)
                print(f"{label:60} {json.dumps(found[label])}", flush=True)
                out = options.out or Path(__file__).parent / "results" / "papers.json"
                write_results(out, "papers", rows_of(found), (*PACKAGES, "vllm"), accelerator(), cases=found)


def in_a_process(case: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """A case's figures, or `failed` with the reason."""
    words = ["benchmarks.papers", "--case", *case, "--engine", options.engine]
    words += [w for name in ("model", "tokens") if (value := getattr(options, name)) for w in (f"--{name}", str(value))]
    words += ["--set", *options.set] if options.set else []
    return measured(words, options.limit)


def rows_of(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for label, case in found.items():
        if "failed" in case:
            rows.append({"what": label, "ours": None, "peer": None, "peer_name": None, "ratio": None, "unit": "",
                         "note": f"failed: {case['failed']}"})  # fmt: skip
            continue
        peak, expected = case["peak_bytes"] or None, case["expected_bytes"] or None
        told = (
            f"{case['tokens_per_second']:,.0f} tokens/s of {case['samples']} samples, engine started in "
            f"{case['start_seconds']:.0f} s" if "samples" in case
            else f"{case['method']}, {case['tokens']} tokens a forward pass, {STEPS} steps"
        )
        rows.append({
            "what": f"{label}: expected beside measured", "ours": expected, "peer": peak, "peer_name": "measured",
            "ratio": expected / peak if expected and peak else None, "unit": "bytes", "note": told,
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--model", help="a published shape (configs/shapes.yaml) in place of each recipe's")
    parser.add_argument("--engine", default="vllm", choices=["vllm", "transformers"])
    parser.add_argument("--tokens", type=int, help="of one forward pass, in place of each recipe's")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of all recipes")
    parser.add_argument("--only", default="", help="a regular expression over `RECIPE, PHASE`")
    parser.add_argument("--limit", type=int, default=400, help="seconds a case may take")
    parser.add_argument("--scratch", type=Path, help="folder for random weights (16 GB)")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", nargs=3, metavar=("RECIPE", "PHASE", "WEIGHTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.model and published_shape(options.model) is None:
        parser.error(f"--model: configs/shapes.yaml has no {options.model}")
    if options.case:
        print(json.dumps(child(options.case[0], options.case[1], Path(options.case[2]), options)))
    else:
        run(options)


if __name__ == "__main__":
    main()
