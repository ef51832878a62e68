"""The balance of one round of the sweep: the surface so far, the best point, and which temperatures go on.

Inputs: problems; of every round so far samples1, verdicts1 and, with a scorer, scores1, ...; `before` (the balance of the
round before). Files: choice.json (the contract with later stages, see `pipelines.balancing`), surface.json, surface.svg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from configs.rows import Problem, Sample, VerdictRow
from pipelines.allocation import Race, drop, round_ends
from pipelines.balance import Pool, choose, surface
from pipelines.balancing import (
    CHOICE,
    dev_problems,
    iteration_problems,
    read_choice,
    rule_of,
    target_of,
    task_scores,
    write_surfaces,
)
from pipelines.candidates import candidates, rewards_of
from pipelines.files import write_json
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register


class BalanceStage:
    """config: the balance section without scorer; n, offset, count, round (from 0), seed; aggregation with a reward model."""

    name, version, where, device = "balance", 1, "driver", False

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        def run(shard: int, report: Report) -> ShardResult:
            metrics = _balance(task)
            return ShardResult(rows=0, metrics=metrics)

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return shards[0].metrics


def _balance(task: Task) -> dict[str, Any]:
    config, number = task.config, task.config["round"]
    everything = task.rows("problems", Problem)
    dev, count = dev_problems(everything, config), len(iteration_problems(everything, config))
    ends = round_ends(config["rounds"], len(dev))
    rule, responses = rule_of(config, count), config["responses_per_query"]
    first = {"alive": config["temperatures"], "dropped": []}
    earlier: dict[str, Any] = read_choice(task.input("before")) if "before" in task.inputs else first
    drawn: dict[float, int] = {t: ends[number] for t in earlier["alive"]}  # noqa: C420  # fromkeys loses the type
    drawn |= {d["temperature"]: ends[d["round"]] for d in earlier["dropped"]}
    pools = _pools(task, {t: dev[: drawn[t]] for t in config["temperatures"]})
    used = sum(drawn.values())
    targets = {t: target_of(config, rule, drawn[t], count) for t in pools}
    surfaces = {t: surface(p, rule) for t, p in pools.items()}
    alive = {t: pools[t] for t in earlier["alive"]}
    point = choose({t: surfaces[t] for t in alive}, rule, responses, targets[earlier["alive"][0]])
    gone = []
    if number + 1 < len(ends):
        race = Race(tuple(config["temperatures"]), ends, config["risk"], config["budget"])
        gone = [asdict(d) | {"round": number} for d in drop(alive, rule, responses, targets[point.temperature], race, used)]
    dropped = [*earlier["dropped"], *gone]
    left = [t for t in earlier["alive"] if t not in {d["temperature"] for d in dropped}]
    samples = {"used": used * config["n"], "grid": len(config["temperatures"]) * len(dev) * config["n"]}
    write_surfaces(task.artefact.path, surfaces, rule, responses, targets, point)
    write_json(task.artefact.path / CHOICE, {"point": asdict(point), "alive": left, "dropped": dropped, **samples})
    return {
        "temperature": point.temperature, "threshold": point.threshold, "cap": point.cap, "score": point.score,
        "n_star": rule.n_star, "selected": point.selected, "unique_correct": point.unique_correct, "wrong": point.wrong,
        "queries": ends[number], "empty_queries": ends[number] - point.kept, "alive": len(left),
        "cannot_win": sum(d["reason"] == "cannot win" for d in dropped),
        "over_budget": sum(d["reason"] == "budget" for d in dropped), **samples, "share": used / (len(drawn) * len(dev)),
    }  # fmt: skip


def _pools(task: Task, problems: Mapping[float, Sequence[Problem]]) -> dict[float, Pool]:
    """Candidates by temperature, of the dev problems that each temperature was drawn on."""
    config = task.config
    samples: list[Sample] = []
    verdicts: dict[str, VerdictRow] = {}
    scores: dict[str, float] | None = {} if "scores1" in task.inputs else None
    for i in range(1, config["round"] + 2):
        samples += task.rows(f"samples{i}", Sample)
        verdicts |= {v.sample: v for v in task.rows(f"verdicts{i}", VerdictRow)}
        if scores is not None:
            scores |= task_scores(task, f"scores{i}") or {}
    rewards = rewards_of(samples, verdicts, scores, config["score_scale"], config["score_clamp"])
    by_temperature: dict[float, list[Sample]] = {t: [] for t in problems}
    for s in samples:
        by_temperature[s.temperature].append(s)
    human = config["human_candidates"]
    return {t: candidates(list(dev), by_temperature[t], verdicts, rewards, human).pool for t, dev in problems.items()}


register(BalanceStage())
