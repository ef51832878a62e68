"""Credit by steps: what each step of a sample was worth, from continuations of the current policy (VinePPO, Kazemnejad et
al. 2024, arXiv 2410.01679).

    V(state) = mean reward of K continuations from it,     A(token) = V(after its step) - V(before its step)

The value after the last step is the sample's reward, so a sample's step advantages add up to its reward less the value of
the prompt.

Departures: the value of the prompt is the mean reward of the problem's other samples, which are continuations of the
prompt by the same policy and do not depend on this sample; a problem whose samples all have the same reward is not
rolled out and has advantages of 0; continuations that could not be judged do not count, and a state without any that
could parts no steps; a continuation may be as long as its sample could have been, and one that is cut off is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from data_gen.engine import Completion, Request
from data_gen.rollouts import in_prefix_order
from data_gen.step_values import states_at, step_advantages
from data_gen.steps import decode, step_spans
from pipelines.online.rollouts import Collector
from pipelines.store import Journal
from rewards import UNSCORED
from trainers.rollouts import Group, Trajectory, useful

_ROUND = "steps"  # their place in the journal, beside the numbers of the rounds of samples


@dataclass(frozen=True)
class _Path:
    """A sample as steps: their exclusive ends in its `token_ids` (the end token goes with the last), and the hashes of the
    states between them."""

    ends: list[int]
    states: list[str]


@dataclass(frozen=True)
class _State:
    """A prompt and the first steps of a solution, with the sampler's log-probabilities of these steps."""

    problem: str
    prompt_ids: list[int]
    ids: list[int]
    logprobs: list[float]


def credit_steps(
    collector: Collector, step: int, groups: Sequence[Group], journal: Journal
) -> tuple[list[Group], dict[str, float]]:
    """The groups of training step `step` with advantages on the tokens of their samples, and what it took."""
    paths = {g.problem: [_path(collector, g, s) for s in g.samples] for g in groups if useful(g, collector.settings)}
    states = _states(groups, paths)
    count = collector.settings.rl.step_rollouts
    requests = in_prefix_order(_request(collector, step, name, state, count) for name, state in states.items())

    def whole(c: Completion) -> Completion:
        state = states[c.request]
        ids = [*state.ids, *c.token_ids]
        return msgspec.structs.replace(
            c, request=state.problem, token_ids=ids, logprobs=[*state.logprobs, *c.logprobs], text=_text(collector, ids)
        )

    judged = collector.judged(_ROUND, requests, journal, {}, whole)
    scores = collector.scores(requests, judged, {})
    values: dict[str, float | None] = {}
    for name, state in states.items():  # None where no continuation could be judged
        names = [(name, i) for i in range(count) if judged[name, i][1] not in UNSCORED]
        rewards = collector.rewards_of(state.problem, names, judged, scores, Counter())
        values[name] = sum(rewards) / len(rewards) if rewards else None
    credited = [_credited(g, paths.get(g.problem), values) for g in groups]
    steps = [
        s.advantages[start]
        for g in credited if g.problem in paths
        for s, path in zip(g.samples, paths[g.problem], strict=True) if s.advantages
        for start in [0, *path.ends[:-1]]
    ]  # fmt: skip
    record: dict[str, float] = {
        "rollout_states": len(states), "rollouts": len(judged), "steps": len(steps),
        "rollouts_unjudged": sum(o in UNSCORED for _, o in judged.values()),
        "rollout_tokens": sum(len(s.token_ids) - len(states[name].ids) for (name, _), (s, _) in judged.items()),
    }
    return credited, record | ({"steps_nonzero": sum(a != 0 for a in steps) / len(steps)} if steps else {})


def _text(collector: Collector, ids: Sequence[int]) -> str:
    """A solution's text as engines give it: up to the first stop string."""
    text = decode(collector.encoder.tokenizer, ids)
    found = [at for s in collector.sampling["stop"] if (at := text.find(s)) >= 0]
    return text[: min(found)] if found else text


def _path(collector: Collector, group: Group, sample: Trajectory) -> _Path:
    """The steps of a sample; one that is all end token is one step."""
    encoder, ids = collector.encoder, sample.token_ids
    spans = step_spans(encoder.tokenizer, encoder.trimmed(ids, _text(collector, ids)))
    states = states_at(group.problem, group.prompt_ids, ids, spans)
    return _Path([*(s.end for s in spans[:-1]), len(ids)], states[1:-1])


def _states(groups: Sequence[Group], paths: Mapping[str, Sequence[_Path]]) -> dict[str, _State]:
    """The states to draw from, by hash: equal beginnings of a problem's samples are one."""
    return {
        name: _State(g.problem, g.prompt_ids, s.token_ids[:end], s.logprobs[:end])
        for g in groups if g.problem in paths
        for s, path in zip(g.samples, paths[g.problem], strict=True)
        for name, end in zip(path.states, path.ends, strict=False)
    }  # fmt: skip


def _request(collector: Collector, step: int, name: str, state: _State, count: int) -> Request:
    """Continuations of a state, drawn as its sample was; together they are as long as that may be."""
    sampling = collector.sampling
    return Request(
        id=name, prompt_ids=[*state.prompt_ids, *state.ids], temperature=sampling["temperature"], top_p=1.0,
        max_tokens=sampling["max_tokens"] - len(state.ids), min_p=collector.settings.rl.min_p,
        seeds=[collector.seed("step_rollout", step, name, i) for i in range(count)],
    )


def _credited(group: Group, paths: Sequence[_Path] | None, values: Mapping[str, float | None]) -> Group:
    """The group with advantages on its samples' tokens; without paths they are 0."""
    if paths is None:
        return replace(group, samples=[replace(s, advantages=[0.0] * len(s.token_ids)) for s in group.samples])
    total = sum(s.reward for s in group.samples)
    samples = []
    for s, path in zip(group.samples, paths, strict=True):
        prompt = (total - s.reward) / (len(group.samples) - 1)
        along = [prompt, *(values[name] for name in path.states), s.reward]
        samples.append(replace(s, advantages=step_advantages(path.ends, along)))
    return replace(group, samples=samples)
