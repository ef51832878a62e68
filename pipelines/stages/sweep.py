"""One round of the dev sweep: samples of some dev problems at every temperature that is still in the race.

Inputs: problems, optionally model, and from the second round on `before` (the balance artefact of the round before),
whose choice says which temperatures go on. A shard is one temperature and some problems.

The seed of a sample is derived from the run seed, the model, the problem and the index, not from the temperature or
the round: all temperatures draw with the same random numbers, which makes their differences less noisy, and the rounds
together draw what one round over all problems (the grid) would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configs.errors import InputError
from configs.keys import derive_seed
from configs.rows import Problem, Sample
from configs.schema import PromptSection
from data_gen.engine import Completion, Request
from data_gen.prompts import PromptEncoder
from pipelines.allocation import round_ends
from pipelines.balancing import dev_problems, read_choice
from pipelines.stage import Report, ShardResult, ShardRunner, Task, add_metrics, register
from pipelines.stages.edit import journalled
from pipelines.stages.sample import weights_of
from pipelines.store import write_rows


class SweepStage:
    """config: as of sampling, without a temperature; temperatures, queries, rounds, round (from 0)."""

    name, version, where, device = "sweep", 1, "workers", False

    def shards(self, task: Task) -> int:
        return len(_temperatures(task)) * _pieces(task, len(_round_problems(task)))

    def open(self, task: Task) -> ShardRunner:
        config = task.config
        problems, temperatures = _round_problems(task), _temperatures(task)
        pieces, size = _pieces(task, len(problems)), config["shard_size"]
        base, adapter = weights_of(task)
        encoder = PromptEncoder(base, PromptSection.model_validate(config["prompt"]))

        def run(shard: int, report: Report) -> ShardResult:
            temperature, piece = temperatures[shard // pieces], shard % pieces
            mine = problems[piece * size : (piece + 1) * size]
            requests = [_request(task, encoder, p, temperature) for p in mine]
            completions, timing = journalled(task, base, adapter, requests, shard, report)
            samples = [
                _sample(task, p, r, c) for p, r in zip(mine, requests, strict=True) for c in completions[r.id]
            ]  # fmt: skip
            write_rows(task.artefact.part(shard), samples, Sample)
            metrics = {
                "samples": len(samples), "tokens": sum(len(s.token_ids) for s in samples),
                "truncated": sum(s.finish_reason == "length" for s in samples),
            }
            return ShardResult(rows=len(samples), metrics=metrics, timing=timing)

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        total = add_metrics(shards)
        mean = round(total["tokens"] / total["samples"], 2)
        return {**total, "mean_tokens": mean, "temperatures": len(_temperatures(task))}


def _temperatures(task: Task) -> list[float]:
    return read_choice(task.input("before"))["alive"] if "before" in task.inputs else task.config["temperatures"]


def _round_problems(task: Task) -> list[Problem]:
    config = task.config
    problems = dev_problems(task.rows("problems", Problem), config)
    ends = (0, *round_ends(config["rounds"], len(problems)))
    return problems[ends[config["round"]] : ends[config["round"] + 1]]


def _pieces(task: Task, problems: int) -> int:
    return -(-problems // task.config["shard_size"])


def _request(task: Task, encoder: PromptEncoder, problem: Problem, temperature: float) -> Request:
    config = task.config
    ids = encoder.encode(problem.question, [tuple(s) for s in config["shots"]])
    if len(ids) + config["max_tokens"] > config["max_model_len"]:
        raise InputError(
            f"problem {problem.id}: its prompt of {len(ids)} tokens and sampling.max_tokens={config['max_tokens']} exceed "
            f"sampling.max_model_len={config['max_model_len']}"
        )
    return Request(
        id=f"{problem.id}@{temperature:g}", prompt_ids=ids, temperature=temperature, top_p=config["top_p"],
        max_tokens=config["max_tokens"],
        seeds=[derive_seed(config["seed"], "sweep", _model(task), problem.id, i) for i in range(config["n"])],
    )


def _model(task: Task) -> str:
    return task.inputs["model"][1] if "model" in task.inputs else task.config["model"]


def _sample(task: Task, problem: Problem, request: Request, c: Completion) -> Sample:
    return Sample(
        id=f"{request.id}#{c.index}", parents=[problem.id], stage="sweep", problem=problem.id, prompt_ids=request.prompt_ids,
        token_ids=c.token_ids, text=c.text, logprobs=c.logprobs, logprob=sum(c.logprobs), finish_reason=c.finish_reason,
        temperature=request.temperature, top_p=request.top_p, seed=c.seed, model=_model(task), adapter=task.config["adapter"],
    )


register(SweepStage())
