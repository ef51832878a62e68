"""Extraction, comparison and the decision between a wrong answer and a checker that could not tell."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from rewards import assignments
from rewards import nodes as n
from rewards.answers import Decision, compare, is_choice, read, string_key
from rewards.canonical import canonical, expand_signs
from rewards.extraction import Candidate, boxes, find, find_gold, marked, together, visible
from rewards.limits import ANSWER_CHARS, Undecided
from rewards.nodes import Node
from rewards.unicode import to_latex
from rewards.verdict import Mode, Outcome

Symbolic = Callable[[Node, Node], bool]
Judgement = tuple[Outcome, str | None, str]
_CACHED_CHARS = 256


class NeedsSymbolic(Exception):
    """Only sympy could tell, which belongs into a worker process."""


@lru_cache(maxsize=4096)
def _compare_cached(gold: str, given: str) -> Decision:
    return compare(gold, given)


def clear_cache() -> None:
    """Forget all comparisons, for measurements."""
    _compare_cached.cache_clear()


def compare_cached(gold: str, given: str, symbolic: Symbolic | None) -> Decision:
    if symbolic is None and len(gold) <= _CACHED_CHARS and len(given) <= _CACHED_CHARS:
        return _compare_cached(gold, given)
    return compare(gold, given, symbolic)


def members(gold: str) -> int:
    """How many members the gold lists, 1 for a single value."""
    node = read(gold).node
    if node is None:
        return 1
    node = expand_signs(canonical(node))
    return len(node.items) if isinstance(node, n.Listing | n.Braces | n.Seq) else 1


def decide(candidate: Candidate, gold: str, symbolic: Symbolic | None) -> Decision:
    """The last box decides; joined boxes count together where the gold has as many members.

    Boxes joined by "or" are a hedge: each of them must be right.
    """
    decision = compare_cached(gold, candidate.text.strip(), symbolic)
    if candidate.parts and members(gold) == len(candidate.parts):
        group = compare_cached(gold, candidate.group, symbolic)
        if group.equal:
            return group
    if not decision.equal and candidate.spread and not candidate.hedged and members(gold) == len(candidate.spread):
        pointed = isinstance(read(gold).node, n.Seq)  # ordered: only names can tell which box is which
        whole = compare_cached(gold, together(candidate), symbolic)
        if whole.equal and (candidate.labels or not pointed):
            return whole
    if not (decision.equal and candidate.hedged):
        return decision
    sure = all(compare_cached(gold, part, symbolic).equal for part in candidate.parts)
    return decision if sure else Decision(False, "hedged")


def announced(prediction: str) -> Candidate | None:
    """The names and their words that end a prediction without a box or a `####` line."""
    text = visible(prediction)
    found = None if boxes(text) or marked(text) is not None else assignments.closing(text)
    return Candidate(found) if found else None


def judge(prediction: str, gold: str, mode: Mode, symbolic: Symbolic | None = None) -> Judgement:
    """Outcome, extracted answer and rule. Raises NeedsSymbolic where only sympy, not given, could tell."""
    expected = find_gold(gold)
    if not expected.strip(" .,;:$\\{}()[]\n\t") and "\\{" not in expected:
        return "bad_gold", None, "empty-gold"
    candidate = find(prediction, mode)
    if mode == "lenient" and assignments.read_gold(expected) is not None:
        candidate = announced(prediction) or candidate
    if mode == "lenient" and len(prediction) <= ANSWER_CHARS:
        whole = string_key(to_latex(prediction.strip()))
        if whole and whole == read(expected).key:
            return "correct", prediction.strip(), "equal-string"
        if len(prediction) <= 100 and expected.strip("() ").isalpha() and "\n" not in prediction.strip():
            if is_choice(read(expected), read(prediction.strip())):  # "A: 10", where A: does not announce an answer
                return "correct", prediction.strip(), "equal-choice"
    if candidate is None:
        return "no_answer", None, "no-answer"
    extracted = candidate.text.strip()[:ANSWER_CHARS]
    try:
        decision = decide(candidate, expected, symbolic)
    except Undecided:
        if symbolic is not None:
            return "error", extracted, "undecided"
        raise NeedsSymbolic from None
    if decision.equal:
        return "correct", extracted, decision.rule
    problem = read(expected).problem if len(expected) <= ANSWER_CHARS else "limit"
    if problem in ("limit", "unreadable"):
        return "bad_gold", extracted, f"{problem}-gold"
    return "wrong", extracted, decision.rule
