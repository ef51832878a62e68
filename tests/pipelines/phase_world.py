"""A tiny run of four phases with different methods: human solutions, rejection sampling, pairs, reinforcement learning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from configs.load import apply_override
from tests.conftest import TinyRun

PHASES: list[dict[str, Any]] = [
    {"name": "sft", "selection": {"max_per_problem": 0, "include_human": True}},
    {"name": "rft", "iterations": {"count": 2}},
    {
        "name": "dpo", "sampling": {"temperature": 0.6}, "pairs": {"kind": "per_step", "per_step": {"variant": "full"}},
        "training": {"method": "dpo", "epochs": 4, "batch_size": 2},
    },
    {
        "name": "remax", "sampling": {"temperature": 0.6, "n": 4, "max_tokens": 16},
        "training": {"method": "remax", "rl": {"steps": 3}},
    },
]  # fmt: skip


def write_phase_recipe(path: Path, run: TinyRun, *overrides: str) -> Path:
    """The four phases on the problems and the model of `tiny_run`, with a validation set and a set for the end."""
    data = yaml.safe_load(run.recipe.read_text())
    own = data["data"]["train"]
    data |= {
        "name": path.stem, "phases": PHASES, "rewards": {"mode": "lenient"}, "selection": {},
        "data": {"train": own, "validation": 4},
        "training": {
            "adapter": "lora", "lora": {"r": 4}, "learning_rate": 1e-4, "epochs": 1, "batch_size": 4, "checkpoint_every": 1
        },
    }  # fmt: skip
    data["evaluation"]["benchmarks"] = [
        {"name": "held", "source": {"source": "validation"}},
        {"name": "words", "when": "end", "source": data["evaluation"]["benchmarks"][0]["source"]},
    ]
    for override in overrides:
        apply_override(data, override)
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path
