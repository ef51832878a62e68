"""Per-step preference pairs. Inputs: problems, samples, verdicts, and rollouts and steps unless `full`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from configs.errors import RatchetError
from configs.keys import derive_seed
from configs.rows import Pair, Problem, Rollout, Sample, Step
from configs.schema import PromptSection
from data_gen.prompts import PromptEncoder
from data_gen.rollouts import Chosen
from data_gen.step_pairs import pit_pair, step_pair, whole_pair
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register
from pipelines.stages.rollouts import chosen_of
from pipelines.store import write_rows


class StepPairsStage:
    """config: variant, rollouts (the section), max_length, min_pairs, prompt, model, seed."""

    name, version, where, device = "step_pairs", 1, "driver", False

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        encoder = PromptEncoder(Path(task.paths["base"]), PromptSection.model_validate(task.config["prompt"]))

        def run(shard: int, report: Report) -> ShardResult:
            maker = _Maker(task, encoder)
            chosen: dict[str, Chosen] = {}
            pairs: list[Pair] = []
            for part in range(sum(name.startswith("part-") for name in task.input("samples").manifest()["files"])):
                mine = chosen_of(task, [part])
                pairs += maker.pairs(part, mine)
                chosen |= mine
            limit = task.config["max_length"]
            kept = [p for p in pairs if len(p.context_ids) + max(len(p.chosen_ids), len(p.rejected_ids)) <= limit]
            metrics = _metrics(kept, chosen) | dict(sorted(maker.left_out.items())) | {"too_long": len(pairs) - len(kept)}
            if len(kept) < task.config["min_pairs"]:
                raise RatchetError(
                    f"{task.label}: {len(kept)} pairs, fewer than pairs.min_pairs={task.config['min_pairs']}; {metrics}: "
                    "sample more problems or more solutions of each, or raise pairs.max_length"
                )
            write_rows(task.artefact.part(shard), kept, Pair)
            return ShardResult(rows=len(kept), metrics=metrics)

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return shards[0].metrics


class _Maker:
    """Makes the pairs of one shard of samples after another; `left_out` counts wrong samples without one, by reason."""

    def __init__(self, task: Task, encoder: PromptEncoder) -> None:
        self._task, self._encoder = task, encoder
        self._variant = task.config["variant"]
        self._problems: dict[str, Problem] = {p.id: p for p in task.rows("problems", Problem)}
        self._steps: dict[str, list[Step]] = {}
        self._rollouts: dict[str, list[Rollout]] = {}
        self.left_out: Counter[str] = Counter(without_contrast=0, without_pit=0)

    def pairs(self, part: int, chosen: Mapping[str, Chosen]) -> list[Pair]:
        """Those of the problems in one shard."""
        self._steps, self._rollouts = {}, {}
        if self._variant != "full":
            for s in self._task.rows("steps", Step, [part]):
                self._steps.setdefault(s.sample, []).append(s)
        if self._variant in ("step", "both"):
            for r in self._task.rows("rollouts", Rollout, [part]):
                self._rollouts.setdefault(r.prefix, []).append(r)
        made = []
        for problem, c in chosen.items():
            prompt = self._encoder.encode(self._problems[problem].question)
            made += [p for wrong in c.wrong for p in self._of(wrong, c.right, prompt)]
        return made

    def _of(self, wrong: Sample, right: Sequence[Sample], prompt: list[int]) -> list[Pair]:
        """The pairs of one wrong sample; each has a right one drawn for itself."""
        target = self._encoder.trimmed
        seed = derive_seed(self._task.config["seed"], "pairs", wrong.id)  # not the stage's: all variants take the same
        good = random.Random(seed).choice(right)
        if self._variant == "full":
            return [whole_pair(good, wrong, prompt, target)]
        steps = self._steps.get(wrong.id, [])
        pit = next((s for s in steps if s.pit), None)
        if pit is None:
            self.left_out["without_pit"] += 1
            return []
        found: list[Pair | None] = []
        make_pit = partial(pit_pair, good, wrong, steps, prompt, target)
        if self._variant != "step" or not pit.index:  # at the first step the prompt is all that the sides share
            found.append(make_pit())
        if self._variant != "pit" and pit.index:
            found.append(step_pair(wrong, steps, self._rollouts, prompt, target, seed))
        self.left_out["without_contrast"] += found.count(None)
        return [p for p in found if p is not None]


def _metrics(pairs: Sequence[Pair], chosen: dict[str, Chosen]) -> dict[str, Any]:
    """Yields by kind, problems used and dropped with the reason, mean lengths (a confounder of summed log-probabilities)."""
    count = max(1, len(pairs))
    sides = {"context": [p.context_ids for p in pairs], "chosen": [p.chosen_ids for p in pairs],
             "rejected": [p.rejected_ids for p in pairs]}  # fmt: skip
    lengths = {f"mean_{name}_tokens": round(sum(map(len, ids)) / count, 2) for name, ids in sides.items()}
    return {
        "pairs": len(pairs), "problems": len(chosen), "problems_used": len({p.problem for p in pairs}),
        "dropped": dict(sorted(Counter(c.dropped for c in chosen.values() if c.dropped).items())),
        "kinds": dict(Counter(p.kind for p in pairs)), **lengths,
        "length_ratio": round(lengths["mean_rejected_tokens"] / max(1.0, lengths["mean_chosen_tokens"]), 4),
        "rejected_eos": sum(p.rejected_eos for p in pairs),
    }  # fmt: skip


register(StepPairsStage())
