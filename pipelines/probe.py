"""`ratchet probe`: the recipe that measures memorisation on Knights and Knaves: a run without iterations.

Its benchmarks are the training puzzles of a run ("seen"), as many unseen puzzles ("new"), and the perturbed and reworded
versions of both. `pipelines.memorisation` makes scores of the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from configs.errors import ConfigError
from configs.phases import model_names, phases_of
from configs.schema import Recipe
from data_gen.knights.puzzles import Variant
from pipelines.evaluation import measuring, model_settings, recipe_name
from pipelines.models import is_run
from pipelines.runfolder import RunFolder

VARIANTS: tuple[Variant, ...] = get_args(Variant)
LIMIT = 100


def probe_recipe(
    model: str,
    *,
    iteration: int | None = None,
    trained: str | None = None,
    people: str | None = None,
    seed: int | None = None,
    variants: str | None = None,
    limit: int | None = None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """The recipe. `model` and `trained` may be RUN or RUN@ITERATION; without `trained`, `model` says what was seen if it
    is a run on Knights and Knaves, else `people` and `seed` do, as the training split of the source."""
    model, iteration = _split(model, iteration)
    if trained is None and is_run(model) and any(p.data.train.source == "knights" for _, p in phases_of(_trained_on(model))):
        trained, at = model, iteration
    else:
        trained, at = _split(trained, None) if trained else (None, None)
    data, label = model_settings(model, iteration)
    if trained is None:
        seen = {"source": "knights", "split": "train", "limit": limit or LIMIT, "people": _people(people), "seed": seed or 0}
    else:
        if people is not None or seed is not None:
            raise ConfigError(f"--people and --seed choose puzzles that no run has seen; those of {trained} are known")
        run = _trained_on(trained)
        seen = _seen(run, trained, at, limit or LIMIT)
        if not is_run(model):  # asked in the same way as the model that was trained
            data = {**run.model_dump(mode="json"), "model": {**run.model.model_dump(), **data["model"], "revision": None}}
    wanted = _variants(variants)
    sets = {"seen": seen, "new": {**seen, "split": "test", "offset": 0}}
    benchmarks = [
        {"name": f"{name}-{variant}" if variant else name, "source": {**source, "variant": variant}}
        for name, source in sets.items() for variant in (None, *wanted)
    ]  # fmt: skip
    data["name"] = recipe_name("probe", label)
    return measuring(data, benchmarks, overrides, "the probe")


def _split(name: str, iteration: int | None) -> tuple[str, int | None]:
    """RUN@ITERATION in two, its iteration a number or, as in reports, a name; anything else as it is."""
    run, at, wanted = name.rpartition("@")
    if not at or not is_run(run):
        return name, iteration
    names = [n for phase, recipe in phases_of(_trained_on(run)) for n in model_names(phase, recipe.iterations.count)]
    if iteration is not None or not (wanted.isdecimal() or wanted in names):
        known = f" (of {', '.join(names)})" if names else ""
        raise ConfigError(f"{name}: give one number or name of an iteration{known}, as {run}@1, or --iteration 1")
    return run, int(wanted) if wanted.isdecimal() else 1 + names.index(wanted)


def _trained_on(run: str) -> Recipe:
    if not is_run(run):
        raise ConfigError(f"--trained: {run} is not a run folder (it has no recipe.yaml)")
    return RunFolder.existing(Path(run).expanduser()).recipe()


def _seen(run: Recipe, name: str, iteration: int | None, limit: int) -> dict[str, Any]:
    """The source of what the model of an iteration was trained on; of the initial model: what the run would train on."""
    phase, number = _phase(run, name, iteration)
    source, count = phase.data.train, phase.iterations.count
    if source.variant is not None:
        raise ConfigError(f"--trained: {name} was trained on variants ({source.variant}), whose originals it has not seen")
    if phase.data.validation:
        raise ConfigError(
            f"--trained: {name} holds some of its puzzles out (data.validation={phase.data.validation}), so that not all of "
            "them are seen ones; train with data.validation=0 and measure on puzzles of `split: test`"
        )
    offset, length = source.offset, source.limit or 0
    if phase.data.fresh_per_iteration:
        size = length // count
        going_on = phase.iterations.scheme == "iterative_rft" or phase.iterations.online  # from the latest weights
        first = 0 if going_on else number - 1
        offset, length = offset + first * size, (number - first) * size
    kept = source.model_dump(mode="json", exclude={"solutions"})
    return {**kept, "offset": offset, "limit": min(limit, length)}


def _phase(run: Recipe, name: str, iteration: int | None) -> tuple[Recipe, int]:
    """The last phase on puzzles that an iteration has behind it, and how many iterations of that phase; of the initial
    model as of the last one."""
    phases = [phase for _, phase in phases_of(run)]
    count = sum(phase.iterations.count for phase in phases)
    number = left = iteration or count
    if number > count:
        raise ConfigError(f"--trained: {name} has iterations 1 to {count}, not {number}")
    found: tuple[Recipe, int] | None = None
    for phase in phases:
        if left > 0 and phase.data.train.source == "knights":
            found = phase, min(left, phase.iterations.count)
        left -= phase.iterations.count
    if found is None:
        others = ", ".join(dict.fromkeys(phase.data.train.source for phase in phases if phase.data.train.source != "knights"))
        raise ConfigError(f"--trained: {name} was trained on {others}, not on knights, up to iteration {number}")
    return found


def _people(people: str | None) -> list[int] | None:
    if people is None:
        return None
    try:
        return [int(n) for n in people.split(",")]
    except ValueError:
        raise ConfigError(f"--people: expected numbers from 2 to 8, separated by commas, not `{people}`") from None


def _variants(names: str | None) -> Sequence[str]:
    wanted = VARIANTS if names is None else tuple(dict.fromkeys(n.strip() for n in names.split(",")))
    unknown = [n for n in wanted if n not in VARIANTS]
    if unknown:
        raise ConfigError(f"--variants: unknown `{unknown[0]}`; there are: {', '.join(VARIANTS)}")
    return wanted
