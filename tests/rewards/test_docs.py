"""Every example of docs/verifier.md is executed."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from rewards import extract, verify

PAGE = (Path(__file__).parents[2] / "docs" / "verifier.md").read_text(encoding="utf-8")


def table(name: str) -> list[tuple[str, ...]]:
    """Rows of the table after the comment `<!-- name -->`, their code spans unwrapped, "-" as empty.

    A cell with a bar in it is written `<code>&#124;x&#124;</code>`, which all renderers show alike.
    """
    section = PAGE.split(f"<!-- {name} -->")[1].strip().split("\n\n")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines()[2:]]
    return [tuple(html.unescape(re.sub("^(`|<code>)|(`|</code>)$", "", cell.strip())) for cell in row) for row in rows]


@pytest.mark.parametrize("row", table("extraction"), ids=lambda row: row[0])
def test_extraction_examples(row: tuple[str, ...]) -> None:
    _, prediction, strict, lenient = row
    assert (extract(prediction) or "-") == strict
    assert (extract(prediction, "lenient") or "-") == lenient


@pytest.mark.parametrize("row", table("boxes"), ids=lambda row: row[0])
def test_box_examples(row: tuple[str, ...]) -> None:
    _, gold, prediction, outcome = row
    assert verify(prediction, gold).outcome == outcome


@pytest.mark.parametrize("row", table("equality"), ids=lambda row: row[0])
def test_equality_examples(row: tuple[str, ...]) -> None:
    _, gold, prediction, outcome = row
    assert verify(rf"\boxed{{{prediction}}}", gold).outcome == outcome
