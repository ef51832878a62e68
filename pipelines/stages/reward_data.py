"""Groups for a reward model. Inputs: problems, samples0, verdicts0, samples1, verdicts1, ... (one pair for each
iteration), and for a process model steps0, steps1, ... (step values of the samples)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import RatchetError
from configs.rows import Group, Problem, Sample, Step, VerdictRow
from configs.schema import PromptSection
from data_gen.prompts import PromptEncoder
from data_gen.reward_data import Judged, outcome_groups, process_groups
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register
from pipelines.store import write_rows
from rewards import UNSCORED
from rewards.shaping import Answer


class RewardDataStage:
    """config: kind, samples, similarity, truncated_negatives, balance_difficulty, min_groups, validation_fraction, prompt,
    model, seed. Metrics count what was dropped, by reason."""

    name, version, where, device = "reward_data", 1, "driver", False

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        def run(shard: int, report: Report) -> ShardResult:
            config = task.config
            encoder = PromptEncoder(Path(task.paths["base"]), PromptSection.model_validate(config["prompt"]))
            problems: dict[str, Problem] = {p.id: p for p in task.rows("problems", Problem)}
            judged, steps, unscored = _judged(task, encoder)

            def prompt(problem: str) -> list[int]:
                return encoder.encode(problems[problem].question)

            options = {k: config[k] for k in ("samples", "validation_fraction", "seed")}
            if config["kind"] == "process":
                groups, counts = process_groups(judged, steps, prompt, **options)
            else:
                more = {k: config[k] for k in ("similarity", "truncated_negatives", "balance_difficulty")}
                groups, counts = outcome_groups(judged, prompt, **options, **more)
            counts |= {"unscored": unscored, "validation": sum(g.split == "validation" for g in groups)}
            if counts["groups"] - counts["validation"] < config["min_groups"]:
                raise RatchetError(
                    f"{task.label}: {counts['groups'] - counts['validation']} groups to train on, fewer than "
                    f"reward_model.min_groups={config['min_groups']}; {counts}: sample more problems or more solutions of each"
                )
            write_rows(task.artefact.part(shard), groups, Group)
            return ShardResult(rows=len(groups), metrics=counts)

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return shards[0].metrics


def _judged(task: Task, encoder: PromptEncoder) -> tuple[dict[str, list[Judged]], dict[str, list[Step]], int]:
    """Samples by problem, steps by sample, and how many samples the verifier could not judge (left out).

    Samples of several iterations have the same ids: each gets its iteration's number in front where there are more.
    """
    import msgspec

    count = sum(name.startswith("samples") for name in task.inputs)
    judged: dict[str, list[Judged]] = {}
    steps: dict[str, list[Step]] = {}
    unscored = 0
    for number in range(count):
        prefix = f"{number}:" if count > 1 else ""
        outcomes = {v.sample: v.outcome for v in task.rows(f"verdicts{number}", VerdictRow)}
        for sample in task.rows(f"samples{number}", Sample):
            outcome = outcomes[sample.id]
            if outcome in UNSCORED:
                unscored += 1
                continue
            named = msgspec.structs.replace(sample, id=prefix + sample.id)
            judged.setdefault(sample.problem, []).append(Judged(named, outcome == "correct", solution_ids(encoder, sample)))
        if task.config["kind"] == "process":
            for step in task.rows(f"steps{number}", Step):
                steps.setdefault(prefix + step.sample, []).append(step)
    return judged, steps, unscored


def solution_ids(encoder: PromptEncoder, sample: Answer) -> list[int]:
    """An answer's ids as a reward model reads them: with the end token, unless it was cut off."""
    return encoder.trimmed(sample.token_ids, sample.text) if sample.finish_reason == "stop" else list(sample.token_ids)


register(RewardDataStage())
