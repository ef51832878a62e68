"""From rows to what the balance score is taken of: rewards of samples, and pools of candidates.

Reward (B-STaR, section 3.1): 1 if the answer is right, else 0, plus the scorer's value where there is one. A scorer is
whatever writes `Score` rows, higher is better; the paper's is the lowest step score of a process reward model in [-1, 1].
Of a process model's row the steps count, put together as a raw logit. `scale` divides the value, `clamp` then holds it
in [-1, 1] (the paper's code: a raw logit / 5, not clamped).

A sample that was cut off, has no answer or could not be judged is no candidate, whatever its score (the paper's code
gives a broken format -5, below every threshold).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import InputError
from configs.rows import Problem, Sample, Score, VerdictRow
from data_gen.problems import strip_calculator_marks
from pipelines.balance import Pool
from rewards.shaping import aggregated_logit

HUMAN_REWARD = 1.0  # of the solution that came with the problem, as in the paper's code


@dataclass(frozen=True)
class Candidates:
    """A pool and what its responses are: samples, or a problem in place of its human solution."""

    pool: Pool
    sources: list[Sample | Problem]


def scores_of(rows: Iterable[Score], aggregation: str) -> dict[str, float]:
    """Score of each sample. `aggregation` puts the steps of a process model together, as a logit."""
    return {s.sample: aggregated_logit(s.steps, aggregation) if s.steps else s.value for s in rows}


def rewards_of(
    samples: Iterable[Sample], verdicts: Mapping[str, VerdictRow], scores: Mapping[str, float] | None, scale: float, clamp: bool
) -> dict[str, float]:
    """Reward of each sample that may be selected. `scores` None: the answer alone.

    Raises InputError when a sample that may be selected has no score.
    """
    found: dict[str, float] = {}
    for s in samples:
        outcome = verdicts[s.id].outcome
        if outcome not in ("correct", "wrong") or s.finish_reason != "stop":
            continue
        value = 0.0
        if scores is not None:
            if s.id not in scores:
                raise InputError(f"sample {s.id} has no score: the scorer must score every sample that has an answer")
            value = scores[s.id] / scale
            value = max(-1.0, min(1.0, value)) if clamp else value
        found[s.id] = float(outcome == "correct") + value
    return found


def candidates(
    problems: Sequence[Problem], samples: Iterable[Sample], verdicts: Mapping[str, VerdictRow], rewards: Mapping[str, float],
    human: bool,
) -> Candidates:  # fmt: skip
    """The pool of all `problems`, each a query with the samples that have a reward in their order; `human`: then the
    problem's own solution, where it has one."""
    by_problem: dict[str, list[Sample]] = {p.id: [] for p in problems}
    for s in samples:
        if s.id in rewards:
            by_problem[s.problem].append(s)
    query: list[int] = []
    sources: list[Sample | Problem] = []
    values: list[float] = []
    correct: list[bool] = []
    texts: list[int] = []
    for number, problem in enumerate(problems):
        known: dict[str, int] = {}
        group: list[Sample | Problem] = [*by_problem[problem.id]]
        if human and problem.solution:
            group.append(problem)
        for source in group:
            is_sample = isinstance(source, Sample)
            text = source.text if is_sample else strip_calculator_marks(source.solution or "")
            query.append(number)
            sources.append(source)
            values.append(rewards[source.id] if is_sample else HUMAN_REWARD)
            correct.append(verdicts[source.id].outcome == "correct" if is_sample else True)
            texts.append(known.setdefault(" ".join(text.split()), len(known)))
    pool = Pool(
        np.array(query, dtype=np.int64), np.array(values, dtype=np.float64), np.array(correct, dtype=bool),
        np.array(texts, dtype=np.int64), len(problems),
    )
    return Candidates(pool, sources)
