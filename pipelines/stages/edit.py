"""Edited steps of right solutions, in the shards of the samples. Inputs: problems, samples, verdicts, optionally model.

The self editor's completions are journalled as sampling's are; the programmatic editor needs no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from configs.keys import derive_seed
from configs.rows import Edit, Problem, Sample, VerdictRow
from configs.schema import PromptSection
from data_gen.attempts import (
    Attempt,
    Counts,
    edit_request,
    plan_attempts,
    programmatic_rows,
    prompt_form,
    self_edit,
)  # fmt: skip
from data_gen.certify import KEPT
from data_gen.edit_prompts import FENCE, prompt_section
from data_gen.engine import Completion, Request
from data_gen.prompts import PromptEncoder
from data_gen.rise import Choice, choose
from pipelines.journalled import journalled
from pipelines.stage import Report, ShardResult, ShardRunner, Task, add_metrics, register
from pipelines.stages.sample import weights_of
from pipelines.store import write_rows

_TOKENS_STEP = 32  # lengths of edits are rounded up to it, so that requests share batches


class EditStage:
    """config: editor, attempts, errors, form, temperature, distance, certify, samples, without_wrong, truncated_negatives,
    prompt, model, dtype, engine, batch_size, max_model_len, stop, adapter, seed."""

    name, version, where, device = "edit", 1, "workers", False

    def shards(self, task: Task) -> int:
        return sum(name.startswith("part-") for name in task.input("samples").manifest()["files"])

    def open(self, task: Task) -> ShardRunner:
        config = task.config
        problems: dict[str, Problem] = {p.id: p for p in task.rows("problems", Problem)}
        base, _ = weights_of(task)
        encoder = PromptEncoder(base, PromptSection.model_validate(config["prompt"]))

        def run(shard: int, report: Report) -> ShardResult:
            attempts: list[Attempt] = []
            steps: Counter[str] = Counter()
            for problem, choice in choices(task, problems, [shard]).items():
                steps["problems"] += 1
                if choice.chosen is None:
                    steps[f"dropped/{choice.dropped}"] += 1
                    continue
                found, counts = _attempts(task, encoder, problems[problem], choice.chosen)
                attempts += found
                steps.update(msgspec.to_builtins(counts))
            edits: list[Edit] = []
            timing: dict[str, float] = {}
            if config["editor"] != "programmatic":
                edits, timing = _self_edits(task, encoder, attempts, shard, report)
            if config["editor"] != "self":
                done = {e.id.rpartition("/")[0] for e in edits if e.outcome == KEPT}
                for a in (a for a in attempts if a.id not in done):
                    edits += programmatic_rows(encoder.tokenizer, a, config["distance"], config["certify"])
            write_rows(task.artefact.part(shard), edits, Edit)
            by_kind = Counter(f"{e.editor}/{e.error}/{e.outcome}" for e in edits)
            return ShardResult(rows=len(edits), metrics={**steps, **by_kind}, timing=timing)

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        """Steps looked at, and edits by outcome: in all, by editor, and by error and outcome."""
        return edit_metrics(add_metrics(shards))


def edit_metrics(counts: dict[str, int]) -> dict[str, Any]:
    """Counts named editor/error/outcome, summed up; the others as they are."""
    rows = {tuple(k.split("/")): v for k, v in counts.items() if k.count("/") == 2}
    outcomes: Counter[str] = Counter()
    editors: dict[str, Counter[str]] = {}
    errors: dict[str, Counter[str]] = {}
    for (editor, error, outcome), count in sorted(rows.items()):
        outcomes[outcome] += count
        editors.setdefault(editor, Counter())[outcome] += count
        errors.setdefault(error, Counter())[outcome] += count
    plain = {k: v for k, v in sorted(counts.items()) if k.count("/") != 2}
    return {
        **plain, "edits": sum(outcomes.values()), "kept": outcomes.get(KEPT, 0), "outcomes": dict(outcomes),
        "by_editor": {k: dict(v) for k, v in editors.items()}, "by_error": {k: dict(v) for k, v in errors.items()},
    }


def choices(task: Task, problems: dict[str, Problem], shards: Sequence[int] | None = None) -> dict[str, Choice]:
    """What each sampled problem contributes, by its id; the same in every stage that reads the same samples."""
    config = task.config
    by_problem: dict[str, list[Sample]] = {}
    for sample in task.rows("samples", Sample, shards):
        by_problem.setdefault(sample.problem, []).append(sample)
    verdicts: list[VerdictRow] = task.rows("verdicts", VerdictRow, shards)
    outcomes = {v.sample: v.outcome for v in verdicts}
    return {
        p: choose(
            problems[p], samples[: config["samples"]], outcomes, derive_seed(config["seed"], task.inputs["samples"][1], p),
            without_wrong=config["without_wrong"], truncated_negatives=config["truncated_negatives"],
        )
        for p, samples in by_problem.items()
    }


def _attempts(task: Task, encoder: PromptEncoder, problem: Problem, sample: Sample) -> tuple[list[Attempt], Counts]:
    config = task.config
    return plan_attempts(
        encoder.tokenizer, problem, sample, encoder.trimmed(sample.token_ids, sample.text), errors=config["errors"],
        limit=config["attempts"], certify=config["certify"], seed=task.seed(sample.id),
    )


def _self_edits(
    task: Task, encoder: PromptEncoder, attempts: Sequence[Attempt], shard: int, report: Report
) -> tuple[list[Edit], dict[str, float]]:
    """One completion for each attempt, journalled, and what it is worth."""
    config = task.config
    base, adapter = weights_of(task)
    form = prompt_form(config["form"], base)
    asking = PromptEncoder(base, prompt_section(form, encoder.section))
    requests = []
    for a in attempts:
        ids = asking.encode(edit_request(a, form))
        length = a.span.end - a.span.start
        length = _TOKENS_STEP * -(-(length + length // 2 + 8) // _TOKENS_STEP)
        if len(ids) + length <= config["max_model_len"]:  # a longer one counts as unparsed
            seeds = [a.seed if config["temperature"] else 0]
            requests.append(Request(
                id=a.id, prompt_ids=ids, seeds=seeds, temperature=config["temperature"], top_p=1.0, max_tokens=length
            ))  # fmt: skip
    texts, timing = journalled(task, base, adapter, requests, shard, report)
    answers = {name: _closed(completions[0]) for name, completions in texts.items()}
    edits = [self_edit(encoder.tokenizer, a, answers.get(a.id, ""), config["distance"], config["certify"]) for a in attempts]
    return edits, timing


def _closed(completion: Completion) -> str:
    """The text, its fence closed where the model ended without closing it: then it is whole."""
    return completion.text + (f"\n{FENCE}" if completion.finish_reason == "stop" else "")


register(EditStage())
