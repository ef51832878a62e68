"""Step values from rollouts. Inputs: problems, samples, verdicts, rollouts.

Writes Step rows, in the shards of the samples, and `curves.json`: the value curves of some samples, for a figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.rows import Rollout, Step, VerdictRow
from configs.schema import PromptSection, RolloutsSection
from data_gen.prompts import PromptEncoder
from data_gen.step_curves import mean_curve, summary
from data_gen.step_values import Chain, Curve, Tally, curve, steps_of, tallies_of, tally
from pipelines.files import write_json
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register
from pipelines.stages.rollouts import chains_of
from pipelines.statistics import wilson
from pipelines.store import write_rows

_CURVES = 64  # samples whose curves are written out


class StepsStage:
    """config: rollouts (the section), root_from_samples, prompt, model, seed."""

    name, version, where, device = "steps", 1, "driver", False

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        config = task.config
        section = RolloutsSection.model_validate(config["rollouts"])
        encoder = PromptEncoder(Path(task.paths["base"]), PromptSection.model_validate(config["prompt"]))

        def run(shard: int, report: Report) -> ShardResult:
            rollouts: list[Rollout] = task.rows("rollouts", Rollout)
            checks = tallies_of(rollouts, check=True)
            tallies = tallies_of(rollouts)
            valued: list[tuple[Chain, Curve, list[Step]]] = []
            roots = _roots(task) if config["root_from_samples"] else {}
            for problem, (_, chains) in chains_of(task, encoder).items():
                for c in chains:
                    known = tallies | ({c.states[0]: roots[problem]} if problem in roots else {})
                    found = curve(c, known, section.n, section.best_of, wilson)
                    valued.append((c, found, steps_of(c, found, section.n, checks, wilson)))
            rows = [s for _, _, steps in valued for s in steps]
            write_rows(task.artefact.part(shard), rows, Step)
            curves = [summary(c, found, section.best_of, wilson) for c, found, _ in valued[:_CURVES]]
            write_json(task.artefact.path / "curves.json", curves)
            return ShardResult(rows=len(rows), metrics=_metrics(valued))

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return shards[0].metrics


def _roots(task: Task) -> dict[str, Tally]:
    """By problem, its own samples as rollouts from the prompt."""
    verdicts: list[VerdictRow] = task.rows("verdicts", VerdictRow)
    outcomes: dict[str, list[str]] = {}
    for v in verdicts:
        outcomes.setdefault(v.problem, []).append(v.outcome)
    return {problem: tally(found) for problem, found in outcomes.items()}


def _metrics(valued: Sequence[tuple[Chain, Curve, list[Step]]]) -> dict[str, Any]:
    """Where pits lie, how sure they are, how monotone values are, spurious steps, and mean curves of both classes."""
    wrong = [(c, found, steps) for c, found, steps in valued if not c.correct]
    right = [(c, found, steps) for c, found, steps in valued if c.correct]
    pits = [s for _, _, steps in wrong for s in steps if s.pit]
    tested = [s for s in pits if s.check_rollouts]
    false = [s for s in tested if s.check_successes]
    places = {id(s): len(steps) for _, _, steps in wrong for s in steps if s.pit}
    known = [s for _, _, steps in valued for s in steps if s.value is not None]
    finals = Counter("final" if s.final else "inner" for s in pits)
    recovered = sum(
        any((s.successes or 0) > 0 for s in steps[found.pit + 1 :]) for _, found, steps in wrong if found.pit is not None
    )
    return {
        "samples": len(valued), "wrong": len(wrong), "right": len(right), "steps": sum(len(s) for _, _, s in valued),
        "valued_steps": len(known), "pits": len(pits), "pits_final": finals["final"],
        "pits_first": sum(s.index == 0 for s in pits),
        "pit_place": _mean([s.index / max(1, places[id(s)] - 1) for s in pits]),
        "recovered": recovered, "checked": len(tested), "false_pits": len(false),
        "false_pit_rate": len(false) / len(tested) if tested else None,
        "value_of_checked_pits": _mean([(s.check_successes or 0) / s.check_rollouts for s in tested if s.check_rollouts]),
        "spurious": sum(s.spurious for s in known), "spurious_samples": len({s.sample for s in known if s.spurious}),
        "mean_curve_wrong": mean_curve([found.values for _, found, _ in wrong]),
        "mean_curve_right": mean_curve([found.values for _, found, _ in right]),
    }  # fmt: skip


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


register(StepsStage())
