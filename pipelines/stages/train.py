"""Training: a new adapter or new weights.

Inputs: examples (method sft), or pairs and reference (method dpo), or problems (online methods, see
`pipelines.online.stage`); and optionally model (to continue).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.keys import derive_seed
from configs.rows import Example, Pair, PairLogprobs
from configs.schema import ONLINE, TrainingSection
from pipelines.files import disk_error, writing
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register
from pipelines.store import publish_model

if TYPE_CHECKING:
    from trainers.loop import Method, Online


class TrainStage:
    """config: training (the section), model, dtype, seed; online: {total (steps planned), first} where this is a part of
    one training through all iterations. Writes `model/`, `train.jsonl` (a record a step) and, online, `state/`: float32
    weights, optimiser, position and random state, which the next iteration's training goes on from."""

    name, version, where, device = "train", 2, "workers", True

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        def run(shard: int, report: Report) -> ShardResult:
            import torch

            from trainers.checkpoint import SaveError
            from trainers.loop import metrics_of, train

            torch.set_num_threads(task.hints["train_threads"])
            often = {"checkpoint_every": task.hints["checkpoint_every"]}
            settings = TrainingSection.model_validate({**task.config["training"], **often})
            base, start = starting_weights(task, settings)
            if settings.method in ONLINE:
                from pipelines.online.stage import run_online

                return run_online(task, settings, base, start, report)
            online = _online(task)
            # the parts of one training share their seed: together they shuffle as the whole would
            seed = derive_seed(task.config["seed"], "train", "online") if online else task.seed("train")
            rows, method = _method(task, settings, seed, online.epochs if online else 0)
            output = task.artefact.path / ".model.tmp"
            began = time.monotonic()
            try:
                history = train(
                    method, settings, base=base, dtype=task.config["dtype"], start=start, seed=seed,
                    work=task.artefact.work, output=output, report=report, online=online,
                )
            except SaveError as e:
                raise disk_error(e, Path(e.filename)) from e
            with writing(task.artefact.path / "train.jsonl") as temporary:
                temporary.write_text("".join(json.dumps(h) + "\n" for h in history))
            publish_model(task.artefact, output)
            return ShardResult(
                rows=rows, metrics=metrics_of(history), timing={"train_seconds": time.monotonic() - began}
            )

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return {**shards[0].metrics, "examples": shards[0].rows}


def starting_weights(task: Task, settings: TrainingSection) -> tuple[Path, Path | None]:
    """Folder of the base (or full) weights, and of the adapter to go on from."""
    base = Path(task.paths["base"])
    if "model" not in task.inputs:
        return base, None
    trained = task.input("model").model
    return (trained, None) if settings.adapter == "full" else (base, trained)


def _online(task: Task) -> Online | None:
    from trainers.loop import Online

    config = task.config.get("online")
    if config is None:
        return None
    before = None if config["first"] else task.input("model").path / "state"
    return Online.following(config["total"], task.artefact.path / "state", before)


def _method(task: Task, settings: TrainingSection, seed: int, first_epoch: int) -> tuple[int, Method]:
    """Number of rows to learn from, and the method with them."""
    if settings.method == "dpo":
        from trainers.dpo import DirectPreferenceOptimization

        pairs: list[Pair] = task.rows("pairs", Pair)
        reference = {r.pair: (r.chosen, r.rejected) for r in task.rows("reference", PairLogprobs)}
        return len(pairs), DirectPreferenceOptimization(pairs, reference, settings, seed)
    from trainers.sft import SupervisedFineTuning

    examples: list[Example] = task.rows("examples", Example)
    return len(examples), SupervisedFineTuning(examples, settings, seed, first_epoch)


register(TrainStage())
