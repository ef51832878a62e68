"""Scores of one model on one benchmark. Inputs: problems, samples, verdicts.

Metrics: accuracy with a 95 % interval (Wilson for one answer a problem, clustered by problem for the mean of
several), and everything needed to read the figure: prompt, extraction rule, sampling settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configs.rows import Problem, ProblemScore, Sample, VerdictRow
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register
from pipelines.statistics import accuracy
from pipelines.store import write_rows


class ScoreStage:
    """config: benchmark, mode, sampling (temperature, top_p, n, max_tokens, engine, dtype), prompt_example, seed."""

    name, version, where, device = "score", 2, "driver", False

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        def run(shard: int, report: Report) -> ShardResult:
            problems: dict[str, Problem] = {p.id: p for p in task.rows("problems", Problem)}
            samples: list[Sample] = task.rows("samples", Sample)
            verdicts: dict[str, VerdictRow] = {v.sample: v for v in task.rows("verdicts", VerdictRow)}
            by_problem: dict[str, list[Sample]] = {}
            for sample in samples:
                by_problem.setdefault(sample.problem, []).append(sample)
            rows = [_score(problems[p], group, verdicts) for p, group in by_problem.items()]
            write_rows(task.artefact.part(shard), rows, ProblemScore)
            return ShardResult(rows=len(rows), metrics=_summary(rows, samples, list(verdicts.values())))

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return {**shards[0].metrics, **{k: task.config[k] for k in ("benchmark", "mode", "sampling", "prompt")}}


def _score(problem: Problem, samples: Sequence[Sample], verdicts: dict[str, VerdictRow]) -> ProblemScore:
    mine = [verdicts[s.id] for s in samples]
    return ProblemScore(
        id=f"{problem.id}/score", parents=[v.id for v in mine], stage="score", problem=problem.id,
        question=problem.question, answer=problem.answer, samples=len(mine),
        correct=sum(v.outcome == "correct" for v in mine), extracted=mine[0].extracted, outcome=mine[0].outcome,
        text=samples[0].text,
    )


def _summary(
    rows: Sequence[ProblemScore], samples: Sequence[Sample], verdicts: Sequence[VerdictRow]
) -> dict[str, Any]:
    return {
        **accuracy(rows),
        "no_answer": sum(v.outcome == "no_answer" for v in verdicts) / len(verdicts),
        "unscored": sum(v.outcome in ("timeout", "error", "bad_gold") for v in verdicts),
        "truncated": sum(s.finish_reason == "length" for s in samples) / len(samples),
        "mean_tokens": sum(len(s.token_ids) for s in samples) / len(samples),
    }


register(ScoreStage())
