"""What sampled answers of one model to one benchmark come to: their mean, pass@k and maj@k, all seeds together.

Inputs: problems, and verdicts1, verdicts2, ... for each seed. A sample that could not be judged is wrong and
votes for nothing, as in the accuracy of stage `score`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configs.rows import SampledProblem, VerdictRow
from pipelines.picks import Answers, table
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register
from pipelines.statistics import clustered
from pipelines.store import write_rows
from rewards.voting import group_equal


class VotesStage:
    """config: seeds (of the samples), seed (of the run)."""

    name, version, where, device = "votes", 1, "driver", False

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        def run(shard: int, report: Report) -> ShardResult:
            problems: dict[str, list[VerdictRow]] = {}
            by_seed: dict[str, float] = {}
            for number, seed in enumerate(task.config["seeds"], 1):
                verdicts: list[VerdictRow] = task.rows(f"verdicts{number}", VerdictRow)
                by_seed[str(seed)] = sum(v.outcome == "correct" for v in verdicts) / len(verdicts)
                for verdict in verdicts:
                    problems.setdefault(verdict.problem, []).append(verdict)
            answers: list[Answers] = []
            for done, (problem, members) in enumerate(problems.items(), 1):
                answers.append(_answers(problem, members))
                report({"done": done, "total": len(problems)})
            rows = [_row(a, problems[a.problem]) for a in answers]
            write_rows(task.artefact.part(shard), rows, SampledProblem)
            return ShardResult(rows=len(rows), metrics={**_summary(answers, task), "seeds": by_seed})

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return shards[0].metrics


def _answers(problem: str, verdicts: Sequence[VerdictRow]) -> Answers:
    votes = [v.extracted if v.outcome in ("correct", "wrong") else None for v in verdicts]
    return Answers(problem, [float(v.outcome == "correct") for v in verdicts], group_equal(votes), None)


def _row(answers: Answers, verdicts: Sequence[VerdictRow]) -> SampledProblem:
    """The most frequent answer of all; of equally frequent ones the first."""
    groups = [g for g in answers.groups if g is not None]
    majority = max(sorted(set(groups)), key=groups.count) if groups else None
    first = None if majority is None else answers.groups.index(majority)
    return SampledProblem(
        id=f"{answers.problem}/votes", parents=[v.id for v in verdicts], stage="votes", problem=answers.problem,
        samples=len(verdicts), correct=sum(v.outcome == "correct" for v in verdicts), answers=len(set(groups)),
        votes=0 if majority is None else groups.count(majority), majority=None if first is None else verdicts[first].extracted,
        majority_correct=first is not None and verdicts[first].outcome == "correct",
    )


def _summary(answers: Sequence[Answers], task: Task) -> dict[str, Any]:
    shares = [sum(a.correct) / len(a.correct) for a in answers]
    count = sum(len(a.correct) for a in answers)
    low, high = clustered(shares, count)
    at = [{k: r[k] for k in ("k", "problems", "pass", "maj")} for r in table(answers, lambda score: score, task.config["seed"])]
    return {
        "accuracy": sum(shares) / len(shares), "low": low, "high": high, "interval": "clustered by problem 95%",
        "problems": len(answers), "samples": count, "at": at,
    }


register(VotesStage())
