"""Training of a reward model. Inputs: groups, and optionally model (the policy's training artefact to start from)."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.rows import Group
from configs.schema import RewardModelSection, TrainingSection
from pipelines.files import disk_error, writing
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register
from pipelines.stages.train import starting_weights
from pipelines.store import publish_model


class RewardTrainStage:
    """config: training, reward_model (kind, loss, labels), model, dtype, seed. Writes `model/` with the head beside the
    adapter or the weights, and `train.jsonl`, a record a step."""

    name, version, where, device = "reward_train", 1, "workers", True

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        def run(shard: int, report: Report) -> ShardResult:
            import torch

            from trainers.checkpoint import SaveError
            from trainers.loop import metrics_of, train
            from trainers.process_reward_model import process_reward_model
            from trainers.reward_head import RewardHead
            from trainers.reward_model import outcome_reward_model

            torch.set_num_threads(task.hints["train_threads"])
            often = {"checkpoint_every": task.hints["checkpoint_every"]}
            settings = TrainingSection.model_validate({**task.config["training"], **often})
            section = RewardModelSection.model_validate(task.config["reward_model"])
            base, start = starting_weights(task, settings)
            groups: list[Group] = task.rows("groups", Group)
            seed, began = task.seed("train"), time.monotonic()
            make = process_reward_model if section.kind == "process" else outcome_reward_model
            method = make(groups, settings, section, seed)
            output = task.artefact.path / ".model.tmp"
            try:
                history = train(
                    method, settings, base=base, dtype=task.config["dtype"], start=start, seed=seed,
                    work=task.artefact.work, output=output, report=report, part=RewardHead(section.kind, seed),
                )
            except SaveError as e:
                raise disk_error(e, Path(e.filename)) from e
            with writing(task.artefact.path / "train.jsonl") as temporary:
                temporary.write_text("".join(json.dumps(h) + "\n" for h in history))
            publish_model(task.artefact, output)
            timing = {"train_seconds": time.monotonic() - began}
            return ShardResult(rows=len(groups), metrics=metrics_of(history), timing=timing)

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return {**shards[0].metrics, "groups": shards[0].rows, "kind": task.config["reward_model"]["kind"]}


register(RewardTrainStage())
