"""`ratchet eval`: the recipe that evaluates one model on some benchmarks: a run without iterations."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from configs.load import apply_override, validate
from configs.phases import phases_of
from configs.rows import Sample
from configs.schema import Recipe
from data_gen.prompts import PromptEncoder
from pipelines.models import is_run, run_reference
from pipelines.plan import Plan
from pipelines.runfolder import RunFolder
from pipelines.store import Store, read_rows

NAMED: dict[str, dict[str, Any]] = {
    "gsm8k": {"source": "gsm8k", "split": "test"},
    "math500": {"source": "math500", "split": "test"},
    "procedural": {"source": "procedural", "split": "test", "limit": 200, "levels": [1, 2, 3], "max_number": 20},
}


def evaluation_recipe(
    model: str, benchmarks: str, limit: int | None, iteration: int | None, overrides: Sequence[str]
) -> Recipe:
    """The recipe. For a run folder, all settings (prompt, engine, ...) are those of that run."""
    data: dict[str, Any] = {"model": {"name": model}}
    name = Path(model).name
    if is_run(model):
        run = RunFolder.existing(Path(model)).recipe()
        count = sum(phase.iterations.count for _, phase in phases_of(run))
        if iteration is not None and not 0 <= iteration <= count:
            raise ConfigError(f"--iteration: {model} has iterations 0 to {count}, not {iteration}")
        data = run.model_dump(mode="json")
        number = count if iteration is None else iteration
        if number:
            data["model"]["name"] = run_reference(Path(model), number)
        name = f"{name}-{number}"
    elif iteration is not None:
        raise ConfigError(f"--iteration needs a run folder; {model} is not one")
    data["name"] = f"eval-{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-')}"
    data["iterations"], data["phases"] = {"count": 0}, []
    data["data"] = {**data.get("data", {}), "fresh_per_iteration": False}
    data["evaluation"] = {**data.get("evaluation", {}), "initial": True, "benchmarks": _benchmarks(benchmarks, limit)}
    for override in overrides:
        apply_override(data, override)
    return validate(data, "the evaluation")


def shown_prompt(plan: Plan, store: Store) -> str:
    """The exact prompt of the first problem, for the record."""
    stage = next(s for s in plan.stages if s.kind == "sample")
    sample: Sample = read_rows(store.artefact(stage.kind, stage.key), Sample, [0])[0]
    encoder = PromptEncoder(plan.model.path, plan.recipe.data.prompt)
    return encoder.tokenizer.decode(sample.prompt_ids)


def _benchmarks(names: str, limit: int | None) -> list[dict[str, Any]]:
    wanted = []
    for name in (n.strip() for n in names.split(",")):
        if name not in NAMED:
            near = difflib.get_close_matches(name, NAMED, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise ConfigError(f"--benchmarks: unknown `{name}`{hint} There are: {', '.join(NAMED)}")
        source = NAMED[name] | ({"limit": limit} if limit is not None else {})
        wanted.append({"name": name, "source": source})
    return wanted
