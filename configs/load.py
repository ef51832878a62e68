"""Recipes from YAML and the command line, with errors that name the file, the line and the nearest valid key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from configs.errors import ConfigError
from configs.schema import Recipe

RECIPES = Path(__file__).parent / "recipes"


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
        hint = f"; did you mean `{near[0]}`?" if near else ""
        raise ConfigError(f"no recipe `{name}`{hint} Shipped recipes: {', '.join(shipped())}; or give a .yaml file")
    return shipped_path


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The validated recipe of a file or shipped name with dotted overrides `a.b=value` applied."""
    path = find_recipe(name)
    try:
        text = path.read_text()
        data, lines = _parse(text)
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: not a text file ({e})") from e
    except yaml.YAMLError as e:
        raise ConfigError(f"{path}: not valid YAML: {e}") from e
    data.setdefault("name", path.stem)
    for override in overrides:
        apply_override(data, override)
    return validate(data, str(path), lines)


def validate(data: Mapping[str, Any], where: str, lines: Mapping[tuple[str | int, ...], int] | None = None) -> Recipe:
    """A Recipe from plain data. Errors list every wrong key with its line and a suggestion."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as e:
        messages = []
        for error in e.errors():
            loc = tuple(error["loc"])
            key = ".".join(str(p) for p in loc) or "recipe"
            line = _line_of(loc, lines or {})
            at = f"{where}:{line}" if line else where
            if error["type"] == "extra_forbidden":
                messages.append(f"{at}: unknown key `{key}`{_suggest(loc)}")
            else:
                given = "" if isinstance(error.get("input"), dict) else f" (got {error.get('input')!r})"
                messages.append(f"{at}: `{key}`: {error['msg'].removeprefix('Value error, ')}{given}")
        raise ConfigError("\n".join(messages)) from None


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


def _suggest(loc: tuple[str | int, ...]) -> str:
    """A hint for an unknown key: the nearest key in its section, else the nearest leaf of the whole schema."""
    path = [str(p) for p in loc if not isinstance(p, int)]
    keys = valid_keys()
    prefix = ".".join(path[:-1])
    siblings = [k for k in keys if k.rpartition(".")[0] == prefix]
    near = difflib.get_close_matches(path[-1], [k.rpartition(".")[2] for k in siblings], n=1, cutoff=0.5)
    if near:
        return f"; did you mean `{'.'.join([*path[:-1], near[0]])}`?"
    elsewhere = [k for k in keys if k.rpartition(".")[2] == path[-1]]
    if elsewhere:
        return f"; did you mean `{elsewhere[0]}`?"
    return f"; valid here: {', '.join(k.rpartition('.')[2] for k in siblings)}" if siblings else ""


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set one dotted key in nested plain data; the value is read as YAML. List items by number: `a.0.b`."""
    key, eq, raw = override.partition("=")
    if not eq or not key:
        raise ConfigError(f"override `{override}` is not of the form key=value, e.g. sampling.temperature=0.8")
    try:
        value = yaml.safe_load(raw) if raw else None
    except yaml.YAMLError as e:
        raise ConfigError(f"override `{override}`: the value is not valid YAML: {e}") from e
    if isinstance(value, str):
        value = _scientific(value)
    parts = key.split(".")
    node: Any = data
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise ConfigError(f"override `{override}`: `{'.'.join(parts[:i])}` has items 0 to {len(node) - 1}")
            if last:
                node[int(part)] = value
            else:
                node = node[int(part)]
        elif isinstance(node, dict):
            if last:
                node[part] = value
            else:
                node = node.setdefault(part, {})
        else:
            raise ConfigError(f"override `{override}`: `{'.'.join(parts[:i])}` is a value, not a section")


def _scientific(value: str) -> str | float:
    """YAML 1.1 reads `5e-4` as text; people mean a number."""
    try:
        return float(value) if value[:1].isdigit() and "e" in value.lower() else value
    except ValueError:
        return value


def _line_of(loc: tuple[str | int, ...], lines: Mapping[tuple[str | int, ...], int]) -> int | None:
    """The line of the longest known prefix of `loc`."""
    for end in range(len(loc), 0, -1):
        if loc[:end] in lines:
            return lines[loc[:end]]
    return None


def _parse(text: str) -> tuple[dict[str, Any], dict[tuple[str | int, ...], int]]:
    """Plain data and the line number of every key, from YAML text (duplicate keys are an error)."""
    lines: dict[tuple[str | int, ...], int] = {}

    def walk(node: yaml.Node | None, path: tuple[str | int, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key_node, value_node in node.value:
                key, line = str(key_node.value), key_node.start_mark.line + 1
                if key in seen:
                    raise yaml.YAMLError(f"line {line}: key `{'.'.join([*map(str, path), key])}` is given twice")
                seen.add(key)
                lines[(*path, key)] = line
                walk(value_node, (*path, key))
        elif isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                lines[(*path, i)] = item.start_mark.line + 1
                walk(item, (*path, i))

    walk(yaml.compose(text, Loader=yaml.SafeLoader), ())
    data = yaml.safe_load(text)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise yaml.YAMLError("the top level must be a mapping of sections")
    return _floats(data), lines


def _floats(value: Any) -> Any:
    """Numbers such as 5e-4, which YAML 1.1 leaves as text, made floats throughout."""
    if isinstance(value, dict):
        return {k: _floats(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_floats(v) for v in value]
    return _scientific(value) if isinstance(value, str) else value
