"""Which problems come next. State is plain data and goes into the checkpoint; draws are a function of it alone."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Collection, Sequence
from typing import Any

from configs.keys import derive_seed

_FLOOR = 0.05  # weight of a problem that is always or never solved: it may have changed since
_FADE = 0.5  # what an old measurement counts when a new one comes


class Curriculum:
    """Seeded passes over all problems; or, `weighted`, draws by 4 p (1 - p) with p the measured pass rate.

    p (1 - p) is the variance of a 0/1 reward, hence what a problem can teach an estimator with a baseline. p starts
    at 1/2 with the weight of two samples (Laplace), so an unseen problem is as good as the best.
    """

    def __init__(self, problems: Sequence[str], seed: int, weighted: bool) -> None:
        self.problems, self.seed, self.weighted = list(problems), seed, weighted
        self.draws, self.place = 0, 0
        self.measured: dict[str, tuple[float, float]] = {}  # right answers and answers, faded

    def draw(self, count: int, used: Collection[str] = ()) -> list[str]:
        """The next problems, at most `count` different ones, none of them in `used`."""
        count = min(count, len(self.problems) - len(used))
        return self._weighted(count, used) if self.weighted else self._in_turn(count, used)

    def _in_turn(self, count: int, used: Collection[str]) -> list[str]:
        chosen: list[str] = []
        while len(chosen) < count:
            number, place = divmod(self.place, len(self.problems))
            candidate = self._order(number)[place]
            self.place += 1
            if candidate not in used and candidate not in chosen:
                chosen.append(candidate)
        return chosen

    def _order(self, number: int) -> list[str]:
        if getattr(self, "_cached", (None,))[0] != number:
            order = list(self.problems)
            random.Random(derive_seed(self.seed, "order", number)).shuffle(order)
            self._cached = (number, order)
        return self._cached[1]

    def _weighted(self, count: int, used: Collection[str]) -> list[str]:
        """Without replacement: the largest keys u^(1/w) (Efraimidis and Spirakis 2006), here as log(u) / w."""
        rng = random.Random(derive_seed(self.seed, "draw", self.draws))
        self.draws += 1
        keyed = [(math.log(1.0 - rng.random()) / self.weight(p), p) for p in self.problems]  # log(u) of u in (0, 1]
        return [p for _, p in heapq.nlargest(count, ((k, p) for k, p in keyed if p not in used))]

    def weight(self, problem: str) -> float:
        """How likely a problem is drawn, relative to the best possible."""
        right, tried = self.measured.get(problem, (0.0, 0.0))
        rate = (right + 1.0) / (tried + 2.0)
        return max(_FLOOR, 4.0 * rate * (1.0 - rate))

    def measure(self, problem: str, right: int, tried: int) -> None:
        """Take in how a problem went."""
        before = self.measured.get(problem, (0.0, 0.0))
        self.measured[problem] = (_FADE * before[0] + right, _FADE * before[1] + tried)

    def state(self) -> dict[str, Any]:
        """Plain data for the checkpoint."""
        return {"draws": self.draws, "place": self.place, "measured": self.measured if self.weighted else {}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.draws, self.place = state["draws"], state["place"]
        self.measured = {k: (v[0], v[1]) for k, v in state["measured"].items()}
