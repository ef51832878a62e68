"""Preference pairs in the composition of RISE. Inputs: problems, samples, verdicts, and edits unless `full_only`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import RatchetError
from configs.rows import Edit, Pair, Problem, Sample
from configs.schema import PromptSection
from data_gen.certify import KEPT
from data_gen.prompts import PromptEncoder
from data_gen.rise import Choice, edited_pair, full_pair, pick_edits
from pipelines.stage import Report, ShardResult, ShardRunner, Task, register
from pipelines.stages.edit import choices, edit_metrics
from pipelines.store import write_rows


class PairsStage:
    """config: kind, arm, samples, edits, without_wrong, truncated_negatives, max_length, min_pairs, prompt, model, seed."""

    name, version, where, device = "pairs", 1, "driver", False

    def shards(self, task: Task) -> int:
        return 1

    def open(self, task: Task) -> ShardRunner:
        encoder = PromptEncoder(Path(task.paths["base"]), PromptSection.model_validate(task.config["prompt"]))

        def run(shard: int, report: Report) -> ShardResult:
            problems: dict[str, Problem] = {p.id: p for p in task.rows("problems", Problem)}
            found = choices(task, problems)
            edits: list[Edit] = task.rows("edits", Edit) if "edits" in task.inputs else []
            pairs = _full(task, encoder, problems, found) + _edited(task, encoder, problems, found, edits)
            limit = task.config["max_length"]
            kept = [p for p in pairs if _length(p) <= limit]
            metrics = _metrics(kept, found, edits) | {"too_long": len(pairs) - len(kept)}
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


def _length(pair: Pair) -> int:
    return len(pair.context_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids))


def _full(task: Task, encoder: PromptEncoder, problems: dict[str, Problem], found: dict[str, Choice]) -> list[Pair]:
    """One pair of whole solutions for each problem with a right and a wrong one."""
    if task.config["arm"] == "edited_only":
        return []
    pairs = []
    for name, choice in found.items():
        if choice.chosen is not None and choice.rejected is not None:
            sides = [_target(encoder, s) for s in (choice.chosen, choice.rejected)]
            context = encoder.encode(problems[name].question)
            pairs.append(full_pair(problems[name], choice, context, *sides, end=encoder.tokenizer.eos_token_id))
    return pairs


def _target(encoder: PromptEncoder, sample: Sample) -> list[int]:
    """The solution's ids with its end token; a solution that was cut off has none."""
    return encoder.trimmed(sample.token_ids, sample.text) if sample.finish_reason == "stop" else list(sample.token_ids)


def _edited(
    task: Task, encoder: PromptEncoder, problems: dict[str, Problem], found: dict[str, Choice], edits: Sequence[Edit]
) -> list[Pair]:
    """At most `edits` certified edits of each problem against the steps that they were made from."""
    by_problem: dict[str, list[Edit]] = {}
    for e in edits:
        if e.outcome == KEPT:
            by_problem.setdefault(e.problem, []).append(e)
    pairs = []
    for picked in pick_edits(list(by_problem.values()), task.config["edits"], task.seed("edits")):
        sample = found[picked[0].problem].chosen
        assert sample is not None and all(e.sample == sample.id for e in picked), "edits are made of the chosen sample"
        prompt = encoder.encode(problems[sample.problem].question)
        solution = encoder.trimmed(sample.token_ids, sample.text)
        pairs += [edited_pair(e, prompt, solution, encoder.tokenizer.eos_token_id) for e in picked]
    return pairs


def _metrics(pairs: Sequence[Pair], found: dict[str, Choice], edits: Sequence[Edit]) -> dict[str, Any]:
    """Yields by kind and error, problems used and dropped with the reason, what became of all edits, mean lengths."""
    dropped = Counter(c.dropped for c in found.values() if c.dropped)
    outcomes = edit_metrics(Counter(f"{e.editor}/{e.error}/{e.outcome}" for e in edits))
    count = max(1, len(pairs))
    return {
        "pairs": len(pairs), "problems": len(found), "problems_used": len({p.problem for p in pairs}),
        "dropped": dict(sorted(dropped.items())), "kinds": dict(Counter(p.kind for p in pairs)),
        "errors": dict(sorted(Counter(p.error for p in pairs if p.error).items())),
        "edit_outcomes": outcomes["outcomes"], "edits_by_error": outcomes["by_error"], "edits_by_editor": outcomes["by_editor"],
        "chosen_eos": sum(p.chosen_eos for p in pairs) / count, "rejected_eos": sum(p.rejected_eos for p in pairs) / count,
        "mean_context_tokens": round(sum(len(p.context_ids) for p in pairs) / count, 2),
        "mean_chosen_tokens": round(sum(len(p.chosen_ids) for p in pairs) / count, 2),
        "mean_rejected_tokens": round(sum(len(p.rejected_ids) for p in pairs) / count, 2),
    }  # fmt: skip


register(PairsStage())
