"""Which states get how many rollouts next: everything at once, or a search for the first pit.

`fixed` draws n continuations of every state. `sequential` does so for right samples, whose values are wanted. In a wrong
sample it looks for the first pit alone: a state is alive once a continuation succeeds, dead after n failures, and drawing
stops either way. A success after step k is within reach from all states before it, so those need no rollouts; those after
a dead state cannot be the first pit. Hence a bisection between the last state known alive and the first known dead. It is
lopsided, because a dead state costs n rollouts and a live one only a few.

The pit found is the first argmin of the values that are known, as with `fixed`; what the search does not see is a value
of zero that a later step recovers from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from data_gen.step_values import Chain, Tally

_LIVE_COST = 2.0  # rollouts until a live state shows a success, roughly
CHECK_FACTOR = 4  # rollouts of a check, in units of n


@dataclass(frozen=True)
class Allocation:
    """`n` rollouts a state at most; `batch` in the first round of a state, then as many again as it has."""

    n: int
    sequential: bool = False
    batch: int = 2

    @cached_property
    def forward(self) -> float:
        """Share of the open interval that lies before the next probe.

        With costs a and n of the two answers the best split leaves the share y beyond a live probe, where
        y + y^(n/a) = 1: the bits gained per rollout are then the same on both sides.
        """
        ratio = max(1.0, self.n / _LIVE_COST)
        low, high = 0.5, 1.0
        for _ in range(40):
            y = (low + high) / 2
            low, high = (y, high) if y + y**ratio < 1.0 else (low, y)
        return 1.0 - low

    def more(self, found: Tally) -> int:
        """How many rollouts a probed state should have after the next round; as many as now: it is decided."""
        if found.successes or found.drawn >= self.n:
            return found.drawn
        return min(self.n, max(self.batch, 2 * found.drawn))


def next_round(
    chains: Sequence[Chain], tallies: Mapping[str, Tally], allocation: Allocation, roots: bool, closed: Collection[str] = ()
) -> dict[str, int]:
    """Rollouts that states should have after the next round, for those that need more; empty when all is done.

    `roots`: the prompts need rollouts, too. `closed` states have no room for a continuation.
    """
    wanted: dict[str, int] = {}
    for c in chains:
        search = allocation.sequential and not c.correct
        inner = [s for i in c.inner if (s := c.states[i]) not in closed]
        targets = {c.states[0]: allocation.n} if roots and c.states[0] not in closed else {}
        if not search:
            targets |= dict.fromkeys(inner, allocation.n)
        elif (state := probe(inner, tallies, allocation)) is not None:
            targets[state] = allocation.more(tallies.get(state, Tally()))
        for state, count in targets.items():
            if tallies.get(state, Tally()).drawn < count:
                wanted[state] = max(count, wanted.get(state, 0))
    return wanted


def probe(states: Sequence[str], tallies: Mapping[str, Tally], allocation: Allocation) -> str | None:
    """The state to draw from next in search of the first dead one; None when it is found.

    The prompt (before `states`) is taken to be alive, what follows `states` is dead.
    """
    found = [tallies.get(s, Tally()) for s in states]
    dead = next((i for i, t in enumerate(found) if not t.successes and t.drawn >= allocation.n), len(states))
    alive = max((i for i in range(dead) if found[i].successes), default=-1)
    if dead - alive <= 1:
        return None
    step = int(allocation.forward * (dead - alive))
    return states[alive + min(max(1, step), dead - alive - 1)]
