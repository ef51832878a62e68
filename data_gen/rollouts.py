"""Rollouts as requests: which samples are valued, and what is asked of the engine.

A continuation is a function of the run's seed, the policy, the state and its number: whoever meets the same state again,
in another sample or a later iteration with the same policy, has the same continuations.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from configs.keys import derive_seed
from configs.rows import Rollout, Sample
from configs.schema import RolloutsSection
from data_gen.allocation import CHECK_FACTOR
from data_gen.engine import Completion, Request
from data_gen.step_values import Chain

LEAST_TOKENS = 16
_CHECK = "check"


@dataclass(frozen=True)
class Chosen:
    """Samples of one problem: `right` ones to compare with, the first `valued` of them valued; `wrong` ones valued."""

    right: list[Sample]
    wrong: list[Sample]
    valued: int

    @property
    def dropped(self) -> str | None:
        """Why the problem gives no pairs."""
        return "no_correct" if not self.right else "no_wrong" if not self.wrong else None


def choose(samples: Sequence[Sample], outcomes: Mapping[str, str], section: RolloutsSection, seed: int) -> Chosen:
    """Right samples, and at most `negatives` wrong ones, in random order, none with the same tokens as another.

    Samples that were cut off are never right; they count as wrong with `truncated_negatives`, and samples that ended
    without an answer with `unparsable_negatives`. Without a right sample nothing is valued.
    """

    def wrong(s: Sample) -> bool:
        outcome = outcomes.get(s.id)
        if s.finish_reason != "stop":
            return section.truncated_negatives and outcome in ("wrong", "no_answer")
        return outcome == "wrong" or (section.unparsable_negatives and outcome == "no_answer")

    distinct = list({tuple(s.token_ids): s for s in reversed(samples)}.values())[::-1]
    random.Random(seed).shuffle(distinct)
    right = [s for s in distinct if s.finish_reason == "stop" and outcomes.get(s.id) == "correct"]
    chosen = [s for s in distinct if wrong(s)][: section.negatives] if right else []
    return Chosen(right, chosen, min(len(right), section.positives))


@dataclass(frozen=True)
class State:
    """Where continuations begin: the prompt that the sample was drawn with, and the solution's ids so far."""

    problem: str
    prompt_ids: list[int]
    ids: list[int]


def states_of(chains: Iterable[Chain]) -> dict[str, State]:
    """All states but the final ones, by hash: equal prefixes of different samples are one."""
    return {
        hash_: State(c.sample.problem, c.sample.prompt_ids, c.prefix(i))
        for c in chains for i, hash_ in enumerate(c.states[:-1])
    }  # fmt: skip


def room(state: State, max_tokens: int, max_model_len: int) -> int:
    """Tokens that a continuation may have: what the sample would have had left; 0 if the context is too short for it."""
    left = min(max(LEAST_TOKENS, max_tokens - len(state.ids)), max_model_len - len(state.prompt_ids) - len(state.ids))
    return left if left >= LEAST_TOKENS else 0


@dataclass(frozen=True)
class Drawing:
    """How continuations are drawn: settings of all requests, and what their seeds derive from."""

    seed: int
    policy: str
    temperature: float
    top_p: float
    max_tokens: int
    max_model_len: int

    def request(self, name: str, state: State, first: int, count: int, check: bool = False) -> Request:
        """Continuations number `first` to `count` (exclusive) of a state; its id leads back by `parse`."""
        kind = _CHECK if check else "rollout"
        return Request(
            id=f"{name}/{kind}/{first}", prompt_ids=[*state.prompt_ids, *state.ids], temperature=self.temperature,
            top_p=self.top_p, max_tokens=room(state, self.max_tokens, self.max_model_len),
            seeds=[derive_seed(self.seed, kind, self.policy, name, i) for i in range(first, count)],
        )


def in_prefix_order(requests: Iterable[Request]) -> list[Request]:
    """Requests with a common prefix next to each other: the order of a walk through the tree of prefixes."""
    return sorted(requests, key=lambda r: r.prompt_ids)


def rollout(completion: Completion, problem: str, outcome: str) -> Rollout:
    """The row of a finished continuation."""
    name, kind, first = completion.request.split("/")
    index, check = int(first) + completion.index, kind == _CHECK
    return Rollout(
        id=f"{name}/{kind}/{index}", parents=[problem], stage="rollouts", problem=problem, prefix=name, index=index,
        token_ids=completion.token_ids, text=completion.text, finish_reason=completion.finish_reason, seed=completion.seed,
        outcome=outcome, check=check,
    )


def checked(pits: Iterable[str], share: float, seed: int) -> list[str]:
    """The states after pits that are tested: each by a draw of its own with probability `share`."""
    return [p for p in sorted(set(pits)) if derive_seed(seed, _CHECK, p) < share * 2**63]


def check_count(n: int) -> int:
    """Fresh continuations of a tested pit."""
    return CHECK_FACTOR * n
