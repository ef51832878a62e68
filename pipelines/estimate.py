"""What a plan will cost: tokens, memory and time, before anything runs.

Token counts are upper bounds from the recipe, or the measured mean length where the store holds samples of the
same model. Rates are those measured on this machine's store for the same model and engine; where there are
none, rough figures by device, said to be guesses.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from configs.schema import ONLINE
from pipelines.hardware import cores, gpu, memory_bytes
from pipelines.models import weight_bytes
from pipelines.plan import Plan
from pipelines.stage import Stage
from pipelines.store import Store

_MB = 1e6
_EDIT_TOKENS = 48  # an edited step, roughly
_STEPS, _ROLLOUTS = 6, 4  # steps of a solution and states rolled out for each, roughly
# Tokens a second per billion parameters and core or GPU, when nothing has been measured yet.
_GUESS_CPU_GENERATE, _GUESS_CPU_TRAIN = 25.0, 25.0
_GUESS_GPU_GENERATE, _GUESS_GPU_TRAIN = 8000.0, 20000.0


def estimate(plan: Plan, store: Store) -> dict[str, Any]:
    """Stages with cached or not, units of work, tokens and seconds; and memory of the whole."""
    rates = _rates(plan, store)
    rows: dict[str, int] = {}
    stages = []
    for stage in plan.stages:
        artefact = store.artefact(stage.kind, stage.key)
        rows[stage.key] = artefact.manifest()["rows"] if artefact.done else _rows(stage, plan, rows)
        tokens, seconds = (0, 0.0) if artefact.done else _cost(stage, plan, rows, rates)
        stages.append({"label": stage.label, "kind": stage.kind, "key": stage.key, "cached": artefact.done,
                       "rows": rows[stage.key], "tokens": tokens, "seconds": round(seconds, 1)})
    device = gpu()
    need = _memory(plan)
    have = device[1] if device else memory_bytes()
    return {
        "recipe": plan.recipe.name, "model": plan.model.name, "engine": plan.recipe.sampling.engine,
        "dtype": plan.recipe.model.dtype, "device": device[0] if device else f"CPU, {cores()} cores",
        "stages": stages, "tokens": sum(s["tokens"] for s in stages),
        "seconds": round(sum(s["seconds"] for s in stages), 1), "rates": rates,
        "memory_bytes": need, "memory_available": have, "memory_fits": sum(need.values()) < have,
    }


def estimate_table(e: dict[str, Any]) -> list[str]:
    """Lines for the terminal."""
    lines = [f"{e['recipe']}: model {e['model']} ({e['dtype']}), engine {e['engine']}, {e['device']}", "",
             f"{'':7} {'stage':36} {'rows':>8} {'tokens':>10} {'time':>8}  key"]
    for s in e["stages"]:
        tokens, clock = (f"{s['tokens']:,}", _clock(s["seconds"])) if not s["cached"] else ("", "")
        rows = f"{s['rows']:,}" if s["rows"] else "?"
        lines.append(f"{'cached' if s['cached'] else '':7} {s['label']:36} {rows:>8} {tokens:>10} {clock:>8}  {s['key'][:12]}")
    lines += ["", f"to do: {e['tokens']:,} tokens, about {_clock(e['seconds'])}; rates in tokens/s: "
              + ", ".join(f"{k} {v['rate']:.0f} ({v['source']})" for k, v in e["rates"].items())]
    parts = ", ".join(f"{name} {size / _MB:,.0f} MB" for name, size in e["memory_bytes"].items())
    fits = "fits" if e["memory_fits"] else "MORE than"
    lines.append(f"memory: {parts}; {fits} {'in ' if e['memory_fits'] else ''}{e['memory_available'] / 1e9:.1f} GB")
    return lines


def _config(plan: Plan) -> dict[str, Any]:
    return json.loads((plan.model.path / "config.json").read_text())


def _parameters(plan: Plan) -> float:
    per = 2 if "16" in str(_config(plan).get("dtype") or _config(plan).get("torch_dtype")) else 4
    return weight_bytes(plan.model) / per


def _rates(plan: Plan, store: Store) -> dict[str, dict[str, Any]]:
    """Measured tokens a second (and mean length), or guesses."""
    billions = _parameters(plan) / 1e9
    guess = (_GUESS_GPU_GENERATE, _GUESS_GPU_TRAIN) if gpu() else tuple(
        cores() * x for x in (_GUESS_CPU_GENERATE, _GUESS_CPU_TRAIN)
    )
    wanted = {"model": plan.model.fingerprint, "engine": plan.recipe.sampling.engine, "dtype": plan.recipe.model.dtype}
    alike = {"max_tokens": plan.recipe.sampling.max_tokens, "prompt": plan.recipe.data.prompt.model_dump(mode="json")}
    tokens = seconds = lengths = samples = 0.0
    for m in store.manifests("sample"):
        if all(m["config"].get(k) == v for k, v in wanted.items()):
            tokens += m["timing"].get("generated_tokens", 0.0)
            seconds += m["timing"].get("generate_seconds", 0.0)
            if all(m["config"][k] == v for k, v in alike.items()):
                lengths += m["metrics"]["tokens"]
                samples += m["metrics"]["samples"]
    measured = tokens > 0 and seconds > 0
    generate = {"rate": tokens / seconds if measured else guess[0] / billions, "source": "measured" if measured else "guess",
                "mean_tokens": lengths / samples if samples else None}
    steps = [m for m in store.manifests("train") if m["config"]["model"] == plan.model.fingerprint]
    learned, spent = sum(m["metrics"]["tokens"] for m in steps), sum(m["timing"].get("train_seconds", 0.0) for m in steps)
    train = {"rate": learned / spent if spent else 0.3 * guess[1] / billions, "source": "measured" if spent else "guess"}
    return {"generate": generate, "train": train}


def _rows(stage: Stage, plan: Plan, rows: dict[str, int]) -> int:
    """Rows that a stage will have, at most."""
    if stage.kind == "problems":
        return stage.config.get("limit") or _problems(stage)
    known = rows[next(iter(stage.inputs.values())).key] if stage.inputs else 0
    if stage.kind == "sample":
        problems = rows[stage.inputs["problems"].key]
        return (min(stage.config["count"] or problems, problems)) * stage.config["n"]
    if stage.kind == "sweep":
        return _sweep_rows(stage, rows[stage.inputs["problems"].key])
    if stage.kind in ("balance", "exploration"):
        return 0
    if stage.kind == "select_balanced":
        return rows[stage.inputs["samples"].key]
    if stage.kind in ("verify", "confidence"):
        return rows[stage.inputs["samples"].key]
    if stage.kind == "select":
        samples = rows[stage.inputs["samples"].key]
        problems = samples // max(1, stage.inputs["samples"].config["n"])
        human = problems if stage.config["include_human"] else 0
        return min(samples, stage.config["max_per_problem"] * problems) + human
    if stage.kind == "train" and "problems" in stage.inputs:
        training, n = stage.config["training"], stage.config["sampling"]["n"]
        return training["rl"]["steps"] * training["batch_size"] * (n + (training["method"] == "remax"))
    if stage.kind == "edit":
        return rows[stage.inputs["samples"].key] // max(1, stage.inputs["samples"].config["n"]) * stage.config["attempts"]
    if stage.kind == "edit_rollouts":
        return rows[stage.inputs["edits"].key]
    if stage.kind in ("rollouts", "steps", "step_pairs"):
        states = 2 if stage.config["rollouts"]["allocation"] == "sequential" else _ROLLOUTS  # a search costs about 2 n
        each = {"rollouts": states * stage.config["rollouts"]["n"], "steps": _STEPS, "step_pairs": 1}
        return _valued(stage, rows) * each[stage.kind]
    if stage.kind == "pairs":
        sampled = rows[stage.inputs["samples"].key] // max(1, stage.inputs["samples"].config["n"])
        return sampled * {"both": 1 + stage.config["edits"], "full_only": 1}.get(stage.config["arm"], stage.config["edits"])
    if stage.kind in ("reference", "train"):
        return rows[stage.inputs["pairs" if "pairs" in stage.inputs else "examples"].key]
    return rows[stage.inputs["train"].key] if stage.kind == "decontaminate" else known


def _sweep_rows(stage: Stage, problems: int) -> int:
    """Of one round, for as many temperatures as the budget leaves when half of them go each time from the second on."""
    c = stage.config
    queries = min(c["queries"], problems)
    number, before = c["round"], c["rounds"][c["round"] - 1] if c["round"] else 0.0
    alive = max(1, len(c["temperatures"]) >> max(0, number - 1))
    return max(1, round((c["rounds"][number] - before) * queries)) * alive * c["n"]


def _valued(stage: Stage, rows: dict[str, int]) -> int:
    """Samples that are valued, at most."""
    samples, section = stage.inputs["samples"], stage.config["rollouts"]
    per_problem = min(samples.config["n"], section["negatives"] + section["positives"])
    return rows[samples.key] // max(1, samples.config["n"]) * per_problem


def _problems(stage: Stage) -> int:
    """Size of a whole source: known for the benchmarks, lines for a file of one's own."""
    if stage.config["source"] == "jsonl":
        path = Path(stage.paths["path"])
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            return sum(1 for line in lines if line.strip())
    return {"gsm8k": 1319 if stage.config["split"] == "test" else 7473, "math": 7498, "math500": 500}[stage.config["source"]]


def _cost(stage: Stage, plan: Plan, rows: dict[str, int], rates: dict[str, dict[str, Any]]) -> tuple[int, float]:
    """Completion tokens (upper bound where nothing is measured) and seconds."""
    if stage.kind in ("sample", "sweep"):
        mean = rates["generate"]["mean_tokens"] or stage.config["max_tokens"]
        tokens = int(rows[stage.key] * min(mean, stage.config["max_tokens"]))
        return tokens, tokens / rates["generate"]["rate"]
    if stage.kind == "rollouts":  # on average half of a solution is left
        mean = rates["generate"]["mean_tokens"] or stage.config["max_tokens"]
        tokens = int(rows[stage.key] * min(mean, stage.config["max_tokens"]) / 2)
        return tokens, tokens / rates["generate"]["rate"]
    if stage.kind in ("edit", "edit_rollouts"):
        each = stage.config["max_tokens"] * 2 * stage.config["rollouts"] if stage.kind == "edit_rollouts" else _EDIT_TOKENS
        tokens = rows[stage.key] * each if stage.config.get("editor") != "programmatic" else 0
        return tokens, tokens / rates["generate"]["rate"]
    if stage.kind in ("reward_train", "reward_score"):
        mean = rates["generate"]["mean_tokens"] or plan.recipe.sampling.max_tokens
        passes = 1 / 3  # a forward pass
        if stage.kind == "reward_train":
            passes = stage.config["training"]["epochs"] * plan.recipe.reward_model.samples
        tokens = int(rows[stage.key] * passes * mean)
        return tokens, tokens / rates["train"]["rate"]
    if stage.kind in ("train", "reference"):
        mean = rates["generate"]["mean_tokens"] or plan.recipe.sampling.max_tokens
        if "problems" in stage.inputs:  # every sample is drawn and, at most, learned from
            tokens = int(rows[stage.key] * mean)
            return tokens, tokens / rates["generate"]["rate"] + tokens / rates["train"]["rate"]
        # a reference pass is a forward pass: a third of a training pass
        passes = plan.recipe.training.epochs if stage.kind == "train" else 1 / 3
        sequences = rows[stage.key] * passes
        if stage.kind == "train" and plan.recipe.training.steps:
            sequences = plan.recipe.training.steps * plan.recipe.training.batch_size
        tokens = int(sequences * mean)
        return tokens, tokens / rates["train"]["rate"]
    return 0, 0.1


def _memory(plan: Plan) -> dict[str, float]:
    """Bytes: weights, KV cache of one decoding batch, and what training adds, for the engine beside the trainer."""
    config, recipe = _config(plan), plan.recipe
    parameters, width = _parameters(plan), 2 if recipe.model.dtype == "bfloat16" else 4
    heads = config.get("num_key_value_heads") or config.get("num_attention_heads") or 1
    size = config.get("head_dim") or config["hidden_size"] // config.get("num_attention_heads", 1)
    layers, hidden, vocabulary = config["num_hidden_layers"], config["hidden_size"], config["vocab_size"]
    cache = 2 * layers * heads * size * width * recipe.sampling.batch_size * (256 + recipe.sampling.max_tokens)
    training = recipe.training
    trainable = parameters if training.adapter == "full" else layers * 14 * hidden * training.lora.r
    # 4-bit projections with their scales, the embeddings as they are
    trainer = {"full": 4.0, "qlora": 0.53 + width * vocabulary * hidden / parameters}.get(training.adapter, width)
    saved = hidden * layers * (width if training.gradient_checkpointing else 34 * width / 2)
    logits = min(training.micro_batch_tokens * vocabulary * 4, 512 << 20)
    shaping = training.method in ONLINE and recipe.reward_model.kind != "none"  # it stays beside the trainer
    return {
        "sampler weights": parameters * width * recipe.executor.workers,
        "KV cache": float(cache * recipe.executor.workers),
        "trainer weights": parameters * trainer,
        **({"reward model": parameters * trainer} if shaping else {}),
        "gradients and optimizer": trainable * (12 if training.adapter == "full" else 14),
        "activations": float(training.micro_batch_tokens * saved + logits),
    }


def _clock(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
