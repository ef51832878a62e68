"""The sampling engine of this process: opened once, kept across stages, because starting one is slow."""

from __future__ import annotations

import logging

from data_gen.engine import Engine, EngineConfig, open_engine

log = logging.getLogger(__name__)
_current: tuple[EngineConfig, Engine] | None = None


def engine_for(config: EngineConfig, threads: int) -> Engine:
    """The engine for `config`; one of another config is closed first."""
    global _current
    if config.kind == "transformers":
        import torch

        torch.set_num_threads(threads)  # each time: a training stage in between has its own number, and roundings follow it
    if _current is not None and _current[0] != config:
        _current[1].close()
        _current = None
    if _current is None:
        _current = (config, open_engine(config))
    return _current[1]


def rest_engine() -> None:
    """Let the engine, if any, give back accelerator memory."""
    if _current is not None:
        _current[1].rest()


def close_engine() -> None:
    """Close the engine of this process."""
    global _current
    if _current is not None:
        _current[1].close()
        _current = None
