"""What a worker does: run shards of a task. The same function serves every executor."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from configs.errors import RatchetError
from pipelines.files import TORN, exclusively, write_json
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
            content = msgspec.to_builtins(result)
            if bad := list(_not_finite(content)):  # JSON has no word for them: the shard would count as done, but not be read
                raise RatchetError(
                    f"{task.label}, shard {shard}: {', '.join(bad)}: not finite, so the shard is not recorded as done. "
                    "Look for damaged weights, or a training that has diverged"
                )
            write_json(marker(task, shard), content)
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
    return [_read(marker(task, s)) for s in range(count)]


def _read(path: Path) -> ShardResult:
    try:
        return msgspec.json.decode(path.read_bytes(), type=ShardResult)
    except TORN as e:
        raise RatchetError(f"{path}: cannot be read ({e}); remove the file and resume: the shard is done again") from e


def _not_finite(value: Any, name: str = "") -> Iterator[str]:
    """Dotted names of the numbers that are NaN or infinite, with their values."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{name} = {value}"
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _not_finite(item, f"{name}.{key}" if name else str(key))


def rest() -> None:
    """Free the accelerator: sampling engines give back their memory until they are used again."""
    from pipelines.engines import rest_engine

    forget()
    rest_engine()
