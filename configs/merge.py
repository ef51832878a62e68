"""Merging of plain settings: what a phase changes in its recipe, and a recipe in the one that it extends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from configs.errors import ConfigError


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `changes`, section by section. Values and lists are replaced, a section left empty is not.

    Items of a list are changed by name or number where `changes` has a mapping in place of the list:
    `phases: {sft: {training: {epochs: 1}}}`. Raises ConfigError for an item that is not there.
    """
    merged = dict(base)
    for key, value in changes.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(before, value)
        elif isinstance(before, list) and isinstance(value, Mapping):
            merged[key] = _merge_items(key, before, value)
        elif not (isinstance(before, Mapping) and value is None):
            merged[key] = value
    return merged


def _merge_items(key: str, items: Sequence[Any], changes: Mapping[str, Any]) -> list[Any]:
    merged = list(items)
    for name, change in changes.items():
        number = item_number(items, str(name))
        if number is None:
            raise ConfigError(f"`{key}` {items_of(items)}, not `{name}`")
        before = merged[number]
        merged[number] = merge(before, change) if isinstance(before, Mapping) and isinstance(change, Mapping) else change
    return merged


def item_number(items: Sequence[Any], part: str) -> int | None:
    """Number of the item that has this number or name."""
    if part.isdecimal():
        return int(part) if int(part) < len(items) else None
    return next((i for i, x in enumerate(items) if isinstance(x, Mapping) and x.get("name") == part), None)


def items_of(items: Sequence[Any]) -> str:
    """What can be named, for a message."""
    named = [str(x["name"]) for x in items if isinstance(x, Mapping) and "name" in x]
    return f"has items 0 to {len(items) - 1}" + (f" ({', '.join(named)})" if named else "") if items else "has no items"
