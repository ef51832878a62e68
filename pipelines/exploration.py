"""How much a model explores and how well a reward exploits it (B-STaR, arXiv 2412.17256, section 2), measured.

For one problem with n samples, c of them correct, and K <= n:

    Pass@K        probability that some of K samples is correct: 1 - C(n - c, K) / C(n, K)       (Chen et al. 2021)
    Pass@K-S      probability that K samples hold at least S correct ones of different text
    Reward@K-S    probability that the S samples of highest reward among K are all correct
    diversity     |different equations| / |equations| over the correct samples
    equation gap  probability that two equations from two different correct samples differ
    unique correct  number of correct samples of different text

The first three are averages over all C(n, K) subsets, in closed form: unbiased estimates of what K fresh samples would
give (the paper draws K = n once). "Correct" leaves out samples that were cut off. Texts are compared spaces aside.

The ratio of different equations falls as a problem gets more correct samples, whatever they are; the equation gap does
not, so it is what to compare between models that solve different shares.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from configs.rows import Problem, Sample, VerdictRow
from data_gen.arithmetic import equalities
from pipelines.statistics import mean_interval

_MARKED = re.compile(  # a dollar sign closes mathematics only behind a character, and not before a digit: else it is money
    r"<<([^<>\n]*)>>|\$\$(.+?)\$\$|\$(?=\S)([^$\n]*[^$\n\s])\$(?!\d)|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.DOTALL
)

Figures = dict[str, float]


@dataclass(frozen=True)
class Drawn:
    """One sample as the metrics see it. `reward` orders samples (ties: the earlier one first)."""

    correct: bool
    text: str
    reward: float
    score: float | None = None  # what a scorer said, without the answer


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k). Raises ValueError when k > n."""
    _check(samples, k)
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def pass_at_k_s(samples: int, copies: Sequence[int], k: int, s: int) -> float:
    """Probability that k of n samples hold at least s different correct texts; `copies`: how often each one occurs.

    Subsets are counted by size and by the number of different texts in them (s stands for s and more): a text that
    occurs m times is left out in one way, or gives j of its copies in C(m, j) ways.
    """
    _check(samples, k)
    try:
        with np.errstate(over="raise"):
            return _at_least(samples, copies, k, s, float)
    except (OverflowError, FloatingPointError):  # from about 1,030 samples on there are more subsets than floats can count
        return _at_least(samples, copies, k, s, object)


def _at_least(samples: int, copies: Sequence[int], k: int, s: int, numbers: type) -> float:
    """`pass_at_k_s`, counted in floats or (`object`) in whole numbers of any size."""
    ways = np.zeros((s + 1, k + 1), numbers)
    ways[0, 0] = 1
    for m in copies:
        for d in range(s, -1, -1):  # downwards: a text is used once
            if ways[d].any():
                gained = np.zeros(k + 1, numbers)
                for j in range(1, min(m, k) + 1):
                    gained[j:] += math.comb(m, j) * ways[d, : k + 1 - j]
                ways[min(d + 1, s)] += gained
    wrong = samples - sum(copies)
    return float(sum(ways[s, i] * math.comb(wrong, k - i) for i in range(k + 1)) / math.comb(samples, k))


def reward_at_k_s(ranked: Sequence[bool], k: int, s: int) -> float:
    """Probability that the best s of k samples are all correct; `ranked`: correctness by falling reward.

    The s-th best of a subset stands at place i of all samples: it is correct, so are the s - 1 drawn before it, and
    the other k - s come from behind it.
    """
    n = len(ranked)
    _check(n, k)
    total, before = 0, 0
    for i, correct in enumerate(ranked):
        if correct:
            total += math.comb(before, s - 1) * math.comb(n - 1 - i, k - s)
            before += 1
    return total / math.comb(n, k)


def equations(text: str) -> list[str]:
    """Equations of a solution without spaces: those marked as mathematics (`<<...>>`, `$...$`, `\\[...\\]`, as in the
    paper's code); where nothing is marked, the equalities between numbers that `data_gen.arithmetic` reads."""
    marked = ["".join(next(g for g in m.groups() if g is not None).split()) for m in _MARKED.finditer(text)]
    if marked:
        return [m for m in marked if m]
    return ["".join(text[e.left.start : e.right.end].split()) for e in equalities(text)]


def diversity(found: Sequence[Sequence[str]]) -> float | None:
    """|different equations| / |equations| over the equations of each solution; None without any."""
    everything = [e for one in found for e in one]
    return len(set(everything)) / len(everything) if everything else None


def equation_gap(found: Sequence[Sequence[str]]) -> float | None:
    """Probability that an equation of one solution differs from an equation of another; None without two such."""
    counts = [Counter(one) for one in found]
    sizes = [c.total() for c in counts]
    together = sum(counts, Counter[str]())
    pairs = sum(sizes) ** 2 - sum(size * size for size in sizes)
    equal = sum(v * v for v in together.values()) - sum(v * v for c in counts for v in c.values())
    return 1.0 - equal / pairs if pairs else None


def figures(drawn: Sequence[Drawn], ks: Sequence[int], ss: Sequence[int]) -> Figures:
    """All metrics of one problem; Ks above the number of samples and Ss above K are left out."""
    n = len(drawn)
    right = [d for d in drawn if d.correct]
    copies = Counter(_plain(d.text) for d in right)
    written = [equations(d.text) for d in right]
    found: Figures = {"accuracy": len(right) / n, "unique_correct": float(len(copies))}
    ranked = [d.correct for d in sorted(drawn, key=lambda d: -d.reward)]
    scored = [d for d in drawn if d.score is not None]
    by_score = [d.correct for d in sorted(scored, key=lambda d: -(d.score or 0.0))]
    for k in (k for k in ks if k <= n):
        found[f"pass@{k}"] = pass_at_k(n, len(right), k)
        for s in (s for s in ss if s <= k):
            if s > 1:
                found[f"pass@{k}-{s}"] = pass_at_k_s(n, list(copies.values()), k, s)
            found[f"reward@{k}-{s}"] = reward_at_k_s(ranked, k, s)
            if len(by_score) == n:
                found[f"score@{k}-{s}"] = reward_at_k_s(by_score, k, s)
    for name, value in (("diversity", diversity(written)), ("equation_gap", equation_gap(written))):
        if value is not None:
            found[name] = value
    return found


def summary(each: Sequence[Figures]) -> dict[str, dict[str, float]]:
    """Mean over the problems that have a figure, with its 95 % interval: mean, low, high, problems."""
    names = list(dict.fromkeys(name for f in each for name in f))
    result = {}
    for name in names:
        values = [f[name] for f in each if name in f]
        mean, low, high = mean_interval(values)
        result[name] = {"mean": mean, "low": low, "high": high, "problems": float(len(values))}
    return result


def by_level(problems: Mapping[str, Problem], each: Mapping[str, Figures]) -> dict[str, dict[str, dict[str, float]]]:
    """`summary` for each difficulty level; nothing where problems have none."""
    levels = sorted({level for p in each if (level := problems[p].level) is not None})
    return {level: summary([f for p, f in each.items() if problems[p].level == level]) for level in levels}


def drawn_of(
    samples: Sequence[Sample], verdicts: Mapping[str, VerdictRow], rewards: Mapping[str, float], scores: Mapping[str, float]
) -> dict[str, list[Drawn]]:
    """The samples of each problem, in their order. A sample without a reward ranks last."""
    found: dict[str, list[Drawn]] = {}
    for s in samples:
        score = scores.get(s.id)
        right = verdicts[s.id].outcome == "correct" and s.finish_reason == "stop"
        found.setdefault(s.problem, []).append(Drawn(right, s.text, rewards.get(s.id, -math.inf), score))
    return found


def _plain(text: str) -> str:
    return " ".join(text.split())


def _check(samples: int, k: int) -> None:
    if not 0 < k <= samples:
        raise ValueError(f"K = {k} must be between 1 and the {samples} samples of the problem")
