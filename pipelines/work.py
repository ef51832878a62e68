"""What a worker does: run shards of a task. The same function serves every executor."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from pipelines.files import exclusively, write_json
from pipelines.hardware import Peaks
from pipelines.stage import ShardResult, ShardRunner, Task, kinds
from pipelines.store import Progress

_opened: tuple[Task, ShardRunner] | None = None


def run_shard(task: Task, shard: int) -> None:
    """Run one shard and leave its marker in the work folder, written after the shard's files."""
    global _opened
    if _opened is None or _opened[0] != task:
        _opened = None  # let go of the last stage's rows before loading this one's
        _opened = (task, kinds()[task.kind].open(task))
    began = time.monotonic()
    progress = Progress(task.artefact.work / f"progress-{shard:05d}.json")
    # A worker of a run that was killed may outlive it for a moment: it must be gone before its shard is taken over.
    with exclusively(task.artefact.work / f"lock-{shard:05d}"):
        if not marker(task, shard).is_file():
            peaks = Peaks()
            result = _opened[1](shard, progress)
            result.timing.setdefault("seconds", time.monotonic() - began)
            result.timing |= peaks.read()
            write_json(marker(task, shard), msgspec.to_builtins(result))
    progress.path.unlink(missing_ok=True)


def forget() -> None:
    """Drop what the last stage holds."""
    global _opened
    _opened = None


def marker(task: Task, shard: int) -> Path:
    """The file that says that a shard is complete, and its result."""
    return task.artefact.work / f"shard-{shard:05d}.json"


def missing_shards(task: Task, count: int) -> list[int]:
    """Shards that have no marker yet."""
    return [s for s in range(count) if not marker(task, s).is_file()]


def shard_results(task: Task, count: int) -> list[ShardResult]:
    """Results of all shards, in order."""
    return [msgspec.json.decode(marker(task, s).read_bytes(), type=ShardResult) for s in range(count)]


def rest() -> None:
    """Free the accelerator: sampling engines give back their memory until they are used again."""
    from pipelines.engines import rest_engine

    forget()
    rest_engine()
