"""Completions of a shard's requests, journalled as they finish, so that a kill loses at most what is in flight."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from data_gen.engine import Completion, Request
from pipelines.engines import engine_config, engine_for
from pipelines.stage import Report, Task
from pipelines.store import Journal


class Generation:
    """One shard's work with the engine, in one round or several that share a journal.

    A resumed shard must ask for the same requests in the same rounds. Without `logprobs` the completions have none.
    """

    def __init__(
        self, task: Task, base: Path, adapter: Path | None, shard: int, report: Report, *, logprobs: bool = True
    ) -> None:
        self._task, self._base, self._adapter, self._report, self._logprobs = task, base, adapter, report, logprobs
        self._journal = Journal(task.artefact.work / f"journal-{shard:05d}.jsonl")
        self._finished: dict[str, list[Completion]] = {}
        for group in self._journal.groups:
            self._keep([msgspec.convert(c, Completion) for c in group])
        self.timing: dict[str, float] = {
            "generate_seconds": 0.0, "generated_tokens": 0.0, "resumed": float(sum(map(len, self._finished.values()))),
            "prompt_tokens": 0.0, "cached_prompt_tokens": 0.0,
        }

    def _keep(self, group: Sequence[Completion]) -> None:
        for c in group:
            self._finished.setdefault(c.request, []).append(c)

    def draw(self, requests: Sequence[Request], total: int | None = None) -> dict[str, list[Completion]]:
        """Completions by request id, in order of their index. `total` is the number expected of all rounds, for progress."""
        if any(len(self._finished.get(r.id, ())) < len(r.seeds) for r in requests):
            self._generate(requests, total or sum(len(r.seeds) for r in requests))
        return {r.id: sorted(self._finished[r.id], key=lambda c: c.index) for r in requests}

    def _generate(self, requests: Sequence[Request], total: int) -> None:
        engine = engine_for(engine_config(self._task, self._base, self._task.config), self._task.hints["threads"])
        engine.set_adapter(self._adapter)
        began = time.monotonic()
        before = getattr(engine, "prefill", (0, 0))  # of engines that can tell
        for group in engine.generate(requests, set(self._finished)):
            kept = group if self._logprobs else [msgspec.structs.replace(c, logprobs=[]) for c in group]
            self._journal.append(kept)
            self._keep(kept)
            self.timing["generated_tokens"] += sum(len(c.token_ids) for c in group)
            done = sum(map(len, self._finished.values()))
            self._report({"done": done, "total": max(done, total), "tokens": self.timing["generated_tokens"]})
        after = getattr(engine, "prefill", (0, 0))
        self.timing["prompt_tokens"] += after[0] - before[0]
        self.timing["cached_prompt_tokens"] += after[1] - before[1]
        self.timing["generate_seconds"] += time.monotonic() - began

    def close(self) -> None:
        self._journal.close()


def journalled(
    task: Task, base: Path, adapter: Path | None, requests: Sequence[Request], shard: int, report: Report
) -> tuple[dict[str, list[Completion]], dict[str, float]]:
    """One round of a shard: completions by request id, in order of their index, and timing."""
    generation = Generation(task, base, adapter, shard, report)
    completions = generation.draw(requests)
    generation.close()
    return completions, generation.timing
