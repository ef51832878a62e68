"""Online training as a stage's shard: opens engine, trainer and verifier, runs the loop, writes the result.

Input: problems, and optionally model (a training artefact to go on from) and reward_model. config, besides that of every
training: sampling, rewards and prompt (sections), offset and count (the slice of the problems); with a reward model
shaping (alpha, aggregation).
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

from configs.errors import InputError
from configs.rows import Problem
from configs.schema import PromptSection, TrainingSection
from data_gen.prompts import PromptEncoder
from pipelines.files import disk_error, writing
from pipelines.stage import Report, ShardResult, Task
from pipelines.store import publish_model
from rewards.shaping import Scorer

_CANARIES = 4


def run_online(task: Task, settings: TrainingSection, base: Path, start: Path | None, report: Report) -> ShardResult:
    """Train online; leaves `model/` and `train.jsonl` in the artefact."""
    from pipelines.engines import engine_config, engine_for, forget_weights
    from rewards import VerifierPool
    from trainers.checkpoint import SaveError, saving
    from trainers.loop import memory_errors
    from trainers.model import save_trained

    problems = _problems(task)
    dtype = task.config["dtype"]
    encoder = PromptEncoder(base, PromptSection.model_validate(task.config["prompt"]))
    engine = engine_for(engine_config(task, base, task.config["sampling"]), task.hints["train_threads"])
    output = task.artefact.path / ".model.tmp"
    began = time.monotonic()
    try:
        with VerifierPool(task.hints["verifiers"]) as pool, memory_errors(settings):
            loop = _loop(task, settings, base, start, problems, encoder, engine, pool)
            history = loop.run(report)
            with saving(output):
                save_trained(loop.trainer.policy.model, output, base, dtype)
    except SaveError as e:
        raise disk_error(e, Path(e.filename)) from e
    finally:
        if settings.adapter == "full":
            forget_weights()
        else:
            engine.set_adapter(None)
    with writing(task.artefact.path / "train.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(h) + "\n" for h in history))
    publish_model(task.artefact, output)
    timing = {f"{phase}_seconds": s for phase, s in sorted(loop.seconds.items())}
    timing |= {"train_seconds": time.monotonic() - began}
    metrics = online_metrics(history) | ({"best_validation": loop.best[0], "best_step": loop.best[1]} if loop.best else {})
    return ShardResult(rows=int(sum(h["answers"] for h in history)), metrics=metrics, timing=timing)


def _loop(
    task: Task, settings: TrainingSection, base: Path, start: Path | None, problems: dict[str, Problem],
    encoder: PromptEncoder, engine: Any, pool: Any,
) -> Any:  # fmt: skip
    """The loop of this task, at its start."""
    from pipelines.online.curriculum import Curriculum
    from pipelines.online.loop import OnlineLoop, held_out
    from pipelines.online.rollouts import Collector
    from pipelines.online.weights import WeightSync
    from trainers.loop import open_policy
    from trainers.policy_gradient import PolicyGradient

    sampling, rewards, dtype = task.config["sampling"], task.config["rewards"], task.config["dtype"]
    policy = open_policy(settings, base, dtype, start, task.seed("lora"))
    trainer = PolicyGradient(policy, settings, sampling["temperature"])
    training, validation = held_out(
        list(problems), settings.rl.validation, random.Random(task.seed("validation")).shuffle
    )
    canaries = [encoder.encode(p.question) for p in list(problems.values())[:_CANARIES]]
    work = task.artefact.work
    sync = WeightSync(trainer, engine, base, dtype, work / "adapters", canaries)
    scorer, alpha = _scorer(task, settings, base, encoder)
    collector = Collector(engine, encoder, pool, problems, settings, sampling, rewards, task.seed, scorer, alpha)
    curriculum = Curriculum(training, task.seed("curriculum"), settings.rl.curriculum)
    return OnlineLoop(trainer, sync, collector, engine, curriculum, validation, work, rewards["max_failure_rate"])


def _scorer(task: Task, settings: TrainingSection, base: Path, encoder: PromptEncoder) -> tuple[Scorer | None, float]:
    """The reward model that shapes rewards, if any, and alpha."""
    if "reward_model" not in task.inputs:
        return None, 0.0
    from pipelines.online.shaping import RewardModelScorer

    shaping, folder = task.config["shaping"], task.input("reward_model").model
    scorer = RewardModelScorer(folder, settings, base, task.config["dtype"], encoder, shaping["aggregation"])
    return scorer, shaping["alpha"]


def online_metrics(history: list[dict[str, float]]) -> dict[str, Any]:
    """Summary for the manifest: rewards over the first and the last tenth of the steps, and the last record."""
    share = max(1, len(history) // 10)

    def mean(records: list[dict[str, float]]) -> float:
        values = [r["reward"] for r in records if "reward" in r]
        return sum(values) / max(1, len(values))

    losses = [h["loss"] for h in history if "loss" in h] or [0.0]
    rollouts = {k: int(sum(h[k] for h in history if k in h)) for k in ("rollouts", "rollout_tokens") if k in history[0]}
    return {
        "steps": len(history), "first_reward": mean(history[:share]), "last_reward": mean(history[-share:]),
        "first_loss": losses[0], "last_loss": losses[-1], "tokens": int(sum(h.get("learned_tokens", 0) for h in history)),
        "sampled_tokens": int(sum(h.get("tokens", 0) for h in history)),
        **rollouts, "last": {k: v for k, v in history[-1].items() if k != "step"},
    }


def _problems(task: Task) -> dict[str, Problem]:
    rows: list[Problem] = task.rows("problems", Problem)[task.config["offset"] :]
    rows = rows[: task.config["count"]] if task.config["count"] else rows
    if not rows:
        raise InputError(f"{task.label}: no problems left: set data.train.limit to what the source has")
    return {p.id: p for p in rows}
