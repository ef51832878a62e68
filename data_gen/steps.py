r"""Steps of a solution, in text and in tokens: the one splitter for edits, rollouts and process rewards.

A text falls into explicit steps (`Step 1: ...`), else into its non-empty lines (GSM8K), else into sentences
(MATH). Mathematics is never cut: `$...$`, `\[...\]` and environments count as one word. Joining the steps gives
the text back byte for byte; blank lines and spaces between two steps belong to the earlier one.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Of `$...$`: as in Pandoc, no space inside the delimiters and no digit after them, so that prices are not taken for it.
_MATH = re.compile(
    r"\\\[.*?\\\]|\\\(.*?\\\)|\$\$.*?\$\$|\\begin\{(?P<env>[a-z]+\*?)\}.*?\\end\{(?P=env)\}"
    r"|(?<![\\$])\$(?![\s$])(?:\\.|[^$\\\n]|\n(?!\s*\n))*?(?<![\s\\])\$(?!\d)",
    re.DOTALL,
)
_HEADER = re.compile(r"^[ \t]*(?:#{1,6} +)?(?:\*\*|__)?step +\d+ *(?:[:.)\-]|\*\*|__)[:*_ ]*", re.IGNORECASE | re.MULTILINE)
_LINE = re.compile(r"^[ \t]*\S", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?][\"')\]}$*]*\s+(?=[^\sa-z])")
# Also the number of a list item, "2. Then", which is no sentence.
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'])(?:e\.g|i\.e|mrs?|ms|dr|prof|st|no|vs|cf|fig|eq|approx|resp|w\.r\.t)$|(?:^|\n)[ \t]*\d+$", re.IGNORECASE
)
_LONGEST_ABBREVIATION = 12


def split_steps(text: str) -> list[str]:
    """The steps of `text`, in order, with `"".join(split_steps(text)) == text`; an empty text has none."""
    return _slices(text, _starts(text))


def split_sentences(text: str) -> list[str]:
    """The sentences of a step, a line break ending one too; joined they give the text back."""
    math = _math(text)
    return _slices(text, sorted({*_line_starts(text, math), *_sentence_starts(text, math)}))


def header_length(step: str) -> int:
    """Characters of a `Step n:` header, with the space after it; 0 where the step has none."""
    match = _HEADER.match(step)
    return match.end() if match else 0


def tail_start(step: str, sentences: int = 4) -> int:
    """Where the last `sentences` sentences of a step begin, its header left out.

    RISE (arXiv 2410.06638) edits this tail only: from the fourth-last sentence of a step with more than three.
    """
    parts = split_sentences(step)
    start = sum(map(len, parts[:-sentences]))
    return max(start, header_length(step))


def _slices(text: str, starts: Sequence[int]) -> list[str]:
    bounds = [0, *(s for s in starts if s > 0), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(bounds) if b > a]


def _starts(text: str) -> list[int]:
    """Where each step but the first begins: by headers, else lines, else sentences."""
    headers = [m.start() for m in _HEADER.finditer(text)]
    if headers:
        return headers if text[: headers[0]].strip() else headers[1:]
    math = _math(text)
    lines = _line_starts(text, math)
    return lines or _sentence_starts(text, math)


def _math(text: str) -> list[tuple[int, int]]:
    """Spans of mathematics. A `$` pair around plain words is two prices."""
    spans = [m.span() for m in _MATH.finditer(text)]
    return [(a, b) for a, b in spans if not re.match(r"\$\d[^\\]*[a-z]{2,} [a-z]{2,}", text[a:b])]


def _inside(spans: Sequence[tuple[int, int]], position: int) -> bool:
    """Whether the character at `position` lies in one of the spans."""
    at = bisect_right(spans, (position, 1 << 60)) - 1
    return at >= 0 and spans[at][0] <= position < spans[at][1]


def _line_starts(text: str, math: Sequence[tuple[int, int]]) -> list[int]:
    """Starts of the non-empty lines after the first, but for those within mathematics."""
    return [m.start() for m in _LINE.finditer(text) if not (m.start() and _inside(math, m.start() - 1))][1:]


def _sentence_starts(text: str, math: Sequence[tuple[int, int]]) -> list[int]:
    ends = (m for m in _SENTENCE_END.finditer(text) if not _inside(math, m.end() - 1))
    return [m.end() for m in ends if not (text[m.start()] == "." and _abbreviated(text, m.start()))]


def _abbreviated(text: str, dot: int) -> bool:
    return _ABBREVIATION.search(text, max(0, dot - _LONGEST_ABBREVIATION), dot) is not None


@dataclass(frozen=True, slots=True)
class StepSpan:
    """One step of a completion: tokens `start` to `end` (exclusive) of it, which decode to `text`."""

    index: int
    text: str
    start: int
    end: int


def body_length(tokenizer: Any, token_ids: Sequence[int]) -> int:
    """How many of the ids come before the end tokens: those are special tokens at the end."""
    special = set(tokenizer.all_special_ids)
    length = len(token_ids)
    while length and token_ids[length - 1] in special:
        length -= 1
    return length


def decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """The text of ids, as the engines give it: no special tokens, no tidied spaces."""
    return tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def step_spans(tokenizer: Any, token_ids: Sequence[int]) -> list[StepSpan]:
    """The steps of a completion in token space; they tile the ids before the end token without a gap.

    A token that straddles two steps belongs to the one where it begins. No step begins inside a character: where
    a character is spelled by several tokens and the first of them straddles, all of them go to the earlier step.
    """
    ids = list(token_ids[: body_length(tokenizer, token_ids)])
    text = decode(tokenizer, ids)
    places, offsets = _clean_boundaries(tokenizer, ids, text)
    cuts: list[int] = []
    position = 0
    for step in split_steps(text)[:-1]:
        position += len(step)
        at = bisect_left(offsets, position)
        if at < len(places) - 1 and (not cuts or places[at] > places[cuts[-1]]) and places[at]:
            cuts.append(at)
    bounds = [0, *cuts, len(places) - 1]
    spans = [(places[a], places[b], text[offsets[a] : offsets[b]]) for a, b in itertools.pairwise(bounds)]
    return [StepSpan(i, t, a, b) for i, (a, b, t) in enumerate(s for s in spans if s[1] > s[0])]


def _clean_boundaries(tokenizer: Any, ids: Sequence[int], text: str) -> tuple[list[int], list[int]]:
    """Token indices between which text may be cut, from 0 to len(ids), and the character offset of each.

    One decoding per token where the pieces join to the text; otherwise (characters spelled by several tokens,
    tokenizers whose decoding depends on what precedes) one decoding per prefix, quadratic but exact.
    """
    pieces = tokenizer.batch_decode([[i] for i in ids], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if "\ufffd" not in text and "".join(pieces) == text:
        offsets = [0]
        for piece in pieces:
            offsets.append(offsets[-1] + len(piece))
        return list(range(len(ids) + 1)), offsets
    places, offsets = [0], [0]
    for place in range(1, len(ids)):
        prefix = decode(tokenizer, ids[:place])
        if text.startswith(prefix) and not prefix.endswith("\ufffd"):
            places.append(place)
            offsets.append(len(prefix))
    if ids:
        places.append(len(ids))
        offsets.append(len(text))
    return places, offsets
