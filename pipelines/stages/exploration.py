"""Metrics of exploration and exploitation of one set of samples (see `pipelines.exploration`).

Inputs: problems, samples, verdicts, and optionally scores and examples (what was selected from these samples).
Files: exploration.json (means with 95 % intervals, overall and by level); with examples kept.json and dropped.json, some
of the samples that were and were not selected, with their rewards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from configs.rows import Example, Problem, Sample, VerdictRow
from pipelines.balancing import task_scores
from pipelines.candidates import rewards_of
from pipelines.exploration import by_level, diversity, drawn_of, equations, figures, summary
from pipelines.files import write_json
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register


class ExplorationStage:
    """config: k, s, examples (how many to show), score_scale, score_clamp, seed; aggregation with a reward model."""

    name, version, where, device = "exploration", 1, "driver", False

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        def run(shard: int, report: Report) -> ShardResult:
            config = task.config
            problems: dict[str, Problem] = {p.id: p for p in task.rows("problems", Problem)}
            samples: list[Sample] = task.rows("samples", Sample)
            verdicts: dict[str, VerdictRow] = {v.sample: v for v in task.rows("verdicts", VerdictRow)}
            scores = task_scores(task, "scores")
            rewards = rewards_of(samples, verdicts, scores, config["score_scale"], config["score_clamp"])
            drawn = drawn_of(samples, verdicts, rewards, scores or {})
            each = {p: figures(d, config["k"], config["s"]) for p, d in drawn.items()}
            overall = summary(list(each.values()))
            content: dict[str, Any] = {
                "temperature": samples[0].temperature, "overall": overall, "levels": by_level(problems, each),
            }
            metrics = {name: f["mean"] for name, f in overall.items()}
            if "examples" in task.inputs:
                chosen: list[Example] = task.rows("examples", Example)
                content["selected"] = _selected(chosen, verdicts)
                metrics |= content["selected"]
                _show(task, samples, verdicts, rewards, {e.parents[0] for e in chosen if e.kind == "model"})
            write_json(task.artefact.path / "exploration.json", content)
            return ShardResult(rows=0, metrics={"problems": len(each), "samples": len(samples), **metrics})

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return shards[0].metrics


def _selected(chosen: Sequence[Example], verdicts: Mapping[str, VerdictRow]) -> dict[str, float]:
    """Size, share of wrong ones, share of human solutions, and diversity: mean over problems of the selected set."""
    own = [e for e in chosen if e.kind == "model"]
    wrong = sum(verdicts[e.parents[0]].outcome != "correct" for e in own)
    groups: dict[str, list[list[str]]] = {}
    for e in chosen:
        groups.setdefault(e.problem, []).append(equations(e.text))
    ratios = [d for g in groups.values() if (d := diversity(g)) is not None]
    return {
        "selected": float(len(chosen)), "selected_problems": float(len(groups)), "wrong_share": wrong / max(1, len(chosen)),
        "human_share": 1 - len(own) / max(1, len(chosen)), "selected_diversity": sum(ratios) / max(1, len(ratios)),
    }


def _show(
    task: Task, samples: Sequence[Sample], verdicts: Mapping[str, VerdictRow], rewards: Mapping[str, float], kept: set[str]
) -> None:
    """A seeded choice of the samples that were kept and of those that were not."""
    order = sorted(samples, key=lambda s: (task.seed("show", s.id), s.id))
    for name, mine in (("kept", [s for s in order if s.id in kept]), ("dropped", [s for s in order if s.id not in kept])):
        write_json(task.artefact.path / f"{name}.json", [
            {
                "sample": s.id, "problem": s.problem, "outcome": verdicts[s.id].outcome, "reward": rewards.get(s.id),
                "finish_reason": s.finish_reason, "text": s.text,
            }
            for s in mine[: task.config["examples"]]
        ])  # fmt: skip


register(ExplorationStage())
