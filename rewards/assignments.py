"""Answers that give each of several names a word: "Ann: knight, Bob: knave".

A gold of exactly this form (names capitalised, words in lower case, two names or more, none twice) is compared name by
name, in any order and case. A prediction may write "Ann: knight", "Ann = knight" or "Ann is a knight", joined by commas,
semicolons, "and" or line breaks; it must say everything, nothing twice in two ways, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_GOLD = re.compile(r"[A-Z][a-z]+: [a-z]+(?:, [A-Z][a-z]+: [a-z]+)+")
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm)?|mbox|mathrm)\s?\{([^{}]*)\}")
_MARKS = re.compile(r"[*_$`{}]|\\[()\[\],;: !]|^[ \t]{0,20}(?:[-•]|\(?\d{1,2}[.)])[ \t]", re.MULTILINE)
_JOIN = re.compile(r"\s*(?:[,;\n]\s*(?:and\s+)?|\s+and\s+)\s*")
_PAIR = re.compile(r"([^\W\d_]{1,40})\s*(?::|=|\bis\b)\s*(?:(?:an?|the)\s+)?([^\W\d_]{1,40})", re.IGNORECASE)
_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore|then|finally|in conclusion|conclusion|(?:the |final |my )*answers?(?: is| are)?|that is)"
    r"(?![^\W\d_])\s*[,:]?\s*)+",  # a whole word: Sofia's "So" leads to nothing
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"(?<=[a-z])[.!](?:\s+|$)|\n+")
_CLOSING = 4000  # characters at the end of a prediction in which lenient mode looks


def read_gold(text: str) -> dict[str, str] | None:
    """The words by name (both in lower case) of a gold of this form, None for any other."""
    if not _GOLD.fullmatch(text):
        return None
    pairs = [pair.split(": ") for pair in text.lower().split(", ")]
    return dict(pairs) if len({name for name, _ in pairs}) == len(pairs) else None


def read(text: str) -> dict[str, str] | None:
    """The words by name of a prediction's answer; None where it is anything else, or gives a name two words."""
    plain = _plain(text).rstrip(".!;, ")
    found: dict[str, str] = {}
    for part in _JOIN.split(plain):
        pair = _PAIR.fullmatch(part)
        if pair is None:
            return None
        name, word = (group.lower() for group in pair.groups())
        if found.setdefault(name, word) != word:
            return None
    return found


def same(gold: Mapping[str, str], given: str) -> bool:
    """Whether an answer gives every name of the gold its word, and no other."""
    return read(given) == gold


def closing(text: str) -> str | None:
    """The sentences and lines at the end of a prediction that are such an answer, for lenient mode.

    "So Ann is a knight and Bob is a knave." counts, and so do lines one below another; what stands before does not.
    """
    kept: list[str] = []
    for sentence in reversed(_SENTENCES.split(_plain(text[-_CLOSING:]))):
        lead = _LEAD.match(sentence)
        content = sentence[lead.end() :] if lead else sentence
        if content and read(content) is None:
            break
        if content:
            kept.insert(0, content.rstrip("."))
        if lead:  # what it follows from stands before
            break
    return ", ".join(kept) or None


def _plain(text: str) -> str:
    """The text without marks and list numbers, with single spaces and no blank lines."""
    lines = (" ".join(line.split()) for line in _MARKS.sub("", _TEXT.sub(r"\1", text)).splitlines())
    return "\n".join(line for line in lines if line)
