"""A small world for the stages of pairs: problems, samples and verdicts in a store, and stages run one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.rows import Problem, Row, Sample, VerdictRow
from configs.schema import PromptSection
from data_gen.prompts import PromptEncoder
from data_gen.steps import decode
from pipelines import work
from pipelines.stage import Stage, kinds, task_of
from pipelines.store import Artefact, Store, read_rows, write_rows
from rewards import verify

PROMPT = PromptSection(style="chat").model_dump()


def sample(encoder: PromptEncoder, problem: Problem, index: int, text: str, finish: str = "stop") -> Sample:
    """A sample whose ids are the text's own encoding; with `finish` "length" it has no end token."""
    ids = encoder.completion_ids(text)[: None if finish == "stop" else -1]
    assert decode(encoder.tokenizer, ids) == text
    return Sample(
        id=f"{problem.id}#{index}", parents=[problem.id], stage="sample", problem=problem.id,
        prompt_ids=encoder.encode(problem.question), token_ids=ids, text=text, logprobs=[0.0] * len(ids), logprob=0.0,
        finish_reason=finish, temperature=1.0, top_p=1.0, seed=0, model="m",
    )


def verdict(s: Sample, gold: str) -> VerdictRow:
    outcome = verify(s.text, gold).outcome
    return VerdictRow(
        id=f"{s.id}/verdict", parents=[s.id], stage="verify", sample=s.id, problem=s.problem, outcome=outcome,
        extracted=None, detail="",
    )


class World:
    """A store with the three inputs that the stages of pairs read, in shards of `size` problems."""

    def __init__(self, root: Path, base: Path, solutions: Sequence[tuple[Problem, Sequence[tuple[str, str]]]], size: int = 64):
        self.store, self.base = Store(root), base
        self.encoder = PromptEncoder(base, PromptSection.model_validate(PROMPT))
        problems = [p for p, _ in solutions]
        shards = [solutions[i : i + size] for i in range(0, len(solutions), size)]
        samples = [[sample(self.encoder, p, i, *t) for p, texts in shard for i, t in enumerate(texts)] for shard in shards]
        golds = {p.id: p.answer for p in problems}
        verdicts = [[verdict(s, golds[s.problem]) for s in shard] for shard in samples]
        self.inputs = {
            "problems": self.given("problems", Problem, [problems]), "samples": self.given("sample", Sample, samples),
            "verdicts": self.given("verify", VerdictRow, verdicts),
        }

    def given(self, kind: str, row: type[Row], shards: Sequence[Sequence[Row]]) -> Stage:
        """A finished artefact with these rows."""
        stage = Stage(kind, kind, {}, given_key=f"given{len(self.store.manifests(kind))}")
        artefact = self.store.artefact(kind, stage.key)
        for number, rows in enumerate(shards):
            write_rows(artefact.part(number), rows, row)
        self.store.finish(artefact, {"rows": sum(map(len, shards)), "metrics": {}})
        return stage

    def run(self, stage: Stage) -> tuple[Artefact, dict[str, Any]]:
        """Run a stage to its end; its artefact and metrics."""
        task, kind = task_of(stage, self.store), kinds()[stage.kind]
        work.forget()
        count = kind.shards(task)
        for shard in range(count):
            work.run_shard(task, shard)
        metrics = kind.metrics(task, work.shard_results(task, count))
        self.store.finish(task.artefact, {"rows": 0, "metrics": metrics})
        return task.artefact, metrics

    def edit(self, **settings: Any) -> Stage:
        config = {
            "editor": "programmatic", "attempts": 8, "form": "few_shot", "temperature": 0.0, "distance": 0.5,
            "certify": "arithmetic", "samples": 5, "without_wrong": False, "truncated_negatives": False,
            "errors": ["change_value", "change_values", "wrong_substitution", "drop_term", "change_operator", "swap_terms",
                       "misread"],
            "prompt": PROMPT, "model": "m", "dtype": "float32", "engine": "transformers", "batch_size": 32,
            "max_model_len": 2048, "stop": [], "adapter": None, "seed": 3, **settings,
        }  # fmt: skip
        return Stage("edit", "edit", config, self.inputs, {"base": str(self.base)}, HINTS)

    def rollouts(self, edits: Stage, **settings: Any) -> Stage:
        config = {
            "rollouts": 4, "significance": 0.5, "temperature": 1.0, "top_p": 1.0, "max_tokens": 48, "mode": "lenient",
            "timeout": 1.0, "prompt": PROMPT, "model": "m", "dtype": "float32", "engine": "transformers", "batch_size": 32,
            "max_model_len": 2048, "stop": [], "adapter": None, "seed": 3, **settings,
        }
        inputs = {k: self.inputs[k] for k in ("problems", "samples")} | {"edits": edits}
        return Stage("edit_rollouts", "rollouts", config, inputs, {"base": str(self.base)}, HINTS)

    def pairs(self, made: Stage | None, **settings: Any) -> Stage:
        config = {
            "kind": "rise", "arm": "both", "samples": 5, "edits": 1, "without_wrong": False, "truncated_negatives": False,
            "max_length": 1024, "min_pairs": 1, "prompt": PROMPT, "model": "m", "seed": 3, **settings,
        }
        inputs = self.inputs | ({"edits": made} if made else {})
        return Stage("pairs", "pairs", config, inputs, {"base": str(self.base)})

    def rows(self, artefact: Artefact, row: type[Row]) -> list[Any]:
        return read_rows(artefact, row)


HINTS = {"threads": 1, "gpu_memory": 0.5, "gpu_shared": False, "lora_rank": 0}
