"""A batch of judged samples: generation and verification side by side, journalled.

A journal holds what one step has drawn: completions group by group as they finish, then the verdicts of the round
once all are in. A step that is repeated after a kill reads it and draws only what is missing. Continuations for the
values of steps (`pipelines.online.step_values`) are a round of their own.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import msgspec

from configs.errors import InputError
from configs.rows import Problem
from configs.schema import TrainingSection
from data_gen.engine import Completion, Engine, Request
from data_gen.prompts import PromptEncoder
from pipelines.store import Journal
from rewards import UNSCORED, VerifierPool
from rewards.penalties import penalty
from rewards.shaping import Scorer, shaped_reward
from trainers.rollouts import Greedy, Group, Trajectory

_GREEDY = "/greedy"
Name = tuple[str, int]  # of a completion: its request and its number


@dataclass
class Round:
    """What one call of the engine brought: groups in the order asked, counts, and seconds by phase."""

    groups: list[Group] = field(default_factory=list)
    answers: int = 0
    unjudged: int = 0
    penalties: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)


class Collector:
    """Draws and judges samples. `sampling` and `rewards` are the recipe's sections as plain data; `seed` derives the
    seed of a sample from its step, problem and number. A `scorer` (a reward model) makes the reward a shaped one, with
    `alpha` as its scale."""

    def __init__(
        self, engine: Engine, encoder: PromptEncoder, pool: VerifierPool, problems: Mapping[str, Problem],
        settings: TrainingSection, sampling: Mapping[str, Any], rewards: Mapping[str, Any], seed: Any,
        scorer: Scorer | None = None, alpha: float = 0.5,
    ) -> None:  # fmt: skip
        self.engine, self.encoder, self.pool, self.problems = engine, encoder, pool, problems
        self.settings, self.sampling, self.rewards, self.seed = settings, sampling, rewards, seed
        self.scorer, self.alpha = scorer, alpha

    def collect(self, step: int, number: int, problems: Sequence[str], journal: Journal) -> Round:
        """Round `number` of step `step`: samples of `problems`, and their greedy completions where the method needs
        them, in one batch of the engine."""
        requests = [r for p in problems for r in self._requests(step, p)]
        result = Round()
        judged = self.judged(number, requests, journal, result.seconds)
        scores = self.scores(requests, judged, result.seconds)
        self._assemble(result, problems, requests, judged, scores)
        return result

    def judged(
        self, number: int | str, requests: Sequence[Request], journal: Journal, seconds: dict[str, float],
        whole: Callable[[Completion], Completion] = lambda c: c,
    ) -> dict[Name, tuple[Completion, str]]:
        """Completions of `requests` with their outcomes, by request and index: from the journal's round `number`, the rest
        drawn. `whole` makes of a completion the solution to be judged, with its problem as request. Adds to `seconds`."""
        mine = [(kind, rows) for kind, n, rows in journal.groups if n == number]
        drawn = [msgspec.convert(c, Completion) for kind, rows in mine if kind == "drawn" for c in rows]
        solutions = [whole(c) for c in drawn]
        known: list[str] | None = next((rows for kind, rows in mine if kind == "judged"), None)
        began = time.monotonic()
        with ThreadPoolExecutor(1) as judge:
            verdicts: list[Future[list[str]]] = []
            if known is None:
                verdicts.append(judge.submit(self._judge, list(solutions)))
            groups = self.engine.generate(requests, {c.request for c in drawn}) if known is None else ()
            for group in groups:
                journal.append(("drawn", number, group))
                drawn += group
                found = [whole(c) for c in group]
                solutions += found
                verdicts.append(judge.submit(self._judge, found))
            seconds["generate"] = time.monotonic() - began
            outcomes = [o for v in verdicts for o in v.result()] if known is None else known
        seconds["verify"] = time.monotonic() - began - seconds["generate"]
        if known is None:  # in the order of the journal, which is that of `drawn`
            journal.append(("judged", number, outcomes))
        return {(c.request, c.index): (s, o) for c, s, o in zip(drawn, solutions, outcomes, strict=True)}

    def accuracy(self, problems: Sequence[str]) -> float:
        """Share of `problems` that the greedy completion solves."""
        requests = [self._request(p, p, [0], 0.0) for p in problems]
        drawn = [c for group in self.engine.generate(requests) for c in group]
        outcomes = self._judge(drawn)
        return sum(_right(c, o) for c, o in zip(drawn, outcomes, strict=True)) / len(problems)

    def _requests(self, step: int, problem: str) -> list[Request]:
        seeds = [self.seed("rollout", step, problem, i) for i in range(self.sampling["n"])]
        found = [self._request(problem, problem, seeds, self.sampling["temperature"])]
        if self.settings.method == "remax":
            found.append(self._request(problem + _GREEDY, problem, [0], 0.0))
        return found

    def _request(self, name: str, problem: str, seeds: list[int], temperature: float) -> Request:
        ids = self.encoder.encode(self.problems[problem].question)
        length, limit = self.sampling["max_tokens"], self.sampling["max_model_len"]
        if len(ids) + length > limit:
            raise InputError(
                f"problem {problem}: its prompt of {len(ids)} tokens and sampling.max_tokens={length} exceed "
                f"sampling.max_model_len={limit}"
            )
        return Request(
            id=name, prompt_ids=ids, seeds=seeds, temperature=temperature, top_p=1.0, max_tokens=length,
            min_p=self.settings.rl.min_p if temperature else 0.0,
        )

    def _judge(self, completions: Sequence[Completion]) -> list[str]:
        """Outcomes by the verifier's own processes, while the engine goes on."""
        if not completions:
            return []
        golds = [self.problems[c.request.removesuffix(_GREEDY)].answer for c in completions]
        pairs = [(c.text, gold) for c, gold in zip(completions, golds, strict=True)]
        return [v.outcome for v in self.pool.verify_many(pairs, self.rewards["mode"], self.rewards["timeout"])]

    def _assemble(
        self, result: Round, problems: Sequence[str], requests: Sequence[Request],
        judged: Mapping[Name, tuple[Completion, str]], scores: Mapping[Name, float],
    ) -> None:
        """Groups from completions. An answer that could not be judged is left out: it is not a wrong one."""
        by_name = {r.id: r for r in requests}
        for problem in problems:
            request = by_name[problem]
            samples = [judged[problem, i] for i in range(len(request.seeds))]
            greedy = judged.get((problem + _GREEDY, 0))
            everything = [*samples, *([greedy] if greedy else [])]
            result.answers += len(everything)
            result.unjudged += sum(o in UNSCORED for _, o in everything)
            names = [(problem, i) for i, (_, o) in enumerate(samples) if o not in UNSCORED]
            if not names or (greedy and greedy[1] in UNSCORED):
                continue
            everyone = [*names, *([(problem + _GREEDY, 0)] if greedy else [])]
            rewards = self.rewards_of(problem, everyone, judged, scores, result.penalties)
            trajectories = [
                Trajectory(c.token_ids, c.logprobs, r, _right(c, o), c.finish_reason == "length")
                for (c, o), r in zip((judged[name] for name in names), rewards, strict=False)
            ]
            baseline = Greedy(rewards[-1], len(greedy[0].token_ids)) if greedy else None
            result.groups.append(Group(problem, request.prompt_ids, trajectories, baseline))

    def scores(
        self, requests: Sequence[Request], judged: Mapping[Name, tuple[Completion, str]], seconds: dict[str, float]
    ) -> dict[Name, float]:
        """The scorer's word on a whole round, asked for in the order of the requests: the order in which completions
        came in must not decide which of them share a forward pass. Adds to `seconds`."""
        if self.scorer is None:
            return {}
        began = time.monotonic()
        names = [(r.id, i) for r in requests for i in range(len(r.seeds))]
        answers = [judged[name][0] for name in names]
        questions = [self.problems[a.request.removesuffix(_GREEDY)].question for a in answers]
        scores = self.scorer(questions, answers)
        seconds["score"] = time.monotonic() - began
        return dict(zip(names, scores, strict=True))

    def rewards_of(
        self, problem: str, names: Sequence[Name], judged: Mapping[Name, tuple[Completion, str]],
        scores: Mapping[Name, float], penalties: Counter[str],
    ) -> list[float]:  # fmt: skip
        """Of completions of one problem: 1 for right, 0 for wrong, -1 for a penalised pattern; with a scorer, the shaped
        reward. Greedy completions are rewarded in the same way as samples."""
        question, wanted = self.problems[problem].question, self.settings.rl.penalties
        found = []
        for name in names:
            c, outcome = judged[name]
            right = _right(c, outcome)
            found.append(shaped_reward(scores[name], right, self.alpha) if self.scorer is not None else float(right))
            reason = penalty(c.text, question, c.logprobs, c.finish_reason == "length", wanted) if wanted else None
            if reason:
                penalties[reason] += 1
                found[-1] = -1.0
        return found


def _right(completion: Completion, outcome: str) -> bool:
    """A completion that was cut off is never right: the verifier may have read a number on the way to the answer."""
    return outcome == "correct" and completion.finish_reason == "stop"
