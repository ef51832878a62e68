"""Recipes from YAML and the command line, with errors that name the file, the line and the nearest valid key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from configs.errors import ConfigError
from configs.merge import item_number, items_of, merge
from configs.phases import phase_data
from configs.schema import Recipe

RECIPES = Path(__file__).parent / "recipes"
Loc = tuple[str | int, ...]  # a path into nested data


class _Loader(yaml.SafeLoader):
    """Plain YAML with numbers such as 5e-4, which YAML 1.1 takes for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("+-0123456789")
)


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(p.stem for p in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a recipe given by path or by shipped name."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if not path.is_file():
            raise ConfigError(f"recipe file {path} does not exist")
        return path
    shipped_path = RECIPES / f"{name}.yaml"
    if not shipped_path.is_file():
        near = difflib.get_close_matches(name, shipped(), n=1)
        hint = f"; did you mean `{near[0]}`?" if near else "."
        raise ConfigError(f"no recipe `{name}`{hint} Shipped recipes: {', '.join(shipped())}; or give a .yaml file")
    return shipped_path


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The validated recipe of a file or shipped name with dotted overrides `a.b=value` applied."""
    path = find_recipe(name)
    data, places = _read(path, ())
    data.setdefault("name", path.stem)
    for override in overrides:
        parts = apply_override(data, override)
        places = {loc: at for loc, at in places.items() if loc[: len(parts)] != parts}
        places[parts] = f"override `{override}`"
    return validate(data, str(path), places)


def _read(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], dict[Loc, str]]:
    """Plain data of a recipe file and FILE:LINE of its keys; with `extends: OTHER`, those keys changed in the other recipe."""
    try:
        data, lines = _parse(path.read_text())
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: not a text file ({e})") from e
    except yaml.MarkedYAMLError as e:
        at = f"{path}:{e.problem_mark.line + 1}" if e.problem_mark else str(path)
        raise ConfigError(f"{at}: not valid YAML: {e.problem}") from e
    except yaml.YAMLError as e:
        raise ConfigError(f"{path}: not valid YAML: {e}") from e
    places = {loc: f"{path}:{line}" for loc, line in lines.items()}
    if "extends" not in data:
        return data, places
    other, at = data.pop("extends"), places.pop(("extends",))
    if not isinstance(other, str):
        raise ConfigError(f"{at}: `extends` names one recipe, shipped or a .yaml file (got {other!r})")
    beside = path.parent / other
    parent = beside if beside.suffix in {".yaml", ".yml"} else find_recipe(other)
    if not parent.is_file():
        raise ConfigError(f"{at}: `extends`: {parent} does not exist")
    if parent.resolve() in (p.resolve() for p in (*above, path)):
        raise ConfigError(f"{at}: `extends` goes round in a circle")
    base, base_places = _read(parent, (*above, path))
    base.pop("name", None)  # a name belongs to one recipe
    try:
        return merge(base, data), base_places | {_numbered(loc, base): place for loc, place in places.items()}
    except ConfigError as e:
        raise ConfigError(f"{path}: {e}") from None


def validate(data: Mapping[str, Any], where: str, places: Mapping[Loc, str] | None = None) -> Recipe:
    """A Recipe from plain data. Errors list every wrong key with a suggestion and its place: the line in the
    file, or the override that set it."""
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as e:
        raise ConfigError("\n".join(_messages(e, where, places or {}))) from None
    messages = []
    for number, phase in enumerate(recipe.phases):
        try:
            Recipe.model_validate(phase_data(recipe, phase))
        except ValidationError as e:
            messages += _messages(e, where, places or {}, ("phases", number))
    if messages:
        raise ConfigError("\n".join(messages))
    return recipe


def _messages(error: ValidationError, where: str, places: Mapping[Loc, str], phase: Loc = ()) -> list[str]:
    """A line for each wrong key; those of a phase stand under `phase`."""
    messages = []
    for e in error.errors():
        loc = tuple(e["loc"])
        unknown = e["type"] == "extra_forbidden"
        loc = loc if unknown else _within_schema(loc)
        key = ".".join(str(p) for p in (*phase, *loc)) or "recipe"
        at = _place_of((*phase, *loc), places) or where
        if unknown:
            messages.append(f"{at}: unknown key `{key}`{_suggest(loc)}")
        else:
            given = "" if isinstance(e.get("input"), dict) else f" (got {e.get('input')!r})"
            messages.append(f"{at}: `{key}`: {e['msg'].removeprefix('Value error, ')}{given}")
    return messages


def valid_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """All dotted keys of the schema, leaves and sections."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        section = _section(field.annotation)
        if section is not None:
            keys += valid_keys(section, f"{prefix}{name}.")
    return keys


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section type inside an annotation such as `X`, `X | None` or `list[X]`, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((s for a in get_args(annotation) if (s := _section(a)) is not None), None)


def _suggest(loc: Loc) -> str:
    """A hint for an unknown key: its like in its own section, else in another one, else what is valid."""
    path = [str(p) for p in loc if not isinstance(p, int)]
    keys = valid_keys()
    prefix = ".".join(path[:-1])
    siblings = [k.rpartition(".")[2] for k in keys if k.rpartition(".")[0] == prefix]

    def near(names: Sequence[str], cutoff: float) -> str | None:
        return next(iter(difflib.get_close_matches(path[-1], names, n=1, cutoff=cutoff)), None)

    leaves = list(dict.fromkeys(k.rpartition(".")[2] for k in keys))
    for names, cutoff in ((siblings, 0.8), (leaves, 0.8), (siblings, 0.5)):
        if name := near(names, cutoff):
            if names is siblings:
                return f"; did you mean `{'.'.join([*map(str, loc[:-1]), name])}`?"
            return f"; did you mean `{next(k for k in keys if k.rpartition('.')[2] == name)}`?"
    return f"; valid here: {', '.join(siblings)}" if siblings else ""


def apply_override(data: dict[str, Any], override: str) -> Loc:
    """Set one dotted key in nested plain data; the value is read as YAML. List items by number: `a.0.b`.

    A list item that has a name goes by that as well: `phases.sft.training.epochs`. Returns where it was set."""
    key, eq, raw = override.partition("=")
    if not eq or not key:
        raise ConfigError(f"override `{override}` is not of the form key=value, e.g. sampling.temperature=0.8")
    try:
        value = yaml.load(raw, _Loader) if raw else None
    except yaml.YAMLError as e:
        raise ConfigError(f"override `{override}`: the value is not valid YAML: {e}") from e
    parts = key.split(".")
    node: Any = data
    loc: list[str | int] = []
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if isinstance(node, list):
            number = item_number(node, part)
            if number is None:
                raise ConfigError(f"override `{override}`: `{'.'.join(parts[:i])}` {items_of(node)}")
            loc.append(number)
            if last:
                node[number] = value
            else:
                node = node[number]
        elif isinstance(node, dict):
            loc.append(part)
            if last:
                node[part] = value
            else:
                if node.get(part) is None:  # absent, or a section left empty
                    node[part] = {}
                node = node[part]
        else:
            raise ConfigError(f"override `{override}`: `{'.'.join(parts[:i])}` is a value, not a section")
    return tuple(loc)


def _numbered(loc: Loc, data: Any) -> Loc:
    """`loc` with the numbers of list items in place of their names."""
    numbered: list[str | int] = []
    for part in loc:
        if isinstance(data, list) and (number := item_number(data, str(part))) is not None:
            part = number
        numbered.append(part)
        if isinstance(data, list):  # the list put in its place may be longer
            data = data[part] if isinstance(part, int) and part < len(data) else None
        else:
            data = data.get(part) if isinstance(data, dict) else None
    return tuple(numbered)


def _place_of(loc: Loc, places: Mapping[Loc, str]) -> str | None:
    """The place of the longest known prefix of `loc`."""
    for end in range(len(loc), 0, -1):
        if loc[:end] in places:
            return places[loc[:end]]
    return None


def _within_schema(loc: Loc) -> Loc:
    """`loc` without the names that pydantic adds for the alternatives of a type, such as `list[str]`."""
    keys, kept, prefix = set(valid_keys()), [], ""
    for part in loc:
        if isinstance(part, int):
            kept.append(part)
        elif prefix + part in keys:
            kept.append(part)
            prefix += f"{part}."
    return tuple(kept)


def _parse(text: str) -> tuple[dict[str, Any], dict[Loc, int]]:
    """Plain data and the line number of every key, from YAML text (duplicate keys are an error)."""
    lines: dict[Loc, int] = {}

    def walk(node: yaml.Node | None, path: Loc) -> None:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key_node, value_node in node.value:
                key, line = str(key_node.value), key_node.start_mark.line + 1
                if key in seen:
                    name = ".".join([*map(str, path), key])
                    raise yaml.MarkedYAMLError(
                        problem=f"key `{name}` is given twice", problem_mark=key_node.start_mark
                    )
                seen.add(key)
                lines[(*path, key)] = line
                walk(value_node, (*path, key))
        elif isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                lines[(*path, i)] = item.start_mark.line + 1
                walk(item, (*path, i))

    walk(yaml.compose(text, Loader=_Loader), ())
    data = yaml.load(text, _Loader)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise yaml.YAMLError("the top level must be a mapping of sections")
    return data, lines
