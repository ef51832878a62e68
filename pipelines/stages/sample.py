"""Sampling: n completions of every problem, journalled group by group.

Inputs: problems, and optionally model (a training artefact: a LoRA adapter or full weights), shots (problems with
solutions to show before each question, instead of the config's) and choice (a balance artefact). With `choice` the
temperature is the one that was found there: the key follows from the choice's key, so it is known before the
temperature is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from configs.errors import InputError
from configs.rows import Problem, Sample
from configs.schema import PromptSection
from data_gen.engine import Completion, Request
from data_gen.eval_prompts import shown
from data_gen.prompts import PromptEncoder, Shot
from pipelines.balancing import read_choice
from pipelines.engines import engine_config, engine_for
from pipelines.stage import Report, ShardResult, ShardRunner, Task, add_metrics, register
from pipelines.store import Journal, write_rows


class SampleStage:
    """config: model, dtype, engine, prompt, shots, temperature (null: the input's choice), top_p, n, max_tokens, stop,
    batch_size, shard_size, max_model_len, offset, count, adapter, seed."""

    name, version, where, device = "sample", 1, "workers", False

    def shards(self, task: Task) -> int:
        rows = task.input("problems").manifest()["rows"]
        count = min(task.config["count"] or rows, rows - task.config["offset"])
        if count <= 0:
            raise InputError(
                f"{task.label}: no problems left: there are {rows}, and this iteration begins at {task.config['offset']}; "
                "set data.train.limit to what the source has, or data.fresh_per_iteration=false"
            )
        return -(-count // task.config["shard_size"])

    def open(self, task: Task) -> ShardRunner:
        config = task.config
        problems: list[Problem] = task.rows("problems", Problem)[config["offset"] :]
        problems = problems[: config["count"]] if config["count"] else problems
        base, adapter = weights_of(task)
        temperature = _temperature(task)
        encoder = PromptEncoder(base, PromptSection.model_validate(config["prompt"]))
        shots = _shots(task)
        engine = engine_for(engine_config(task, base, config), task.hints["threads"])

        def run(shard: int, report: Report) -> ShardResult:
            size = config["shard_size"]
            mine = problems[shard * size : (shard + 1) * size]
            requests = [self._request(task, encoder, p, shots, temperature) for p in mine]
            journal = Journal(task.artefact.work / f"journal-{shard:05d}.jsonl")
            finished = [msgspec.convert(c, Completion) for group in journal.groups for c in group]
            done = {c.request for c in finished}
            resumed, began, tokens = len(finished), time.monotonic(), 0
            engine.set_adapter(adapter)
            for group in engine.generate(requests, done):
                journal.append(group)
                finished += group
                tokens += sum(len(c.token_ids) for c in group)
                report({"done": len(finished), "total": len(requests) * config["n"], "tokens": tokens})
            seconds = time.monotonic() - began
            journal.close()
            samples = _samples(task, requests, finished)
            write_rows(task.artefact.part(shard), samples, Sample)
            return _result(samples, tokens, seconds, resumed)

        return run

    def _request(
        self, task: Task, encoder: PromptEncoder, problem: Problem, shots: Sequence[Shot], temperature: float
    ) -> Request:
        config = task.config
        ids = encoder.encode(problem.question, shots)
        if len(ids) + config["max_tokens"] > config["max_model_len"]:
            raise InputError(
                f"problem {problem.id}: its prompt of {len(ids)} tokens and sampling.max_tokens="
                f"{config['max_tokens']} exceed sampling.max_model_len={config['max_model_len']}"
            )
        greedy = temperature == 0.0
        return Request(
            id=problem.id, prompt_ids=ids, temperature=temperature, top_p=config["top_p"],
            max_tokens=config["max_tokens"],
            seeds=[0 if greedy else task.seed(problem.id, i) for i in range(config["n"])],
        )

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        total = add_metrics(shards)
        return {**total, "mean_tokens": round(total["tokens"] / total["samples"], 2)}


def _shots(task: Task) -> list[Shot]:
    if "shots" in task.inputs:
        return [shown(p) for p in task.rows("shots", Problem)]
    return [(question, solution) for question, solution in task.config["shots"]]


def _temperature(task: Task) -> float:
    if "choice" in task.inputs:
        return read_choice(task.input("choice"))["point"]["temperature"]
    return task.config["temperature"]


def weights_of(task: Task) -> tuple[Path, Path | None]:
    """Folder of the base (or full) weights, and of the adapter on top of them."""
    if "model" not in task.inputs:
        return Path(task.paths["base"]), None
    trained = task.input("model").model
    return (trained, None) if task.config["adapter"] == "full" else (Path(task.paths["base"]), trained)


def _samples(task: Task, requests: Sequence[Request], completions: Sequence[Completion]) -> list[Sample]:
    """Rows in request order, then sample order."""
    config = task.config
    model = task.inputs["model"][1] if "model" in task.inputs else config["model"]
    by_place = {(c.request, c.index): c for c in completions}
    return [
        Sample(
            id=f"{r.id}#{i}", parents=[r.id], stage="sample", problem=r.id, prompt_ids=r.prompt_ids,
            token_ids=c.token_ids, text=c.text, logprobs=c.logprobs, logprob=sum(c.logprobs),
            finish_reason=c.finish_reason, temperature=r.temperature, top_p=r.top_p, seed=c.seed, model=model,
            adapter=config["adapter"],
        )
        for r in requests
        for i in range(len(r.seeds))
        for c in [by_place[r.id, i]]
    ]


def _result(samples: Sequence[Sample], tokens: int, seconds: float, resumed: int) -> ShardResult:
    return ShardResult(
        rows=len(samples),
        metrics={
            "samples": len(samples),
            "tokens": sum(len(s.token_ids) for s in samples),
            "prompt_tokens": sum(len(s.prompt_ids) for s in samples),
            "truncated": sum(s.finish_reason == "length" for s in samples),
        },
        timing={"generate_seconds": seconds, "generated_tokens": float(tokens), "resumed": float(resumed)},
    )


register(SampleStage())
