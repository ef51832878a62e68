"""The engine that a process keeps."""

from __future__ import annotations

from pathlib import Path

import torch

from data_gen.engine import EngineConfig
from pipelines.engines import close_engine, engine_for


def test_a_kept_engine_samples_with_the_threads_of_its_stage(tiny_model: Path) -> None:
    """Roundings follow the number of threads: a training in between must not leave its own behind."""
    before = torch.get_num_threads()
    config = EngineConfig(
        kind="transformers", model=str(tiny_model), dtype="float32", batch_size=8, max_model_len=64, gpu_memory=0.5
    )
    try:
        engine = engine_for(config, 1)
        torch.set_num_threads(2)
        assert engine_for(config, 1) is engine and torch.get_num_threads() == 1
    finally:
        close_engine()
        torch.set_num_threads(before)
