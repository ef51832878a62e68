"""Patterns that a policy falls into when only the answer is rewarded, found by rules (T1: Hou et al. 2025).

A finding is a reason, not a verdict on the answer: the online loop gives such a sample the reward -1 and counts it
by reason. T1 also uses a perplexity check, whose threshold is unpublished; here it is `GARBAGE_NATS`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence

REASONS = ("overlong", "repetition", "garbage")
GARBAGE_NATS = 8.0  # mean surprise of a token under the model's own untempered distribution
_LOOP = re.compile(r"(.{1,200}?)\1{7,}\s*\Z", re.DOTALL)  # the text ends with eight copies of something
_TAIL = 1600
_NGRAM, _COPIES = 8, 5


def penalty(
    text: str, question: str, logprobs: Sequence[float], truncated: bool, wanted: Collection[str] = REASONS
) -> str | None:
    """The first of the `wanted` reasons that applies to a completion, or None."""
    if "overlong" in wanted and truncated:
        return "overlong"
    if "repetition" in wanted and _repeats(text):
        return "repetition"
    if "garbage" in wanted and _garbled(text, question, logprobs):
        return "garbage"
    return None


def _repeats(text: str) -> bool:
    tail = text[-_TAIL:]
    found = _LOOP.search(tail)
    if found and not found.group(1).isspace() and len(found.group(0).strip()) >= 24:
        return True
    words = text.split()
    grams = Counter(tuple(words[i : i + _NGRAM]) for i in range(len(words) - _NGRAM + 1))
    return bool(grams) and max(grams.values()) >= _COPIES


def _garbled(text: str, question: str, logprobs: Sequence[float]) -> bool:
    """Undecodable characters, scripts that neither the question nor mathematics use, or tokens nobody expects."""
    if "\ufffd" in text:
        return True
    if len(logprobs) >= 16 and -sum(logprobs) / len(logprobs) > GARBAGE_NATS:
        return True
    foreign = _scripts(text) - _scripts(question) - {"LATIN", "GREEK", "MATHEMATICAL"}
    letters = [c for c in text if c.isalpha()]
    strange = sum(_script(c) in foreign for c in letters)
    return strange >= 5 and strange > 0.02 * len(letters)


def _scripts(text: str) -> set[str]:
    return {_script(c) for c in set(text) if c.isalpha()}


def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").split()[0]
