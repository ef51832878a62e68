"""Text of others inside Markdown."""

from __future__ import annotations

from typing import Any


def cell(value: Any) -> str:
    """A value that stays within its cell of a table."""
    return str(value).replace("|", "\\|").replace("\n", " ")


def fenced(text: str, language: str = "") -> list[str]:
    """A code block that no backticks of the text end."""
    fence = "```"
    while fence in text:
        fence += "`"
    return [fence + language, text, fence]
