"""Training checkpoints: weights, optimiser, position and random state together, or not at all.

A checkpoint is a folder that gets its name by one rename after everything in it has reached the disk; a
half-written one keeps its temporary name and is deleted at the next start. Nothing is pickled: tensors are
safetensors, the rest is JSON.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

_PREFIX = "checkpoint-"
_SECONDS = 60.0  # between checkpoints at least
_SHARE = 20.0  # ... and that many times what the last one took


class SaveError(OSError):
    """Weights or a checkpoint could not be written; `errno` and `filename` as in OSError."""


@contextmanager
def saving(folder: Path) -> Iterator[Path]:
    """A new, empty folder to write into; it is removed again when the writing fails.

    Raises SaveError: safetensors tells of a full disk by an error of its own, with the number in its text.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        yield folder
    except (OSError, SafetensorError) as e:
        shutil.rmtree(folder, ignore_errors=True)
        found = re.search(r"os error (\d+)", str(e))
        number = e.errno if isinstance(e, OSError) else int(found.group(1)) if found else None
        raise SaveError(number or errno.EIO, str(e), str(folder)) from e


class Pace:
    """When a checkpoint is due: every so many steps, or with `auto` when a minute has passed in which saving took no more
    than a twentieth of the time. No result depends on it."""

    def __init__(self, every: int | str, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._clock = every, clock
        self._saved, self._cost = clock(), 0.0

    def due(self, done: int) -> bool:
        """After `done` steps."""
        if isinstance(self._every, int):
            return done % self._every == 0
        return self._clock() - self._saved >= max(_SECONDS, _SHARE * self._cost)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around the writing of a checkpoint: what it costs decides when the next one is due."""
        began = self._clock()
        yield
        self._saved = self._clock()
        self._cost = self._saved - began


def save_checkpoint(
    folder: Path,
    step: int,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    extra: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write checkpoint `step` (steps done) and drop the older ones. `extra`: further tensors of the method's own."""
    tensors = {f"parameter.{name}": p.detach().cpu().contiguous() for name, p in parameters.items()}
    for name, p in parameters.items():
        for field, value in optimizer.state[p].items():
            tensors[f"optimizer.{field}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    tensors |= {f"extra.{name}": t.detach().cpu().contiguous() for name, t in (extra or {}).items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    with saving(folder / f".{_PREFIX}{step}.tmp") as temporary:
        save_file(tensors, temporary / "state.safetensors")
        (temporary / "state.json").write_text(json.dumps({"step": step, **state}))
        for path in temporary.iterdir():
            _fsync(path)
        _fsync(temporary)
        os.rename(temporary, folder / f"{_PREFIX}{step}")
        _fsync(folder)
    for old in _complete(folder):
        if _step_of(old) < step:
            shutil.rmtree(old)


def load_checkpoint(
    folder: Path,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    extra: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, Any] | None:
    """Restore the latest complete checkpoint into `parameters`, `optimizer` and `extra`; its state, or None."""
    for leftover in folder.glob(f".{_PREFIX}*.tmp"):
        shutil.rmtree(leftover)
    complete = _complete(folder)
    if not complete:
        return None
    latest = max(complete, key=_step_of)
    tensors = load_file(latest / "state.safetensors")
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(tensors[f"parameter.{name}"])
        for name, t in (extra or {}).items():
            t.copy_(tensors[f"extra.{name}"])
    for name, p in parameters.items():
        suffix = f".{name}"
        for key, value in tensors.items():
            if key.startswith("optimizer.") and key.endswith(suffix):
                field = key[len("optimizer.") : -len(suffix)]
                if "." not in field:
                    if field == "step":  # a tensor in torch (with fused rules on the device), a number in bitsandbytes
                        step = value.to(p.device) if optimizer.param_groups[0].get("fused") else value
                        optimizer.state[p][field] = step if value.is_floating_point() else int(value)
                    else:
                        optimizer.state[p][field] = value.to(p.device)
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    return json.loads((latest / "state.json").read_text())


def _complete(folder: Path) -> list[Path]:
    return [p for p in folder.glob(f"{_PREFIX}*") if p.is_dir()]


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
