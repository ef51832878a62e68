"""Chains with known step values: a toy policy that succeeds from each state with a probability that is set."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from configs.rows import Sample
from data_gen.allocation import Allocation, next_round
from data_gen.step_values import Chain, Tally
from data_gen.steps import StepSpan


def sample_row(name: str, length: int) -> Sample:
    return Sample(
        id=name, parents=[], stage="sample", problem=name.split("#")[0], prompt_ids=[0], token_ids=list(range(1, length + 1)),
        text="", logprobs=[], logprob=0.0, finish_reason="stop", temperature=1.0, top_p=1.0, seed=0, model="m",
    )  # fmt: skip


def toy_chain(name: str, steps: int, correct: bool = False, shared: Sequence[str] = ()) -> Chain:
    """A chain of one-token steps; its first states may be those of another chain."""
    spans = [StepSpan(i, f"s{i}", i, i + 1) for i in range(steps)]
    states = [*shared, *(f"{name}/{i}" for i in range(len(shared), steps + 1))]
    return Chain(sample_row(name, steps), correct, list(range(1, steps + 1)), spans, states)


def wrong_curve(rng: random.Random, steps: int) -> list[float]:
    """True values of the states of a wrong sample: falling now and then, then 0 from a first pit on."""
    pit = rng.randrange(steps)
    value, values = rng.uniform(0.5, 1.0), []
    for _ in range(pit + 1):
        values.append(value)
        value *= rng.uniform(0.6, 1.0)
    return values + [0.0] * (steps - pit)


class ToyPolicy:
    """Draws continuation number i of a state: a success or not, the same whenever it is asked."""

    def __init__(self, values: Mapping[str, float], seed: int) -> None:
        self.values, self.seed, self.drawn = values, seed, 0

    def tally(self, state: str, count: int) -> Tally:
        wins = sum(random.Random(f"{self.seed}/{state}/{i}").random() < self.values[state] for i in range(count))
        return Tally(count, count, wins)

    def run(self, chains: Sequence[Chain], allocation: Allocation, roots: bool = False) -> tuple[dict[str, Tally], int]:
        """Tallies when the allocation asks for no more, and how many rounds it took."""
        tallies: dict[str, Tally] = {}
        rounds = 0
        while wanted := next_round(chains, tallies, allocation, roots):
            rounds += 1
            for state, count in wanted.items():
                before = tallies.get(state, Tally()).drawn
                assert count > before
                self.drawn += count - before
                tallies[state] = self.tally(state, count)
        return tallies, rounds
