"""`ratchet eval`: one model on some benchmarks, as a run without iterations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, InputError
from configs.load import apply_override, validate
from pipelines.home import store_root
from pipelines.models import ResolvedModel, resolve_model
from pipelines.outcome import accuracy_table
from pipelines.plan import Plan, build_evaluation, resolve
from pipelines.progress import Reporter
from pipelines.runfolder import RunFolder
from pipelines.runner import run_plan
from pipelines.stage import Stage
from pipelines.store import Store

NAMED: dict[str, dict[str, Any]] = {
    "gsm8k": {"source": "gsm8k", "split": "test"},
    "math500": {"source": "math500", "split": "test"},
    "procedural": {"source": "procedural", "split": "test", "limit": 200, "levels": [1, 2, 3], "max_number": 20},
}


def evaluation_run(
    model: str,
    benchmarks: str,
    limit: int | None,
    iteration: int | None,
    overrides: Sequence[str],
    run_dir: Path | None,
) -> list[str]:
    """Evaluate `model` and return the lines to show. Raises InputError or ConfigError for what cannot be done."""
    data, resolved, trained, who = _subject(model, iteration)
    data["evaluation"] = {**data.get("evaluation", {}), "benchmarks": _benchmarks(benchmarks, limit)}
    data["name"] = f"eval-{re.sub(r'[^A-Za-z0-9]+', '-', Path(model).name).strip('-')}-{who}"
    for override in overrides:
        apply_override(data, override)
    recipe = resolve(validate(data, "the evaluation"))
    resolved = resolved or resolve_model(recipe.model)
    plan = build_evaluation(recipe, resolved, trained, who)
    store = Store(store_root())
    if trained is not None and not store.artefact(trained.kind, trained.key).done:
        raise InputError(f"{model}: {trained.label} is not finished: ratchet resume {model}")
    folder = RunFolder.create(run_dir or Path("runs") / f"{recipe.name}-{plan.stages[-1].key[:8]}", recipe)
    with folder.locked():
        folder.write_plan(plan, store)
        run_plan(plan, store, folder, Reporter())
        return [*accuracy_table(plan, store), f"prompt: {_prompt(plan, store)!r}", f"per-problem rows: {folder.path}/artefacts"]


def _subject(model: str, iteration: int | None) -> tuple[dict[str, Any], ResolvedModel | None, Stage | None, str]:
    """Recipe data, model, training stage (None: base weights) and short name of what is to be evaluated."""
    from pipelines.plan import build

    if not (Path(model) / "recipe.yaml").is_file():
        if iteration is not None:
            raise ConfigError(f"--iteration needs a run folder; {model} is not one")
        return {"model": {"name": model}, "iterations": {"count": 0}}, None, None, "model"
    recipe = resolve(RunFolder.existing(Path(model)).recipe())
    resolved = resolve_model(recipe.model)
    plan = build(recipe, resolved)
    number = len(plan.trained) if iteration is None else iteration
    if not 0 <= number <= len(plan.trained):
        raise ConfigError(f"{model} has iterations 0 to {len(plan.trained)}, not {number}")
    trained = plan.trained[number - 1] if number else None
    return recipe.model_dump(mode="json"), resolved, trained, f"iteration{number}" if number else "initial"


def _benchmarks(names: str, limit: int | None) -> list[dict[str, Any]]:
    import difflib

    wanted = []
    for name in (n.strip() for n in names.split(",")):
        if name not in NAMED:
            near = difflib.get_close_matches(name, NAMED, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise ConfigError(f"--benchmarks: unknown `{name}`{hint} There are: {', '.join(NAMED)}")
        source = NAMED[name] | ({"limit": limit} if limit is not None else {})
        wanted.append({"name": name, "source": source})
    return wanted


def _prompt(plan: Plan, store: Store) -> str:
    """The exact prompt of the first problem, for the record."""
    from configs.rows import Sample
    from data_gen.prompts import PromptEncoder
    from pipelines.store import read_rows

    stage = next(s for s in plan.stages if s.kind == "sample")
    sample: Sample = read_rows(store.artefact(stage.kind, stage.key), Sample, [0])[0]
    encoder = PromptEncoder(plan.model.path, plan.recipe.data.prompt)
    return encoder.tokenizer.decode(sample.prompt_ids)
