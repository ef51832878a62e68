"""Which answer to give when there are n samples: pass@k, best-of-k by score, majority and weighted votes.

Every figure is the exact mean over all C(n, k) subsets of k of the n samples; nothing is drawn. Ties share: where t
samples or answers are equally good, each counts 1/t. A sample's `correct` is 1.0 or 0.0; its `group` is the number
of the answer that it votes for, None where it gives none (it then votes for nothing; a subset without votes is
wrong). The accuracy of an answer is the mean `correct` of the samples that give it.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np

MOST_SUBSETS = 200_000  # weighted votes are counted subset by subset, up to so many

Groups = Sequence[int | None]


def pass_at_k(correct: Sequence[float], k: int) -> float:
    """Share of the subsets with a right sample: 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374)."""
    n, c = _size(correct, k), sum(x > 0.5 for x in correct)
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def best_at_k(correct: Sequence[float], scores: Sequence[float], k: int) -> float:
    """Accuracy of the best-scored sample of k (RM@k).

    Ranked by score, sample i (from 0) is the best of C(n - 1 - i, k - 1) subsets. Equal scores share their weights.
    """
    n = _size(correct, k)
    order = sorted(range(n), key=lambda i: -scores[i])
    total, first = 0.0, 0
    while first < n:
        last = first
        while last < n and scores[order[last]] == scores[order[first]]:
            last += 1
        best_of = math.comb(n - first, k) - math.comb(n - last, k)  # subsets whose best score is this one
        tied = order[first:last]
        total += best_of / math.comb(n, k) * sum(correct[i] for i in tied) / len(tied)
        first = last
    return total


def majority_at_k(correct: Sequence[float], groups: Groups, k: int) -> float:
    """Accuracy of the most frequent answer of k (maj@k).

    How often answer j occurs in a subset is counted by independent binomials with success rate k / n, given that they
    sum to k: that is the hypergeometric distribution, without large numbers. For each possible maximum, a table over
    (samples so far, answers at the maximum) holds the probability and the summed accuracy of the tied answers.
    """
    n = _size(correct, k)
    sizes, accuracy, silent = _answers(correct, groups)
    if not sizes:
        return 0.0
    rate = k / n
    total = 0.0
    for most in range(1, min(k, max(sizes)) + 1):
        ties = k // most
        # [samples so far, tied answers]: probability, and probability times the sum of the tied answers' accuracies
        weight, credit = np.zeros((k + 1, ties + 1)), np.zeros((k + 1, ties + 1))
        weight[: min(k, silent) + 1, 0] = _binomial(silent, rate)[: k + 1]
        for size, right in zip(sizes, accuracy, strict=True):
            new_weight, new_credit = np.zeros_like(weight), np.zeros_like(credit)
            for times, p in enumerate(_binomial(size, rate)[: most + 1]):
                shifted_weight, shifted_credit = weight[: k + 1 - times] * p, credit[: k + 1 - times] * p
                if times < most:
                    new_weight[times:] += shifted_weight
                    new_credit[times:] += shifted_credit
                else:
                    new_weight[times:, 1:] += shifted_weight[:, :-1]
                    new_credit[times:, 1:] += shifted_credit[:, :-1] + right * shifted_weight[:, :-1]
            weight, credit = new_weight, new_credit
        total += float(sum(credit[k, t] / t for t in range(1, ties + 1)))
    return total / float(_binomial(n, rate)[k])


def weighted_at_k(correct: Sequence[float], groups: Groups, weights: Sequence[float], k: int) -> float | None:
    """Accuracy of the answer with the largest sum of non-negative weights among k samples.

    Sums of arbitrary weights can only be compared subset by subset: None where there are more than MOST_SUBSETS.
    """
    n = _size(correct, k)
    if min(weights) < 0.0:
        raise ValueError("weights of a vote must not be negative")
    if math.comb(n, k) > MOST_SUBSETS:
        return None
    sizes, accuracy, _ = _answers(correct, groups)
    if not sizes:
        return 0.0
    names = sorted({g for g in groups if g is not None})
    votes = np.zeros((n, len(names)))
    present = np.zeros((n, len(names)))
    for i, g in enumerate(groups):
        if g is not None:
            votes[i, names.index(g)] = weights[i]
            present[i, names.index(g)] = 1.0
    subsets = _subsets(n, k)
    sums = np.where(subsets @ present > 0.0, subsets @ votes, -1.0)
    best = sums.max(1, keepdims=True)
    tied = (sums >= best - 1e-12 * np.abs(best)) & (best >= 0.0)
    return float((tied @ np.array(accuracy) / np.maximum(1, tied.sum(1))).mean())


def weighted_majority(groups: Groups, weights: Sequence[float]) -> int | None:
    """The answer with the largest sum of weights; among equals the one that comes first, None without votes."""
    sums: dict[int, float] = {}
    for g, w in zip(groups, weights, strict=True):
        if g is not None:
            sums[g] = sums.get(g, 0.0) + w
    return max(sums, key=lambda g: sums[g]) if sums else None


def group_equal(answers: Sequence[str | None], equal: str = "value") -> list[int | None]:
    """Numbers of the answers' groups in order of appearance; no answer has none.

    `value`: answers that the verifier holds for equal are one; it need not be transitive, so each answer is compared
    with the first of each group. `text`: the same characters, spaces aside.
    """
    from rewards.verifier import verify

    first: list[str] = []
    known: dict[str, int] = {}
    result: list[int | None] = []
    for answer in answers:
        if answer is None:
            result.append(None)
            continue
        text = " ".join(answer.split())
        if text not in known:
            same = (g for g, other in enumerate(first) if verify(f"\\boxed{{{text}}}", other, "strict").correct)
            number = next(same, None) if equal == "value" else None
            if number is None:
                number = len(first)
                first.append(text)
            known[text] = number
        result.append(known[text])
    return result


def powers(n: int) -> list[int]:
    """1, 2, 4, ... up to n, and n."""
    ks = [1 << i for i in range(n.bit_length())]
    return ks if ks[-1] == n else [*ks, n]


def _size(correct: Sequence[float], k: int) -> int:
    if not 1 <= k <= len(correct):
        raise ValueError(f"k must lie between 1 and the {len(correct)} samples, not be {k}")
    return len(correct)


def _answers(correct: Sequence[float], groups: Groups) -> tuple[list[int], list[float], int]:
    """Size and accuracy of each answer, and the number of samples without one."""
    members: dict[int, list[float]] = {}
    for g, c in zip(groups, correct, strict=True):
        if g is not None:
            members.setdefault(g, []).append(c)
    ordered = [members[g] for g in sorted(members)]
    return [len(m) for m in ordered], [sum(m) / len(m) for m in ordered], sum(g is None for g in groups)


@functools.lru_cache(maxsize=4096)
def _binomial(n: int, p: float) -> np.ndarray:
    """Probabilities of 0 to n successes."""
    if p >= 1.0:
        return np.eye(n + 1)[n]
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(n + 1)
    ]
    return np.exp(np.array(logs))


@functools.lru_cache(maxsize=8)
def _subsets(n: int, k: int) -> np.ndarray:
    """All subsets as rows of ones and zeros [C(n, k), n]."""
    chosen = np.array(list(itertools.combinations(range(n), k)))
    rows = np.zeros((len(chosen), n))
    rows[np.arange(len(chosen))[:, None], chosen] = 1.0
    return rows
