"""A task that a tiny model can learn by reinforcement in seconds: four questions, all answered by the same digit.

The model starts from supervised training on every digit for every question: it answers with one digit and is right
by chance, one time in ten. Or it answers in two lines, of which the second is the answer and more often than not a copy
of the first: two steps, of which the first decides most.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from configs.load import apply_override
from configs.rows import Example
from configs.schema import TrainingSection

QUESTIONS = [f"{letter}?" for letter in "akqz"]
TWO_LINES = [f"{a}\n{b}" for a in "279" for b in "279" + 3 * a]


def make_guesser(tiny_model: Path, folder: Path, answers: Sequence[str] = "0123456789") -> Path:
    """Folder of the model that guesses one of `answers`."""
    from transformers import AutoTokenizer

    from trainers.loop import train
    from trainers.sft import SupervisedFineTuning

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    examples = [
        Example(
            id=f"{q}{i}", parents=[], stage="select", problem=q, prompt_ids=tokenizer(f"{q}\n")["input_ids"],
            token_ids=[*tokenizer(answer)["input_ids"], tokenizer.eos_token_id], text="", kind="human",
        )
        for q in QUESTIONS
        for i, answer in enumerate(answers)
    ]
    settings = TrainingSection.model_validate(
        {"adapter": "full", "learning_rate": 3e-3, "epochs": 60, "batch_size": 4 * len(answers), "warmup_ratio": 0.0}
    )
    train(
        SupervisedFineTuning(examples, settings, 0), settings, base=tiny_model, dtype="float32", start=None, seed=0,
        work=folder.parent / "work", output=folder, report=lambda _: None,
    )
    return folder


def write_digits_recipe(path: Path, model: Path, *overrides: str) -> Path:
    """A recipe that trains `model` online on the digits, greedy accuracy measured at the end."""
    rows = path.with_suffix(".jsonl")
    rows.write_text("".join(json.dumps({"id": q, "question": q, "answer": "7"}) + "\n" for q in QUESTIONS))
    source = {"source": "jsonl", "path": str(rows)}
    data: dict[str, Any] = {
        "name": path.stem,
        "model": {"name": str(model), "dtype": "float32"},
        "data": {"train": source, "prompt": {"style": "plain"}, "decontaminate": False},
        "sampling": {"engine": "transformers", "n": 8, "max_tokens": 4},
        "training": {
            "method": "remax", "lora": {"r": 8}, "learning_rate": 2e-3, "schedule": "constant", "warmup_ratio": 0.0,
            "batch_size": 4, "checkpoint_every": 10, "rl": {"steps": 30},
        },
        "evaluation": {"benchmarks": [{"name": "digits", "source": source}], "initial": False},
        "iterations": {"count": 1},
        "executor": {"threads": 1},
    }
    for override in overrides:
        apply_override(data, override)
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path
