"""How a reward model does on samples that it was not trained on. Inputs: problems, samples, verdicts, scores, and
optionally previous: the same on the samples of the iteration before.

Metrics: RM@k, maj@k, pass@k and weighted votes; pairwise accuracy beside the baselines of length and log-probability;
mean scores of right and wrong answers, AUC and agreement with the verifier; and an alarm when the scores of wrong
answers rise between iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import RatchetError
from configs.rows import RewardedProblem, Sample, Score, VerdictRow
from data_gen.reward_data import is_held_out
from pipelines.picks import Answers, sigmoid_weight, table
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register
from pipelines.statistics import bootstrap_mean
from pipelines.store import write_rows
from rewards import UNSCORED
from rewards.voting import best_at_k, group_equal
from rewards.watch import agreement, auc, rise


@dataclass(frozen=True)
class _Scored:
    sample: Sample
    correct: bool
    extracted: str | None
    score: float


BASELINES: dict[str, Callable[[_Scored], float]] = {
    "reward_model": lambda s: s.score,
    "shortest": lambda s: -float(len(s.sample.token_ids)),
    "mean_logprob": lambda s: s.sample.logprob / max(1, len(s.sample.token_ids)),
    "logprob": lambda s: s.sample.logprob,
}


class RewardEvalStage:
    """config: alpha, held_out (share of the problems that were held out from training, null: all), run_seed, seed."""

    name, version, where, device = "reward_eval", 2, "driver", False

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        def run(shard: int, report: Report) -> ShardResult:
            problems = _scored(task)
            if not problems:
                raise RatchetError(f"{task.label}: no samples to evaluate the reward model on: sample more problems")
            process = any(s.steps for s in task.rows("scores", Score))
            judged = [_judged(name, members) for name, members in problems.items()]
            rows = [_row(name, members) for name, members in problems.items()]
            write_rows(task.artefact.part(shard), rows, RewardedProblem)
            weight = (lambda score: score) if process else sigmoid_weight(task.config["alpha"])
            everything = [s for members in problems.values() for s in members]
            metrics = {
                "problems": len(problems), "samples": len(everything), "at": table(judged, weight, task.seed("at")),
                "pairwise": {name: _pairwise(problems, of, task.seed(name)) for name, of in BASELINES.items()},
                **_by_correctness(everything), **_watch(task, rows),
            }  # fmt: skip
            return ShardResult(rows=len(rows), metrics=metrics)

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return {**shards[0].metrics, "reward_model": _reward_model(task)}


def _scored(task: Task) -> dict[str, list[_Scored]]:
    """Samples that the verifier could judge, by problem."""
    verdicts = {v.sample: v for v in task.rows("verdicts", VerdictRow)}
    scores = {s.sample: s.value for s in task.rows("scores", Score)}
    fraction = task.config["held_out"]
    problems: dict[str, list[_Scored]] = {}
    for sample in task.rows("samples", Sample):
        verdict = verdicts[sample.id]
        seen = fraction is not None and not is_held_out(sample.problem, fraction, task.config["run_seed"])
        if verdict.outcome not in UNSCORED and not seen:
            right = verdict.outcome == "correct"
            scored = _Scored(sample, right, None if verdict.outcome == "no_answer" else verdict.extracted, scores[sample.id])
            problems.setdefault(sample.problem, []).append(scored)
    return problems


def _judged(name: str, members: Sequence[_Scored]) -> Answers:
    groups = group_equal([s.extracted for s in members])
    return Answers(name, [float(s.correct) for s in members], groups, [s.score for s in members])


def _row(name: str, members: Sequence[_Scored]) -> RewardedProblem:
    right, wrong = ([s.score for s in members if s.correct is side] for side in (True, False))
    return RewardedProblem(
        id=f"{name}/rewarded", parents=[f"{s.sample.id}/reward" for s in members], stage="reward_eval", problem=name,
        samples=len(members), correct=len(right), right_score=_mean(right), wrong_score=_mean(wrong),
        picked=best_at_k([float(s.correct) for s in members], [s.score for s in members], len(members)),
    )


def _pairwise(problems: dict[str, list[_Scored]], of: Callable[[_Scored], float], seed: int) -> dict[str, Any] | None:
    """Mean over problems of the share of right-wrong pairs that are ordered rightly; chance is one half."""
    each = [
        value for members in problems.values()
        if (value := auc([of(s) for s in members if s.correct], [of(s) for s in members if not s.correct])) is not None
    ]
    if not each:
        return None
    low, high = bootstrap_mean(each, seed)
    return {"mean": sum(each) / len(each), "low": low, "high": high, "problems": len(each)}


def _by_correctness(everything: Sequence[_Scored]) -> dict[str, Any]:
    right, wrong = ([s.score for s in everything if s.correct is side] for side in (True, False))
    return {
        "right_score": _mean(right), "wrong_score": _mean(wrong), "auc": auc(right, wrong),
        "agreement": agreement([s.score for s in everything], [s.correct for s in everything]),
    }


def _watch(task: Task, rows: Sequence[RewardedProblem]) -> dict[str, Any]:
    """The change of wrong answers' scores since the iteration before, if the same model gave both."""
    if "previous" not in task.inputs:
        return {"wrong_rise": None, "alarm": None}
    manifest = task.input("previous").manifest()
    if manifest["metrics"]["reward_model"] != _reward_model(task):
        return {"wrong_rise": None, "alarm": None}
    before: list[RewardedProblem] = task.rows("previous", RewardedProblem)
    scores = [[r.wrong_score for r in side if r.wrong_score is not None] for side in (before, rows)]
    difference, alarming = rise(*scores)
    alarm = f"the scores of wrong answers rose by {difference:.3f}: the reward model is being exploited" if alarming else None
    return {"wrong_rise": difference, "alarm": alarm}


def _reward_model(task: Task) -> str | None:
    """Key of the model that gave the scores."""
    return task.input("scores").manifest()["parents"]["reward_model"]["key"]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


register(RewardEvalStage())
