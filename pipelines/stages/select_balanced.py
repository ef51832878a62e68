"""Selection of training examples by reward, at the point that the balance has chosen.

Inputs: problems, samples (of all problems, at the chosen temperature), verdicts, choice (the balance artefact) and, with
a scorer, scores. Kept is what has a reward above the threshold: every such response (`responses_per_query: all`, as in
the paper), the first so many of a problem, or the fewest a problem that make the target size (`target`, as in the paper's
code). With `rechoose_threshold` the threshold is chosen again on these samples, as in the paper's code. `human_candidates`
lets the solutions that came with the problems compete with reward 1, as in the paper's code.

Files: choice.json (the point in force), surface.json and surface.svg (of these samples).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.rows import Example, Problem, Sample, VerdictRow
from configs.schema import PromptSection
from data_gen.prompts import PromptEncoder
from pipelines.balance import Point, Rule, Surface, best, points, surface, taken
from pipelines.balancing import CHOICE, iteration_problems, read_choice, rule_of, target_of, task_scores, write_surfaces
from pipelines.candidates import Candidates, candidates, rewards_of
from pipelines.files import write_json
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register
from pipelines.stages.select import check_enough, from_human, from_sample
from pipelines.store import write_rows


class SelectBalancedStage:
    """config: the balance section without scorer; n, offset, count, min_examples, prompt, model, seed; aggregation with a
    reward model."""

    name, version, where, device = "select_balanced", 1, "driver", False

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        config = task.config
        encoder = PromptEncoder(Path(task.paths["base"]), PromptSection.model_validate(config["prompt"]))

        def run(shard: int, report: Report) -> ShardResult:
            problems = {p.id: p for p in iteration_problems(task.rows("problems", Problem), config)}
            samples: list[Sample] = task.rows("samples", Sample)
            verdicts: dict[str, VerdictRow] = {v.sample: v for v in task.rows("verdicts", VerdictRow)}
            pool = _candidates(task, problems, samples, verdicts)
            rule, found, point = _point(task, pool)
            mask = taken(pool.pool, rule, point.threshold, point.cap)
            chosen = [s for s, keep in zip(pool.sources, mask.tolist(), strict=True) if keep]
            examples = [
                from_sample(encoder, s, problems[s.problem]) if isinstance(s, Sample) else from_human(encoder, s)
                for s in chosen
            ]
            correct = sum(v.outcome == "correct" for v in verdicts.values())
            check_enough(task, examples, len(samples), correct)
            targets = {point.temperature: target_of(config, rule, len(problems), len(problems))}
            write_surfaces(
                task.artefact.path, {point.temperature: found}, rule, config["responses_per_query"], targets, point
            )
            write_json(task.artefact.path / CHOICE, {"point": asdict(point)})
            write_rows(task.artefact.part(shard), examples, Example)
            human = sum(e.kind == "human" for e in examples)
            return ShardResult(rows=len(examples), metrics={
                "samples": len(samples), "correct": correct, "examples": len(examples), "human": human,
                "problems": len(problems), "problems_solved": point.kept, "empty_queries": len(problems) - point.kept,
                "wrong_share": point.wrong / max(1, point.selected), "temperature": point.temperature,
                "threshold": point.threshold, "cap": point.cap, "score": point.score, "target_reached": point.reached,
            })  # fmt: skip

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return shards[0].metrics


def _candidates(
    task: Task, problems: dict[str, Problem], samples: Sequence[Sample], verdicts: dict[str, VerdictRow]
) -> Candidates:
    config = task.config
    scores = task_scores(task, "scores")
    rewards = rewards_of(samples, verdicts, scores, config["score_scale"], config["score_clamp"])
    return candidates(list(problems.values()), samples, verdicts, rewards, config["human_candidates"])


def _point(task: Task, pool: Candidates) -> tuple[Rule, Surface, Point]:
    """The rule, the surface of these samples, and the point on it at the threshold of the sweep or a new one."""
    config, queries = task.config, pool.pool.queries
    rule = rule_of(config, queries)
    found = surface(pool.pool, rule)
    chosen = read_choice(task.input("choice"))["point"]
    responses = config["responses_per_query"]
    target = target_of(config, rule, queries, queries)
    all_ = points(chosen["temperature"], found, rule, responses, target)
    if config["rechoose_threshold"]:
        return rule, found, best(all_, responses)
    return rule, found, next(p for p in all_ if p.threshold == chosen["threshold"])


register(SelectBalancedStage())
