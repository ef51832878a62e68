"""`ratchet eval`: the recipe that evaluates one model on some benchmarks: a run without iterations."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from configs.load import apply_override, validate
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
    "knights": {"source": "knights", "split": "test", "limit": 200, "people": [2, 3]},
}


def evaluation_recipe(
    model: str, benchmarks: str, limit: int | None, iteration: int | None, overrides: Sequence[str]
) -> Recipe:
    """The recipe. For a run folder, all settings (prompt, engine, ...) are those of that run."""
    data, name = model_settings(model, iteration)
    data["name"] = recipe_name("eval", name)
    data["iterations"] = {"count": 0}
    data["data"] = {**data.get("data", {}), "fresh_per_iteration": False}
    data["evaluation"] = {**data.get("evaluation", {}), "initial": True, "benchmarks": _benchmarks(benchmarks, limit)}
    for override in overrides:
        apply_override(data, override)
    return validate(data, "the evaluation")


def model_settings(model: str, iteration: int | None) -> tuple[dict[str, Any], str]:
    """A recipe's data with this model, and a short name for it. For a run folder, the settings are those of that run."""
    if not is_run(model):
        if iteration is not None:
            raise ConfigError(f"--iteration needs a run folder; {model} is not one")
        return {"model": {"name": model}}, Path(model).name
    run = RunFolder.existing(Path(model)).recipe()
    if iteration is not None and not 0 <= iteration <= run.iterations.count:
        raise ConfigError(f"--iteration: {model} has iterations 0 to {run.iterations.count}, not {iteration}")
    data = run.model_dump(mode="json")
    number = run.iterations.count if iteration is None else iteration
    if number:
        data["model"]["name"] = run_reference(Path(model), number)
    return data, f"{Path(model).name}-{number}"


def recipe_name(what: str, model: str) -> str:
    """A name that can be a folder's."""
    return f"{what}-{re.sub(r'[^A-Za-z0-9.]+', '-', model).strip('-')}"


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
