"""Values of steps from rollouts, first pits and advantages (Setlur et al., arXiv 2406.14532; VinePPO, arXiv 2410.01679).

The value of a state (a prompt and the first steps of a solution) is the chance that a fixed policy ends right from
there. With deterministic dynamics the advantage of a step is the value after it less the value before it (equation 3):

    A_i = Q_i - Q_{i-1},     Q = 1 - (1 - p)^K under best-of-K,  estimated from s of n by  1 - C(n-s, K) / C(n, K).

The first pit of a wrong sample is the first step that attains the lowest Q. All functions here are pure.

Departures: the value after the last step is the verdict itself, without rollouts, and a cut-off sample ends with 0;
the value before the first step is the share of the problem's samples that are right, where they come from the same
policy; continuations that the verifier could not judge count in neither s nor n.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.keys import content_key
from configs.rows import Rollout, Sample, Step
from data_gen.steps import StepSpan, step_spans

UNSCORED = ("timeout", "error", "bad_gold")
Interval = Callable[[int, int], tuple[float, float]]  # of s successes in n > 0


@dataclass(frozen=True, slots=True)
class Tally:
    """Continuations of one state: how many were drawn, how many of them judged, how many judged right."""

    drawn: int = 0
    judged: int = 0
    successes: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.drawn + other.drawn, self.judged + other.judged, self.successes + other.successes)

    @property
    def value(self) -> float | None:
        """Success rate; None if nothing was judged."""
        return self.successes / self.judged if self.judged else None


def tally(outcomes: Sequence[str]) -> Tally:
    """From the verdicts of all drawn continuations."""
    judged = [o for o in outcomes if o not in UNSCORED]
    return Tally(len(outcomes), len(judged), judged.count("correct"))


@dataclass(frozen=True)
class Chain:
    """A sample as a chain of states: `states[0]` is the prompt, `states[k]` the hash after step k - 1, the last one final.

    `ids` are the solution's ids, end token included where it ended.
    """

    sample: Sample
    correct: bool
    ids: list[int]
    spans: list[StepSpan]
    states: list[str]

    @property
    def inner(self) -> range:
        """Indices of the states between the prompt and the final one."""
        return range(1, len(self.states) - 1)

    def prefix(self, state: int) -> list[int]:
        """The solution's ids up to a state, by its index."""
        return self.ids[: self.spans[state - 1].end] if state else []


def chain(tokenizer: Any, sample: Sample, ids: Sequence[int], correct: bool) -> Chain:
    """The chain of a sample whose solution has these ids."""
    spans = step_spans(tokenizer, ids)
    return Chain(sample, correct, list(ids), spans, states_at(sample.problem, sample.prompt_ids, ids, spans))


def states_at(problem: str, prompt_ids: Sequence[int], ids: Sequence[int], spans: Sequence[StepSpan]) -> list[str]:
    """Hashes of the states before the first step and after each, of a solution with these ids."""
    ends = [0, *(s.end for s in spans)]
    # the problem counts, for its answer, and where its prompt ends, for the length that is left to a continuation
    return [content_key(problem, list(prompt_ids), list(ids[:end])) for end in ends]


def best_of(successes: int, count: int, k: int) -> float:
    """Unbiased estimate of the chance that one of `k` draws succeeds, from `successes` of `count` >= k draws.

    1 - C(count - successes, k) / C(count, k): the share of subsets of size k with a success in them.
    """
    if not 0 <= successes <= count or count < k:
        raise ValueError(f"best of {k} needs at least {k} draws, not {successes} of {count}")
    return 1.0 - math.comb(count - successes, k) / math.comb(count, k)


def first_pit(values: Sequence[float | None]) -> int | None:
    """Index of the first of the lowest values; None where no value is known."""
    known = [(v, i) for i, v in enumerate(values) if v is not None]
    return min(known)[1] if known else None


@dataclass(frozen=True)
class Curve:
    """The values along one chain, prompt first; None where unknown. Lists have one entry for each state."""

    tallies: list[Tally]
    values: list[float | None]
    best: list[float | None]
    final: float
    pit: int | None = None  # the step
    spurious: list[int] = field(default_factory=list)


def curve(chain: Chain, tallies: Mapping[str, Tally], n: int, k: int, interval: Interval) -> Curve:
    """Values, the pit of a wrong chain, and the steps of a right one that make no progress.

    No success in fewer than `n` draws (a search that moved on) says nothing about a pit.
    A step is spurious if the value before it leaves something to gain (its interval stays below 1) and the value after
    it is no higher: true, perhaps, but of no use to this policy (section 6.3.1).
    """
    final = float(chain.correct)
    mine = [tallies.get(s, Tally()) for s in chain.states[:-1]]
    values = [*(t.value for t in mine), final]
    best = [*(best_of(t.successes, t.judged, k) if t.judged >= k else None for t in mine), final]
    if not chain.correct:
        known = [v if t.successes or t.drawn >= n else None for v, t in zip(values[:-1], mine, strict=True)]
        return Curve([*mine, Tally()], values, best, final, first_pit([*known, final][1:]))
    spurious = [
        i for i in range(len(chain.spans) - 1)
        if (before := values[i]) is not None and (after := values[i + 1]) is not None
        and after <= before and interval(mine[i].successes, mine[i].judged)[1] < 1.0
    ]  # fmt: skip
    return Curve([*mine, Tally()], values, best, final, None, spurious)


def steps_of(chain: Chain, found: Curve, n: int, checks: Mapping[str, Tally], interval: Interval) -> list[Step]:
    """The Step rows of a chain; `n` is the number of rollouts with which a state counts as fully drawn."""
    rows = []
    for i, span in enumerate(chain.spans):
        state, t = i + 1, found.tallies[i + 1]
        final = state == len(chain.spans)
        before, after = found.best[i], found.best[state]
        low, high = (found.final,) * 2 if final else interval(t.successes, t.judged) if t.judged else (None, None)
        check = checks.get(chain.states[state]) if found.pit == i and not final else None
        rows.append(Step(
            id=f"{chain.sample.id}/s{i}", parents=[chain.sample.id], stage="steps", sample=chain.sample.id, index=i,
            text=span.text, start=span.start, end=span.end, value=found.values[state], low=low, high=high,
            successes=t.successes if t.judged or final else None, rollouts=t.judged if t.judged or final else None,
            best_of=after, advantage=after - before if after is not None and before is not None else None,
            correct=chain.correct, final=final, stopped=0 < t.drawn < n, pit=found.pit == i, spurious=i in found.spurious,
            prefix=chain.states[state], check_successes=check.successes if check else None,
            check_rollouts=check.judged if check else None,
        ))  # fmt: skip
    return rows


def tallies_of(rollouts: Sequence[Rollout], check: bool = False) -> dict[str, Tally]:
    """Tallies by state, of the ordinary rollouts or of the checks."""
    outcomes: dict[str, list[str]] = {}
    for r in rollouts:
        if r.check is check:
            outcomes.setdefault(r.prefix, []).append(r.outcome)
    return {prefix: tally(found) for prefix, found in outcomes.items()}


def step_advantages(ends: Sequence[int], values: Sequence[float | None]) -> list[float]:
    """Advantage of each token [ends[-1]]: the value after its step less the value before it (VinePPO).

    `ends` are the exclusive ends of the steps, `values` those before the first step and after each of them. A state whose
    value is unknown (None) parts nothing: the steps on both sides of it count as one. The first and the last value are
    known, and over the steps the advantages add up to their difference.
    """
    known = [(end, v) for end, v in zip([0, *ends], values, strict=True) if v is not None]
    if len(known) < 2 or known[0][0] != 0 or known[-1][0] != ends[-1]:
        raise ValueError("the values before the first step and after the last one must be known")
    found: list[float] = []
    for (start, before), (end, after) in itertools.pairwise(known):
        found += [after - before] * (end - start)
    return found


def advantage_weights(steps: Sequence[Step], length: int, temperature: float) -> list[float]:
    """Weights of a sample's `length` tokens for advantage-weighted regression: exp(A / temperature) of their step.

    The closed form of the paper's equation 4 with a KL term of strength `temperature` (Peng et al., arXiv 1910.00177).
    Tokens after the last step (the end token) go with it; steps without an advantage weigh 1.
    """
    weights = [1.0] * length
    for step in steps:
        end = length if step is steps[-1] else step.end
        weight = math.exp(step.advantage / temperature) if step.advantage is not None else 1.0
        weights[step.start : end] = [weight] * (end - step.start)
    return weights
