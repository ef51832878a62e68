"""The sampling engine of this process: opened once, kept across stages, because starting one is slow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from data_gen.engine import Engine, EngineConfig, Reloading, open_engine
from pipelines.stage import Task

_UNREAD = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "_from_model_config")


class _Open:
    """An engine, what it was opened for, and the folder of the weights that it has (None: of no folder)."""

    def __init__(self, config: EngineConfig) -> None:
        self.config, self.engine, self.model = config, open_engine(config), config.model or None

    def serve(self, config: EngineConfig) -> bool:
        """Make the engine that of `config` without starting another one; False where that cannot be."""
        if msgspec.structs.replace(self.config, model=config.model) != config:
            return False
        if self.model == config.model:
            return True
        if not isinstance(self.engine, Reloading) or _nature(self.config.model) != _nature(config.model):
            return False
        self.engine.load(config.model)
        self.model = config.model
        return True


_current: _Open | None = None


def engine_config(task: Task, base: Path, sampling: Mapping[str, Any]) -> EngineConfig:
    """What a task that draws samples needs: `base` weights, and of its `sampling` settings engine, batch_size, max_model_len
    and stop."""
    return EngineConfig(
        kind=sampling["engine"], model=str(base), dtype=task.config["dtype"], batch_size=sampling["batch_size"],
        max_model_len=sampling["max_model_len"], gpu_memory=task.hints["gpu_memory"], stop=sampling["stop"],
        max_lora_rank=task.hints["lora_rank"], gpu_shared=task.hints["gpu_shared"],
    )


def engine_for(config: EngineConfig, threads: int) -> Engine:
    """The engine for `config`. One of another config is closed first; where only the weights differ, they are replaced."""
    global _current
    if config.kind == "transformers":
        import torch

        torch.set_num_threads(threads)  # each time: a training stage in between has its own number, and roundings follow it
    if _current is not None and not _current.serve(config):
        close_engine()
    if _current is None:
        _current = _Open(config)
    return _current.engine


def _nature(folder: str) -> list[object]:
    """All of a model but its weights: configuration, ends of completions, tokenizer."""
    found: list[object] = []
    for name in ("config.json", "generation_config.json"):
        path = Path(folder) / name
        content = json.loads(path.read_text()) if path.is_file() else {}
        found.append({k: v for k, v in content.items() if k not in _UNREAD})
    tokenizer = Path(folder) / "tokenizer.json"
    return [*found, tokenizer.read_bytes() if tokenizer.is_file() else None]


def forget_weights() -> None:
    """The open engine has been given weights of no folder: the next stage must load its own."""
    if _current is not None:
        _current.model = None


def rest_engine() -> None:
    """Let the engine, if any, give back accelerator memory."""
    if _current is not None:
        _current.engine.rest()


def close_engine() -> None:
    """Close the engine of this process."""
    global _current
    if _current is not None:
        _current.engine.close()
        _current = None
