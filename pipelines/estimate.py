"""What a plan will cost: tokens, memory and time, before anything runs.

Token counts are upper bounds from the recipe, or the measured mean length where the store holds samples of the
same model. Rates are those that the store holds of the same model and engine on such a device; where there are none,
rough figures by device, said to be guesses. Memory is that of the largest stage (`pipelines.memory`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from configs.schema import ONLINE, TrainingSection
from data_gen.fields import opened
from pipelines import memory
from pipelines.hardware import cores, device_name, gpu, memory_bytes
from pipelines.plan import Plan
from pipelines.shape import Shape
from pipelines.stage import Stage
from pipelines.store import Store

_EDIT_TOKENS = 48  # an edited step, roughly
_STEPS, _ROLLOUTS = 6, 4  # steps of a solution and states rolled out for each, roughly
# Tokens a second per billion parameters and core or GPU, when nothing has been measured yet. On a GPU: a third of an H100's
# arithmetic for training (6 operations a parameter), and some hundred sequences decoded at the speed of its memory.
_GUESS_CPU_GENERATE, _GUESS_CPU_TRAIN = 25.0, 7.5
_GUESS_GPU_GENERATE, _GUESS_GPU_TRAIN = {"vllm": 60_000.0, "transformers": 8_000.0}, 50_000.0
_FASTEST_GUESS = 20_000.0
_PROMPT_TOKENS = 256
_USABLE = 0.95  # of the memory there is: contexts, fragments and the rest of the machine need some


class Device(msgspec.Struct, frozen=True):
    """What a plan is for: one GPU, or the CPU of this machine."""

    name: str
    bytes: int
    gpu: bool

    @staticmethod
    def here() -> Device:
        """This machine."""
        found = gpu()
        return Device(device_name(), found[1] if found else memory_bytes(), found is not None)


def estimate(plan: Plan, store: Store, shape: Shape, device: Device) -> dict[str, Any]:
    """Stages with cached or not, units of work, tokens, seconds and memory; and the largest memory of all."""
    rates = _rates(plan, store, shape, device)
    rows: dict[str, int] = {}
    stages, needs = [], []
    engine: memory.Parts = {}  # what the last sampler keeps beside what comes after it; workers of their own are closed
    for stage in plan.stages:
        artefact = store.artefact(stage.kind, stage.key)
        rows[stage.key] = artefact.manifest()["rows"] if artefact.done else _rows(stage, plan, rows)
        tokens, seconds = (0, 0.0) if artefact.done else _cost(stage, plan, rows, rates)
        parts = {} if artefact.done else _memory(stage, plan, shape, device, engine)
        if not artefact.done and stage.kind in _SAMPLING and plan.recipe.executor.workers == 1:
            engine = memory.resting(shape, _engine(stage, stage.config, plan, device))
        needs.append({"stage": stage.label, "parts": parts, "bytes": sum(parts.values())})
        stages.append({
            "label": stage.label, "kind": stage.kind, "key": stage.key, "cached": artefact.done, "rows": rows[stage.key],
            "tokens": tokens, "seconds": round(seconds, 1), "memory_bytes": needs[-1]["bytes"],
        })  # fmt: skip
    most = max(needs, key=lambda n: n["bytes"])
    return {
        "recipe": plan.recipe.name, "model": plan.model.name, "engine": plan.recipe.sampling.engine,
        "dtype": plan.recipe.model.dtype, "device": device.name, "parameters": shape.parameters, "shape_from": shape.source,
        "weights_here": plan.model.weights, "stages": stages, "tokens": sum(s["tokens"] for s in stages),
        "seconds": round(sum(s["seconds"] for s in stages), 1), "rates": rates,
        "memory": most, "memory_available": device.bytes, "memory_fits": most["bytes"] <= _USABLE * device.bytes,
    }  # fmt: skip


def estimate_table(e: dict[str, Any]) -> list[str]:
    """Lines for the terminal."""
    lines = [f"{e['recipe']}: model {e['model']} ({e['dtype']}), engine {e['engine']}, {e['device']}",
             f"{e['parameters'] / 1e6:,.0f} million parameters, from {e['shape_from']}", "",
             f"{'':7} {'stage':36} {'rows':>8} {'tokens':>12} {'time':>10} {'memory':>9}  key"]  # fmt: skip
    for s in e["stages"]:
        tokens, clock = (f"{s['tokens']:,}", _clock(s["seconds"])) if not s["cached"] else ("", "")
        rows = f"{s['rows']:,}" if s["rows"] else "?"
        size = _size(s["memory_bytes"]) if s["memory_bytes"] else ""
        lines.append(f"{'cached' if s['cached'] else '':7} {s['label']:36} {rows:>8} {tokens:>12} {clock:>10} {size:>9}  "
                     f"{s['key'][:12]}")  # fmt: skip
    if not e["weights_here"]:
        lines += ["", "the weights are not here: this is a plan and no more, and keys will be others with them"]
    lines += ["", f"to do: {e['tokens']:,} tokens, about {_clock(e['seconds'])}; rates in tokens/s: "
              + ", ".join(f"{k} {v['rate']:.0f} ({v['source']})" for k, v in e["rates"].items())]
    if most := e["memory"]["bytes"]:
        parts = ", ".join(f"{name} {_size(size)}" for name, size in e["memory"]["parts"].items())
        fits = "fits in" if e["memory_fits"] else "MORE than"
        there = _size(e["memory_available"])
        lines.append(f"memory: {_size(most)} at most, in {e['memory']['stage']} ({parts}); {fits} {there}")
    else:
        lines.append("memory: nothing left to do that needs much")
    return lines


def _rates(plan: Plan, store: Store, shape: Shape, device: Device) -> dict[str, dict[str, Any]]:
    """Measured tokens a second (and mean length), or guesses."""
    billions = shape.parameters / 1e9
    engine = plan.recipe.sampling.engine
    guess = (_GUESS_GPU_GENERATE[engine], _GUESS_GPU_TRAIN) if device.gpu else tuple(
        cores() * x for x in (_GUESS_CPU_GENERATE, _GUESS_CPU_TRAIN)
    )
    guessed = [min(x / billions, _FASTEST_GUESS) for x in guess]
    wanted = {"model": plan.model.fingerprint, "engine": plan.recipe.sampling.engine, "dtype": plan.recipe.model.dtype}
    alike = {"max_tokens": plan.recipe.sampling.max_tokens, "prompt": plan.recipe.data.prompt.model_dump(mode="json")}
    tokens = seconds = lengths = samples = 0.0
    for m in store.manifests("sample"):
        if all(m["config"].get(k) == v for k, v in wanted.items()):
            if m.get("device") == device.name:
                tokens += m["timing"].get("generated_tokens", 0.0)
                seconds += m["timing"].get("generate_seconds", 0.0)
            if all(m["config"][k] == v for k, v in alike.items()):
                lengths += m["metrics"]["tokens"]
                samples += m["metrics"]["samples"]
    measured = tokens > 0 and seconds > 0
    generate = {"rate": tokens / seconds if measured else guessed[0], "source": "measured" if measured else "guess",
                "mean_tokens": lengths / samples if samples else None}
    fingerprint = plan.model.fingerprint
    steps = [m for m in store.manifests("train") if m["config"]["model"] == fingerprint and m.get("device") == device.name]
    learned, spent = sum(m["metrics"]["tokens"] for m in steps), sum(m["timing"].get("train_seconds", 0.0) for m in steps)
    train = {"rate": learned / spent if spent else guessed[1], "source": "measured" if spent else "guess"}
    return {"generate": generate, "train": train}


def _rows(stage: Stage, plan: Plan, rows: dict[str, int]) -> int:
    """Rows that a stage will have, at most."""
    if stage.kind == "problems":
        return stage.config.get("limit") or _problems(stage)
    if stage.kind == "shots" and stage.config["count"]:
        return stage.config["count"]
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
    if stage.kind == "validation":
        return stage.config["count"]
    if stage.kind == "select" and "samples" not in stage.inputs:
        return min(stage.config["count"] or known, known)
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
    if stage.kind == "join":
        return sum(rows[source.key] for source in stage.inputs.values())
    if stage.kind in ("variants", "inverses"):
        train = stage.inputs["train"]
        originals = train.inputs["train"] if train.kind == "variants" else train  # variants have no inverses
        return rows[train.key] + rows[originals.key] * stage.config["count"]
    return rows[stage.inputs["train"].key] if stage.kind in ("decontaminate", "rewrite") else known


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
    """Size of a whole source: known for the benchmarks, lines for a file of one's own, 0 (unknown) for other tables."""
    if stage.config["source"] == "datasets":
        return 0
    if stage.config["source"] == "jsonl":
        with opened(Path(stage.paths["path"])) as lines:
            return sum(1 for line in lines if line.strip())
    source, test = stage.config["source"], stage.config["split"] == "test"
    return {"gsm8k": 1319 if test else 7473, "math": 5000 if test else 7498, "math500": 500}[source]


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
            rollouts = stage.config["training"]["rl"].get("step_rollouts", 0) * (_STEPS - 1)
            drawn = tokens + int(tokens * rollouts / 2)  # on average half of a solution is left at a step's end
            return drawn, drawn / rates["generate"]["rate"] + tokens / rates["train"]["rate"]
        # a reference pass is a forward pass: a third of a training pass
        training = stage.config["training"]
        sequences = rows[stage.key] * training.get("epochs", 1 / 3)
        if training.get("steps"):
            sequences = training["steps"] * training["batch_size"]
        tokens = int(sequences * mean)
        return tokens, tokens / rates["train"]["rate"]
    return 0, 0.1


_SAMPLING = ("sample", "sweep", "rollouts", "edit", "edit_rollouts")
_TRAINING = ("train", "reward_train")
_SCORING = ("reference", "reward_score")


def _memory(stage: Stage, plan: Plan, shape: Shape, device: Device, resting: memory.Parts) -> memory.Parts:
    """Bytes of what one stage holds at its worst moment, with what a resting sampler keeps."""
    if stage.kind in _SAMPLING and stage.config.get("editor") != "programmatic":
        parts = memory.sampling(shape, _engine(stage, stage.config, plan, device))
        executor = plan.recipe.executor
        workers = executor.workers_per_gpu if device.gpu else executor.workers  # those that share the memory
        return {name: size * workers for name, size in parts.items()}
    if stage.kind not in (*_TRAINING, *_SCORING):
        return {}
    dtype = stage.config["dtype"]
    method = {"reward_train": "reward_model", "reward_score": "reward_model"}.get(stage.kind, "sft")
    shared = plan.recipe.training.model_dump(exclude=set() if method == "sft" else {"steps"})  # of SFT alone
    section = TrainingSection.model_validate(shared | {"method": method} | stage.config["training"])
    longest = _PROMPT_TOKENS + plan.recipe.sampling.max_tokens
    settings = memory.setting(section, dtype, device.gpu, max(longest, 2 * section.batch_size * longest))
    if stage.kind in _SCORING:
        return memory.scoring(shape, settings) | resting
    if section.method not in ONLINE:
        return memory.training(shape, settings) | resting
    engine = _engine(stage, stage.config["sampling"] | {"dtype": dtype}, plan, device)
    judge = memory.judging(shape, settings) if "reward_model" in stage.inputs else {}
    return memory.online(shape, settings, engine, section.rl.share_gpu == "sleep") | judge


def _engine(stage: Stage, config: Mapping[str, Any], plan: Plan, device: Device) -> memory.Engine:
    """The engine that a stage samples with."""
    return memory.Engine(
        kind=config["engine"], dtype=config["dtype"], rank=stage.hints["lora_rank"] if "model" in stage.inputs else 0,
        rows=config["batch_size"], max_tokens=config.get("max_tokens", _EDIT_TOKENS), max_model_len=config["max_model_len"],
        share=stage.hints["gpu_memory"], gpu=device.bytes if device.gpu else None,
    )


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def _clock(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
