"""A user's rows: their file opened, their fields checked; what is wrong is said in words, for all rows at once."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from configs.errors import InputError
from configs.rows import Problem

MAX_REPORTED = 5

_ALLOWED: dict[str, tuple[tuple[type, ...], str]] = {
    "none": ((str,), "a string"),
    "int": ((str, int), "a string or an integer"),
    "all": ((str, int, float, Decimal), "a string or a number"),
}


class BadRowError(Exception):
    """What is wrong with one row of a user's data."""


@contextmanager
def opened(path: Path) -> Iterator[Iterable[bytes]]:
    """The lines of a file; one ending in .gz is unpacked, and refused where it is damaged. Raises OSError, too."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged or not gzip ({error}); fetch or write the file again") from error


def collect(
    rows: Iterable[tuple[int, Any]], unit: str, problem_of: Callable[[int, Any], Problem]
) -> tuple[list[Problem], list[str]]:
    """Problems of numbered rows, and what is wrong with the rows that are none: they raise BadRowError or repeat an id.
    `unit`: "line" or "row"."""
    problems: list[Problem] = []
    number_of: dict[str, int] = {}
    bad: list[str] = []
    for number, row in rows:
        try:
            problem = problem_of(number, row)
            if problem.id in number_of:
                raise BadRowError(f"id {problem.id!r} is already used in {unit} {number_of[problem.id]}")
        except BadRowError as error:
            bad.append(f"{unit} {number}: {error}")
        else:
            number_of[problem.id] = number
            problems.append(problem)
    return problems, bad


def text_field(
    record: Mapping[str, Any],
    name: str,
    required: str | None = None,
    numbers: Literal["none", "int", "all"] = "none",
    filled: bool = False,
) -> str | None:
    """The field as a string. `required` is its name for the user; absent and null are alike.

    Empty text counts as wrong in a field that is required or, where there is one, must be `filled`. Raises BadRowError.
    """
    allowed, expected = _ALLOWED[numbers]
    value = record.get(name)
    if value is None:
        if required:
            raise BadRowError(f"{required} is missing; expected {expected}")
        return None
    if not isinstance(value, allowed) or isinstance(value, bool):
        raise BadRowError(f"{name} is {kind_of(value)}; expected {expected}")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRowError(f"{name} is {value}; expected {expected}")
    text = str(value)
    if not text.strip() and (required or filled):
        raise BadRowError(f"{name} is empty; expected text")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # "\ud800" is valid JSON, but no text that can be stored
        raise BadRowError(f"{name} holds an unpaired surrogate; expected valid Unicode") from error
    return text


def kind_of(value: Any) -> str:
    """A JSON value's type in words."""
    if value is None:
        return "null"
    names = {bool: "a boolean", dict: "an object", list: "a list", str: "a string", bytes: "bytes"}
    number = isinstance(value, int | float | Decimal)
    return names.get(type(value), "a number" if number else f"a {type(value).__name__}")


def refuse(where: str, bad: Sequence[str], unit: str) -> InputError:
    """An error that counts the bad rows and shows the first five. `unit`: "line" or "row"."""
    more = f"\n  and {len(bad) - MAX_REPORTED} more" if len(bad) > MAX_REPORTED else ""
    count = f"1 bad {unit}" if len(bad) == 1 else f"{len(bad)} bad {unit}s"
    return InputError(f"{where}: {count}\n" + "\n".join(f"  {b}" for b in bad[:MAX_REPORTED]) + more)
