"""Step values from rollouts, in the shards of the samples. Inputs: problems, samples, verdicts, rollouts.

Writes Step rows, and `curves.json`: the value curves of some samples, for a figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.rows import Rollout, Step, VerdictRow
from configs.schema import PromptSection, RolloutsSection
from data_gen.prompts import PromptEncoder
from data_gen.step_curves import curve_sums, mean_curve, summary
from data_gen.step_values import Chain, Curve, Tally, curve, steps_of, tallies_of, tally
from pipelines.files import write_json
from pipelines.stage import Report, ShardResult, ShardRunner, Task, add_metrics, register
from pipelines.stages.rollouts import chains_of
from pipelines.statistics import wilson
from pipelines.store import write_rows

_CURVES = 64  # samples of the first shard whose curves are written out


class StepsStage:
    """config: rollouts (the section), root_from_samples, prompt, model, seed."""

    name, version, where, device = "steps", 1, "driver", False

    def shards(self, task: Task) -> int:
        return sum(name.startswith("part-") for name in task.input("samples").manifest()["files"])

    def open(self, task: Task) -> ShardRunner:
        config = task.config
        section = RolloutsSection.model_validate(config["rollouts"])
        encoder = PromptEncoder(Path(task.paths["base"]), PromptSection.model_validate(config["prompt"]))

        def run(shard: int, report: Report) -> ShardResult:
            rollouts: list[Rollout] = task.rows("rollouts", Rollout, [shard])
            checks, tallies = tallies_of(rollouts, check=True), tallies_of(rollouts)
            roots = _roots(task, shard) if config["root_from_samples"] else {}
            valued: list[tuple[Chain, Curve, list[Step]]] = []
            for c in chains_of(task, encoder, [shard]):
                known = tallies | ({c.states[0]: roots[c.sample.problem]} if roots else {})
                found = curve(c, known, section.n, section.best_of, wilson)
                valued.append((c, found, steps_of(c, found, section.n, checks, wilson)))
            rows = [s for _, _, steps in valued for s in steps]
            write_rows(task.artefact.part(shard), rows, Step)
            if shard == 0:
                curves = [summary(c, found, section.best_of, wilson) for c, found, _ in valued[:_CURVES]]
                write_json(task.artefact.path / "curves.json", curves)
            return ShardResult(rows=len(rows), metrics=_sums(valued))

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        """Where pits lie, how sure they are, how often values recover, spurious steps, and mean curves of both classes."""
        sums = add_metrics(shards)
        plain = {k: v for k, v in sums.items() if "/" not in k}
        inner, tested = max(1, sums["pits"]), sums["checked"]
        return {
            **plain, "pit_place": round(sums["place/pits"] / inner, 4),
            "false_pit_rate": sums["false_pits"] / tested if tested else None,
            "value_of_checked_pits": sums["value/checked"] / tested if tested else None,
            "mean_curve_wrong": mean_curve(sums, "wrong"), "mean_curve_right": mean_curve(sums, "right"),
        }  # fmt: skip


def _roots(task: Task, shard: int) -> dict[str, Tally]:
    """By problem, its own samples as rollouts from the prompt."""
    verdicts: list[VerdictRow] = task.rows("verdicts", VerdictRow, [shard])
    outcomes: dict[str, list[str]] = {}
    for v in verdicts:
        outcomes.setdefault(v.problem, []).append(v.outcome)
    return {problem: tally(found) for problem, found in outcomes.items()}


def _sums(valued: Sequence[tuple[Chain, Curve, list[Step]]]) -> dict[str, float]:
    """Counts of one shard, and sums (names with a slash) that means are made of. `recovered` counts wrong samples with a
    success after their pit; `pits_first` and `pits_final` pits in the first and the last step."""
    sums: dict[str, float] = dict.fromkeys((
        "samples", "wrong", "right", "steps", "valued_steps", "pits", "pits_first", "pits_final", "recovered", "checked",
        "false_pits", "spurious", "spurious_samples", "place/pits", "value/checked",
    ), 0)  # fmt: skip

    def add(**values: float) -> None:
        for name, value in values.items():
            sums[name] = sums.get(name, 0) + value

    for c, found, steps in valued:
        kind, spurious = "right" if c.correct else "wrong", sum(s.spurious for s in steps)
        add(samples=1, steps=len(steps), spurious=spurious, spurious_samples=int(spurious > 0), **{kind: 1})
        add(valued_steps=sum(s.value is not None for s in steps), **curve_sums(found.values, kind))
        for pit in (s for s in steps if s.pit):
            add(pits=1, pits_first=int(pit.index == 0), pits_final=int(pit.final))
            add(recovered=int(any(s.successes for s in steps[pit.index + 1 :])))
            add(**{"place/pits": pit.index / max(1, len(steps) - 1)})
            if pit.check_rollouts:
                right = pit.check_successes or 0
                add(checked=1, false_pits=int(right > 0), **{"value/checked": right / pit.check_rollouts})
    return sums


register(StepsStage())
