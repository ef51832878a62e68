"""Selection of training examples by rejection sampling. Inputs: problems, samples, verdicts, optionally steps and scores.

Without samples and verdicts, the solutions that came with the problems (of the slice) are the examples. With steps, only
samples whose steps were valued are chosen, and their tokens are weighed by advantage. With scores, a reward model chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from configs.errors import RatchetError
from configs.rows import Example, Problem, Sample, Score, Step, VerdictRow
from configs.schema import PromptSection
from data_gen.problems import strip_calculator_marks
from data_gen.prompts import PromptEncoder
from data_gen.select import at_most, unique_correct, voted
from data_gen.step_values import advantage_weights
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register
from pipelines.store import write_rows
from rewards.shaping import sigmoid


class SelectStage:
    """config: max_per_problem, prefer, include_human, min_examples, advantage_weights, prompt, model, seed; with scores
    label, min_reward and alpha (of the weighted vote); without samples offset and count, the slice of the problems."""

    name, version, where, device = "select", 1, "driver", False

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        config = task.config
        encoder = PromptEncoder(Path(task.paths["base"]), PromptSection.model_validate(config["prompt"]))
        scores: dict[str, Score] = {s.sample: s for s in task.rows("scores", Score)} if "scores" in task.inputs else {}

        def rank(sample: Sample) -> tuple[float, str]:
            if config["prefer"] == "reward":
                return -scores[sample.id].value, sample.id
            first = len(sample.token_ids) if config["prefer"] == "shortest" else task.seed(sample.id)
            return float(first), sample.id

        def run(shard: int, report: Report) -> ShardResult:
            problems: dict[str, Problem] = {p.id: p for p in task.rows("problems", Problem)}
            if "samples" not in task.inputs:
                return _human_only(task, encoder, list(problems.values()), shard)
            samples: list[Sample] = task.rows("samples", Sample)
            verdicts: list[VerdictRow] = task.rows("verdicts", VerdictRow)
            correct = {v.sample for v in verdicts if v.outcome == "correct"}
            if "scores" in task.inputs:
                correct = _accepted(correct, verdicts, scores, config)
            unique = unique_correct(samples, correct)
            steps = _steps(task)
            if steps is not None:
                unique = [s for s in unique if s.id in steps]
            chosen = at_most(unique, config["max_per_problem"], rank)
            examples = [from_sample(encoder, s, problems[s.problem]) for s in chosen]
            if steps is not None:
                temperature = config["advantage_weights"]
                examples = [_weighted(e, steps[s.id], temperature) for e, s in zip(examples, chosen, strict=True)]
            sampled = {s.problem for s in samples}
            if config["include_human"]:
                examples += [from_human(encoder, p) for p in problems.values() if p.solution and p.id in sampled]
            check_enough(task, examples, len(samples), len(correct))
            write_rows(task.artefact.part(shard), examples, Example)
            return ShardResult(
                rows=len(examples),
                metrics={
                    "samples": len(samples), "correct": len(correct), "unique_correct": len(unique),
                    "problems": len(sampled), "problems_solved": len({s.problem for s in unique}),
                    "examples": len(examples), "human": len(examples) - len(chosen),
                },
            )

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return shards[0].metrics


def _accepted(
    correct: set[str], verdicts: Sequence[VerdictRow], scores: dict[str, Score], config: dict[str, Any]
) -> set[str]:
    """The samples that count as right where a reward model has a say."""
    if config["label"] == "weighted_vote":
        correct = _voted(verdicts, scores, config["alpha"])
    if config["min_reward"] is not None:
        correct = {s for s in correct if scores[s].value >= config["min_reward"]}
    return correct


def _voted(verdicts: Sequence[VerdictRow], scores: dict[str, Score], alpha: float) -> set[str]:
    """Samples with the winning answer of their problem; a process model's score is a weight as it is."""

    def weight(sample: str) -> float:
        score = scores[sample]
        return score.value if score.steps else sigmoid(alpha * score.value)

    # not the verdict's answer alone: where none was found, `extracted` may hold what was looked at
    extracted = {v.sample: None if v.outcome == "no_answer" else v.extracted for v in verdicts}
    return voted(extracted, {v.sample: v.problem for v in verdicts}, weight)


def check_enough(task: Task, examples: Sequence[Example], samples: int, correct: int) -> None:
    """Raises RatchetError when there are fewer examples than the recipe asks for."""
    if len(examples) < task.config["min_examples"]:
        raise RatchetError(
            f"{task.label}: {len(examples)} examples selected from {samples} samples ({correct} correct), fewer than "
            f"selection.min_examples={task.config['min_examples']}: sample more, or start with easier problems"
        )


def _human_only(task: Task, encoder: PromptEncoder, problems: Sequence[Problem], shard: int) -> ShardResult:
    """Examples from the problems' own solutions."""
    mine = problems[task.config["offset"] :]
    mine = mine[: task.config["count"]] if task.config["count"] else mine
    examples = [from_human(encoder, p) for p in mine if p.solution]
    if len(examples) < task.config["min_examples"]:
        raise RatchetError(
            f"{task.label}: {len(examples)} of {len(mine)} problems came with a solution, fewer than selection.min_examples="
            f"{task.config['min_examples']}: set selection.max_per_problem above 0, so that samples are learned from"
        )
    write_rows(task.artefact.part(shard), examples, Example)
    metrics = dict.fromkeys(("samples", "correct", "unique_correct", "problems_solved"), 0)
    return ShardResult(
        rows=len(examples), metrics={**metrics, "problems": len(mine), "examples": len(examples), "human": len(examples)}
    )


def _steps(task: Task) -> dict[str, list[Step]] | None:
    """Steps by sample, where they are an input."""
    if "steps" not in task.inputs:
        return None
    found: dict[str, list[Step]] = {}
    for step in task.rows("steps", Step):
        found.setdefault(step.sample, []).append(step)
    return found


def _weighted(example: Example, steps: Sequence[Step], temperature: float) -> Example:
    return msgspec.structs.replace(
        example, token_weights=advantage_weights(steps, len(example.token_ids), temperature)
    )


def from_sample(encoder: PromptEncoder, sample: Sample, problem: Problem) -> Example:
    """The sample after the plain prompt, even if it was drawn after worked examples."""
    return Example(
        id=f"{sample.id}/example", parents=[sample.id, f"{sample.id}/verdict"], stage="select",
        problem=problem.id, prompt_ids=encoder.encode(problem.question),
        token_ids=encoder.trimmed(sample.token_ids, sample.text), text=sample.text, kind="model",
    )


def from_human(encoder: PromptEncoder, problem: Problem) -> Example:
    """The solution that came with the problem."""
    text = strip_calculator_marks(problem.solution or "")
    return Example(
        id=f"{problem.id}#human/example", parents=[problem.id], stage="select", problem=problem.id,
        prompt_ids=encoder.encode(problem.question), token_ids=encoder.completion_ids(text), text=text, kind="human",
    )


register(SelectStage())
