"""How much of an evaluation set stands in texts that were trained on.

`data_gen.decontaminate` keeps evaluation questions out of the problems before anything is sampled. This module looks at
what was trained on in the end: for each question and each solution of an evaluation set, the training text with the
largest share of its words, where a word counts as shared when it lies in an n-gram of 13 words that both texts have
(the measure of Llama 2, arXiv 2307.09288, A.6, with words for tokens and 13 for more than 10; one training text at a
time, so that a corpus of common phrases does not add up to a match).

- A question with fewer than 13 words counts when it stands in the training text as a whole; so short a solution is
  not looked for.
- A question without a letter or digit (emoji, signs) counts when it stands there literally: its few signs of arithmetic
  stand in most texts.
- Generated problems share their wording by design: two of them are compared by `core` alone, as in `decontaminate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from configs.errors import ConfigError
from configs.rows import Problem
from data_gen.decontaminate import Words, words_of
from data_gen.problems import strip_calculator_marks

CONTAINED = 0.8  # Llama 2 calls a sample dirty from this share on


class Trained(msgspec.Struct, frozen=True):
    """A text that was trained on; `core` where its problem was generated."""

    id: str
    text: str
    core: str | None = None


class Overlap(msgspec.Struct, frozen=True):
    """What training text `row` has of a `part` ("question" or "solution") of the evaluation problem `problem`.

    `share` of its `words` words; `shared` is the longest run of shared words. Equal cores have share 1.
    """

    problem: str
    part: str
    row: str
    share: float
    words: int
    shared: str


class _Text(msgspec.Struct, frozen=True):
    problem: str
    part: str
    words: Words
    generated: bool


def overlaps(trained: Iterable[Trained], evaluation: Sequence[Problem], ngram: int = 13) -> list[Overlap]:
    """For each question and solution that shares anything, the training text with the largest share; largest first.

    Raises ConfigError for ngram < 1.
    """
    if ngram < 1:
        raise ConfigError(f"--ngram must be at least 1, not {ngram}")
    texts = list(_texts(evaluation, ngram))
    grams, short = _index(texts, ngram)
    cores = {p.core: p for p in reversed(evaluation) if p.core is not None}
    literal = [(p, signs) for p in evaluation if _without_words(p) and (signs := p.question.strip())]
    best: dict[tuple[str, str], Overlap] = {}

    def keep(found: Overlap) -> None:
        known = best.get((found.problem, found.part))
        if known is None or found.share > known.share:
            best[found.problem, found.part] = found

    for row in trained:
        if row.core in cores:
            problem = cores[row.core]
            keep(Overlap(problem.id, "question", row.id, 1.0, len(words_of(problem.question)), str(row.core)))
        for problem, signs in literal:
            if signs in row.text:
                keep(Overlap(problem.id, "question", row.id, 1.0, 1, signs))
        words = words_of(row.text)
        for number, starts in _hits(words, grams, short, ngram, texts).items():
            text = texts[number]
            if row.core is None or not text.generated:
                keep(_overlap(text, row.id, starts, min(ngram, len(text.words))))
    return sorted(best.values(), key=lambda o: (-o.share, -o.words))


def _texts(evaluation: Sequence[Problem], ngram: int) -> Iterator[_Text]:
    for problem in evaluation:
        generated = problem.core is not None
        if not _without_words(problem):
            yield _Text(problem.id, "question", words_of(problem.question), generated)
        if solution := solution_words(problem, ngram):
            yield _Text(problem.id, "solution", solution, generated)


def _without_words(problem: Problem) -> bool:
    return not any(c.isalnum() for word in words_of(problem.question) for c in word)


def solution_words(problem: Problem, ngram: int) -> Words:
    """Words of its solution without GSM8K's calculator marks, as it would be trained on; none if too short to look for."""
    words = words_of(strip_calculator_marks(problem.solution or ""))
    return words if len(words) >= ngram else ()


def _index(texts: Sequence[_Text], ngram: int) -> tuple[dict[Words, list[tuple[int, int]]], dict[str, list[int]]]:
    """n-grams to (text, position), and the texts that are shorter than n by their first word."""
    grams: dict[Words, list[tuple[int, int]]] = {}
    short: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        if len(text.words) < ngram:
            short.setdefault(text.words[0], []).append(number)
        for start in range(len(text.words) - ngram + 1):
            grams.setdefault(text.words[start : start + ngram], []).append((number, start))
    return grams, short


def _hits(
    words: Words, grams: dict[Words, list[tuple[int, int]]], short: dict[str, list[int]], ngram: int, texts: Sequence[_Text]
) -> dict[int, set[int]]:
    """Evaluation texts that share something with `words`, each with the positions where shared n-grams begin in it."""
    found: dict[int, set[int]] = {}
    for i, word in enumerate(words):
        for number, start in grams.get(words[i : i + ngram], ()):
            found.setdefault(number, set()).add(start)
        for number in short.get(word, ()):
            whole = texts[number].words
            if words[i : i + len(whole)] == whole:
                found.setdefault(number, set()).add(0)
    return found


def _overlap(text: _Text, row: str, starts: set[int], length: int) -> Overlap:
    """Share of words in the n-grams that begin at `starts`, and their longest run."""
    runs: list[list[int]] = []  # [first, one past the last]
    for start in sorted(starts):
        if runs and start <= runs[-1][1]:
            runs[-1][1] = start + length
        else:
            runs.append([start, start + length])
    first, last = max(runs, key=lambda r: r[1] - r[0])
    covered = sum(b - a for a, b in runs)
    return Overlap(text.problem, text.part, row, covered / len(text.words), len(text.words), " ".join(text.words[first:last]))
