"""Drops training problems that an evaluation set contains, by the rule of Qwen2.5-Math (arXiv:2409.12122).

A training problem is dropped when it shares an n-gram of 13 words with an evaluation problem AND the ratio
of their longest common subsequence exceeds 0.6. The second condition keeps problems that only share a
stock phrase. The report does not define the ratio; here it is

    words of the longest common subsequence / words of the longer question,

so that a short question inside a long one does not count as the same problem. Besides:

- Questions that are equal after normalisation are always dropped.
- When one of two questions has fewer than 13 words, n is the length of the shorter one for this pair: the
  shorter must occur in the other word for word.
- Generated problems share their wording by design, so two of them are compared by `core` alone.

Words are compared in lower case without punctuation; numbers and the signs of arithmetic count as words,
because "x + 1" and "x - 1" are different questions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from configs.errors import ConfigError
from configs.rows import Problem

Words = tuple[str, ...]


class Dropped(msgspec.Struct, frozen=True):
    """Why a training problem was dropped.

    `reason` is "exact", "core" or "13-gram+lcs" (with the n in use). `ratio` is the LCS ratio (1.0 for
    the other two reasons). `shared` is the first n-gram in common, the whole question or the core.
    """

    problem: str
    evaluation: str
    reason: str
    ratio: float
    shared: str


@dataclass
class _Index:
    """Evaluation questions (those not compared by core) by whole text and by n-gram.

    `grams` maps an n-gram to the positions of the questions that hold it; n is `ngram` or the length of a
    question, on either side, that is shorter than that.
    """

    ngram: int
    problems: list[Problem] = field(default_factory=list)
    words: list[Words] = field(default_factory=list)
    whole: dict[Words, int] = field(default_factory=dict)
    grams: dict[Words, list[int]] = field(default_factory=dict)
    short: list[int] = field(default_factory=list)


def decontaminate(
    train: Sequence[Problem],
    evaluation: Sequence[Problem],
    ngram: int = 13,
    lcs_ratio: float = 0.6,
) -> tuple[list[Problem], list[Dropped]]:
    """(training problems kept, in order; what was dropped and why, in the order of `train`).

    Of several evaluation problems that a training problem matches, the one with the highest ratio is named.
    Raises ConfigError for ngram < 1 or lcs_ratio outside [0, 1].
    """
    if ngram < 1:
        raise ConfigError(f"decontamination: ngram must be at least 1, not {ngram}")
    if not 0 <= lcs_ratio <= 1:
        raise ConfigError(f"decontamination: lcs_ratio must be from 0 to 1, not {lcs_ratio}")
    words = [words_of(problem.question) for problem in train]
    cores = {p.core: p for p in reversed(evaluation) if _by_core(p)}
    plain = [p for p in evaluation if not _by_core(p)]
    lengths = {len(w) for w in words if 0 < len(w) < ngram}
    # A generated training problem meets generated evaluation problems by core, and all others by text.
    index_plain = _build_index(plain, ngram, lengths)
    index_all = _build_index(evaluation, ngram, lengths) if cores else index_plain
    kept: list[Problem] = []
    dropped: list[Dropped] = []
    for problem, own in zip(train, words, strict=True):
        found: Dropped | None = None
        if _by_core(problem) and problem.core in cores:
            found = Dropped(problem.id, cores[problem.core].id, "core", 1.0, str(problem.core))
        if found is None:
            found = _match(problem, own, index_plain if _by_core(problem) else index_all, lcs_ratio)
        if found is None:
            kept.append(problem)
        else:
            dropped.append(found)
    return kept, dropped


def words_of(question: str) -> Words:
    """The words that are compared: letters, numbers (1,000 is 1000) and signs of arithmetic, in lower case.

    A hyphen that joins words ("5-year-old") is a space, elsewhere it is a minus. A question without any
    word stands for itself, so that two such questions are equal only when their text is.
    """
    text = unicodedata.normalize("NFKC", question).lower()
    text = re.sub(r"['\u2018\u2019`]", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<=[^\W\d_]{2})-(?=\w)|(?<=\w)-(?=[^\W\d_]{2})", " ", text)
    return tuple(re.findall(r"\d+(?:\.\d+)?|[^\W\d_]+|[-+*/=<>^%\u2212\u00d7\u00f7]", text)) or (question,)


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    Bit-parallel (Hyyro 2004, "Bit-parallel LCS-length computation revisited"): bit i of `row` is 0 where
    the LCS grows at word i of `first`, and one big-integer addition treats a whole row of the table.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        hits = row & places.get(word, 0)
        row = (row + hits | row - hits) & full
    return len(first) - row.bit_count()


def _by_core(problem: Problem) -> bool:
    return problem.source in ("procedural", "knights") and problem.core is not None


def _grams(words: Words, n: int) -> Iterator[Words]:
    return (words[i : i + n] for i in range(len(words) - n + 1))


def _build_index(problems: Sequence[Problem], ngram: int, train_lengths: set[int]) -> _Index:
    """`train_lengths`: lengths under `ngram` of training questions; only these need shorter n-grams."""
    index = _Index(ngram)
    for position, problem in enumerate(problems):
        words = words_of(problem.question)
        index.problems.append(problem)
        index.words.append(words)
        index.whole.setdefault(words, position)
        longest = min(ngram, len(words))
        for n in {longest, *(k for k in train_lengths if k < longest)}:
            for gram in _grams(words, n):
                places = index.grams.setdefault(gram, [])
                if not places or places[-1] != position:
                    places.append(position)
    index.short = sorted({len(w) for w in index.words if len(w) < ngram})
    return index


def _match(problem: Problem, words: Words, index: _Index, lcs_ratio: float) -> Dropped | None:
    """The evaluation question that `problem` repeats, or None; the LCS is only computed for candidates."""
    same = index.whole.get(words)
    if same is not None:
        return Dropped(problem.id, index.problems[same].id, "exact", 1.0, " ".join(words))
    longest = min(index.ngram, len(words))
    candidates: dict[int, Words] = {}
    for n in (longest, *(k for k in index.short if k < longest)):
        for gram in _grams(words, n):
            for position in index.grams.get(gram, ()):
                # The n of a pair: shorter n-grams are in the index for the sake of shorter questions.
                if n == min(longest, len(index.words[position])):
                    candidates.setdefault(position, gram)
    best: Dropped | None = None
    for position, gram in candidates.items():
        other = index.words[position]
        longer = max(len(words), len(other))
        if min(len(words), len(other)) <= lcs_ratio * longer:
            continue  # even a complete overlap would not exceed the ratio
        ratio = lcs_length(words, other) / longer
        if ratio > lcs_ratio and (best is None or ratio > best.ratio):
            reason = f"{index.ngram}-gram+lcs"
            best = Dropped(problem.id, index.problems[position].id, reason, ratio, " ".join(gram))
    return best
