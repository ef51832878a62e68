"""A tiny B-STaR run: problems whose answers are what the tiny model says most, four temperatures, three iterations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.runfolder import RunFolder
from pipelines.store import Artefact, planned
from tests.conftest import TinyRun, write_tiny_recipe

OVERRIDES = (
    "iterations={count: 3, scheme: bstar}", "sampling.n=6", "sampling.shard_size=4", "sampling.max_tokens=24",
    "training={adapter: full, steps: 4, batch_size: 4, checkpoint_every: 1, learning_rate: 1e-3, warmup_ratio: 0.1}",
    "balance={temperatures: [0.1, 0.5, 1.0, 1.5], thresholds: [-0.5, 0, 0.5], queries: 12, n_star: 2}",
    "balance.rounds=[0.25, 0.5, 1.0]",
    "selection={include_human: false, min_examples: 1}", "exploration={measure: true, k: [1, 4], s: [1, 2], examples: 5}",
    "evaluation.samples=4",
)  # fmt: skip


def bstar_recipe(path: Path, tiny_model: Path, tiny_run: TinyRun, *more: str) -> Path:
    """The recipe as a file, on the problems of `tiny_run`."""
    own = tiny_run.recipe.parent / "own.jsonl"
    return write_tiny_recipe(path, tiny_model, [f"data.train={{source: jsonl, path: {own}}}", *OVERRIDES, *more])


def artefact_of(folder: Path, label: str) -> Artefact:
    """The artefact of a stage of a finished run."""
    plan = RunFolder(folder).plan()
    stage = next(s for s in plan["stages"] if s["label"] == label)
    return planned(plan, stage)


def choice(folder: Path, label: str) -> dict[str, Any]:
    """`choice.json` of a balance or selection stage."""
    return json.loads((artefact_of(folder, label).path / "choice.json").read_text())
