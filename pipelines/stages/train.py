"""Training: a new adapter or new weights from examples. Inputs: examples, and optionally model (to continue)."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.rows import Example
from configs.schema import TrainingSection
from pipelines.files import disk_error, writing
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register
from pipelines.store import publish_model


class TrainStage:
    """config: training (the section), model, dtype, seed. Writes `model/` and `train.jsonl`, a record a step."""

    name, version, where, device = "train", 1, "workers", True

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        def run(shard: int, report: Report) -> ShardResult:
            import torch

            from trainers.checkpoint import SaveError
            from trainers.sft import metrics_of, train_sft

            torch.set_num_threads(task.hints["train_threads"])
            often = {"checkpoint_every": task.hints["checkpoint_every"]}
            settings = TrainingSection.model_validate({**task.config["training"], **often})
            base, start = Path(task.paths["base"]), None
            if "model" in task.inputs:
                trained = task.input("model").model
                base, start = (trained, None) if settings.adapter == "full" else (base, trained)
            examples = task.rows("examples", Example)
            output = task.artefact.path / ".model.tmp"
            began = time.monotonic()
            try:
                history = train_sft(
                    examples, settings, base=base, dtype=task.config["dtype"], start=start, seed=task.seed("train"),
                    work=task.artefact.work, output=output, report=report,
                )
            except SaveError as e:
                raise disk_error(e, Path(e.filename)) from e
            with writing(task.artefact.path / "train.jsonl") as temporary:
                temporary.write_text("".join(json.dumps(h) + "\n" for h in history))
            publish_model(task.artefact, output)
            return ShardResult(
                rows=len(examples), metrics=metrics_of(history), timing={"train_seconds": time.monotonic() - began}
            )

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return {**shards[0].metrics, "examples": shards[0].rows}


register(TrainStage())
