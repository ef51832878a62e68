"""Rollouts decide on undecided edits, in the shards of the edits. Inputs: problems, samples, edits, optionally model.

From the solution up to and with the step, original and edited, the model goes on a number of times; the edit is kept
when it is right less often from the edited step. Other edits pass through unchanged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from configs.rows import Edit, Problem, Sample
from configs.schema import PromptSection
from data_gen.certify import KEPT, UNDECIDED, by_rollouts
from data_gen.engine import Completion, Request
from data_gen.prompts import PromptEncoder
from data_gen.steps import decode
from pipelines.journalled import journalled
from pipelines.stage import Report, ShardResult, ShardRunner, Task, add_metrics, register
from pipelines.stages.edit import edit_metrics
from pipelines.stages.sample import weights_of
from pipelines.store import write_rows
from rewards import verify

_LEAST_TOKENS = 16


class EditRolloutsStage:
    """config: rollouts, significance, temperature, top_p, max_tokens, mode, timeout, prompt, model, dtype, engine,
    batch_size, max_model_len, stop, adapter, seed."""

    name, version, where, device = "edit_rollouts", 1, "workers", False

    def shards(self, task: Task) -> int:
        return sum(name.startswith("part-") for name in task.input("edits").manifest()["files"])

    def open(self, task: Task) -> ShardRunner:
        problems: dict[str, Problem] = {p.id: p for p in task.rows("problems", Problem)}
        samples: dict[str, Sample] = {s.id: s for s in task.rows("samples", Sample)}
        base, adapter = weights_of(task)
        encoder = PromptEncoder(base, PromptSection.model_validate(task.config["prompt"]))

        def run(shard: int, report: Report) -> ShardResult:
            edits: list[Edit] = task.rows("edits", Edit, [shard])
            # After the last step there is nothing to go on with: its answer has decided, or nothing does.
            open_ = [e for e in edits if e.outcome == UNDECIDED and not e.last]
            prefixes = _prefixes(encoder, open_, samples)
            requests = [r for name, (sample, ids) in prefixes.items() if (r := _request(task, name, samples[sample], ids))]
            texts, timing = journalled(task, base, adapter, requests, shard, report)
            wins = {
                name: _successes(task, encoder, problems[samples[sample].problem], ids, texts[name])
                for name, (sample, ids) in prefixes.items() if name in texts
            }  # fmt: skip
            rows = [_decided(task, e, wins) if e.outcome == UNDECIDED else e for e in edits]
            write_rows(task.artefact.part(shard), rows, Edit)
            counts = Counter(f"{e.editor}/{e.error}/{e.outcome}" for e in rows)
            return ShardResult(rows=len(rows), metrics={"prefixes": len(requests), **counts}, timing=timing)

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        return edit_metrics(add_metrics(shards))


def _original(edit: Edit) -> str:
    return f"{edit.sample}/s{edit.step}/original"


def _prefixes(encoder: PromptEncoder, edits: Sequence[Edit], samples: Mapping[str, Sample]) -> dict[str, tuple[str, list[int]]]:
    """By name, the sample and the solution's ids up to and with a step: once as it was, once for each edit."""
    found: dict[str, tuple[str, list[int]]] = {}
    for e in edits:
        ids = encoder.trimmed(samples[e.sample].token_ids, samples[e.sample].text)
        found[_original(e)] = (e.sample, ids[: e.end])
        found[e.id] = (e.sample, [*ids[: e.start], *e.token_ids])
    return found


def _request(task: Task, name: str, sample: Sample, ids: Sequence[int]) -> Request | None:
    """Continuations after the prompt that the sample was drawn with; None where they do not fit the context."""
    config = task.config
    prompt = [*sample.prompt_ids, *ids]
    room = min(max(_LEAST_TOKENS, config["max_tokens"] - len(ids)), config["max_model_len"] - len(prompt))
    if room < _LEAST_TOKENS:
        return None
    return Request(
        id=name, prompt_ids=prompt, seeds=[task.seed(name, i) for i in range(config["rollouts"])],
        temperature=config["temperature"], top_p=config["top_p"], max_tokens=room,
    )


def _successes(
    task: Task, encoder: PromptEncoder, problem: Problem, ids: Sequence[int], completions: Sequence[Completion]
) -> tuple[int, int]:
    """(right, all) continuations; one that was cut off is not right."""
    prefix = decode(encoder.tokenizer, ids)
    mode, timeout = task.config["mode"], task.config["timeout"]
    right = sum(
        c.finish_reason == "stop" and verify(prefix + c.text, problem.answer, mode=mode, timeout=timeout).correct
        for c in completions
    )
    return right, len(completions)


def _decided(task: Task, edit: Edit, wins: Mapping[str, tuple[int, int]]) -> Edit:
    """The edit with the rollouts' word on it; still undecided where there were none."""
    if edit.id not in wins or _original(edit) not in wins:
        return edit
    certificate = by_rollouts(wins[_original(edit)], wins[edit.id], task.config["significance"])
    return msgspec.structs.replace(edit, outcome=KEPT if certificate else "rollouts", certificate=certificate)


register(EditRolloutsStage())
