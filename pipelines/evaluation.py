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
from configs.reward_section import RewardModelSection
from configs.schema import Recipe
from pipelines.models import is_run, run_reference
from pipelines.runfolder import RunFolder

NAMED: dict[str, dict[str, Any]] = {
    "gsm8k": {"source": "gsm8k", "split": "test"},
    "math": {"source": "math", "split": "test"},
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
    return measuring(data, benchmark_sources(benchmarks, limit), overrides, "the evaluation")


def measuring(data: dict[str, Any], benchmarks: list[dict[str, Any]], overrides: Sequence[str], where: str) -> Recipe:
    """The recipe with these settings that trains nothing and measures its model on `benchmarks`. `where`: for errors."""
    data["iterations"], data["phases"] = {"count": 0}, []
    data["data"] = {**data.get("data", {}), "fresh_per_iteration": False}
    data["evaluation"] = {**data.get("evaluation", {}), "initial": True, "benchmarks": benchmarks}
    for override in overrides:
        apply_override(data, override)
    return validate(data, where)


def model_settings(model: str, iteration: int | None) -> tuple[dict[str, Any], str]:
    """A recipe's data with this model, and a short name for it. For a run folder, the settings are those of that run, and
    its reward model is the one that it has trained."""
    if not is_run(model):
        if iteration is not None:
            raise ConfigError(f"--iteration needs a run folder; {model} is not one")
        return {"model": {"name": model}}, Path(model).name
    run = RunFolder.existing(Path(model)).recipe()
    count = sum(phase.iterations.count for _, phase in phases_of(run))
    if iteration is not None and not 0 <= iteration <= count:
        raise ConfigError(f"--iteration: {model} has iterations 0 to {count}, not {iteration}")
    data = run.model_dump(mode="json")
    if (judge := _reward_model(run)) is not None:
        own = judge.run or str(Path(model).expanduser().absolute())
        data["reward_model"] = judge.model_dump(mode="json") | {"run": own, "retrain": False}
    number = count if iteration is None else iteration
    if number:
        data["model"]["name"] = run_reference(Path(model), number)
    return data, f"{Path(model).name}-{number}"


def recipe_name(what: str, model: str) -> str:
    """A name that can be a folder's."""
    return f"{what}-{re.sub(r'[^A-Za-z0-9.]+', '-', model).strip('-')}"


def _reward_model(run: Recipe) -> RewardModelSection | None:
    """The section of the last reward model that a run trains or takes from another one, None where it has none."""
    phases = [p for _, p in phases_of(run) if p.reward_model.kind != "none"]
    return next((p.reward_model for p in reversed(phases) if p.iterations.count or p.reward_model.run), None)


def benchmark_sources(names: str, limit: int | None) -> list[dict[str, Any]]:
    """Benchmarks by name, or .jsonl files of one's own (named by their stem), separated by commas."""
    wanted: list[dict[str, Any]] = []
    for name in (n.strip() for n in names.split(",")):
        path = Path(name).expanduser()
        if name.endswith((".jsonl", ".jsonl.gz")):
            if not path.is_file():
                raise ConfigError(f"--benchmarks: {path} does not exist")
            source: dict[str, Any] = {"source": "jsonl", "split": "test", "path": str(path.absolute())}
            name = path.name.removesuffix(".gz").removesuffix(".jsonl")
        elif name in NAMED:
            source = NAMED[name]
        else:
            near = difflib.get_close_matches(name, NAMED, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else "."
            raise ConfigError(f"--benchmarks: unknown `{name}`{hint} There are: {', '.join(NAMED)}, and files FILE.jsonl")
        if any(w["name"] == name for w in wanted):
            raise ConfigError(f"--benchmarks: two are called `{name}`; give one of the files another name, or name it once")
        wanted.append({"name": name, "source": source | ({"limit": limit} if limit is not None else {})})
    return wanted
