"""Continuations after each step of chosen samples, in the shards of the samples.

Inputs: problems, samples, verdicts, optionally model (the policy, if trained), earlier* (finished rollouts of the same
policy, whose continuations are used again). Every round's completions are journalled; what a round asks for follows from
the rounds before, so a resumed shard goes on where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from configs.errors import RatchetError
from configs.keys import derive_seed
from configs.rows import Problem, Rollout, Sample, VerdictRow
from configs.schema import PromptSection, RolloutsSection
from data_gen.allocation import Allocation, next_round
from data_gen.prompts import PromptEncoder
from data_gen.rollouts import (
    Chosen,
    Drawing,
    State,
    check_count,
    checked,
    choose,
    in_prefix_order,
    rollout,
    room,
    states_of,
)  # fmt: skip
from data_gen.step_values import UNSCORED, Chain, Tally, chain, curve, tallies_of
from data_gen.steps import decode
from pipelines.journalled import Generation
from pipelines.stage import Report, ShardResult, ShardRunner, Task, add_metrics, register
from pipelines.stages.sample import weights_of
from pipelines.statistics import wilson
from pipelines.store import write_rows
from rewards import verify


class RolloutsStage:
    """config: rollouts (the section), root_from_samples, mode, timeout, max_failure_rate, temperature, top_p, max_tokens,
    prompt, policy, model, dtype, engine, batch_size, max_model_len, stop, adapter, seed."""

    name, version, where, device = "rollouts", 1, "workers", False

    def shards(self, task: Task) -> int:
        return sum(name.startswith("part-") for name in task.input("samples").manifest()["files"])

    def open(self, task: Task) -> ShardRunner:
        problems: dict[str, Problem] = {p.id: p for p in task.rows("problems", Problem)}
        base, adapter = weights_of(task)
        encoder = PromptEncoder(base, PromptSection.model_validate(task.config["prompt"]))
        earlier = [r for name in sorted(task.inputs) if name.startswith("earlier") for r in task.rows(name, Rollout)]

        def run(shard: int, report: Report) -> ShardResult:
            chains = chains_of(task, encoder, [shard])
            generation = Generation(task, base, adapter, shard, report, logprobs=False)
            work = _Shard(task, encoder, problems, chains, earlier, generation)
            work.values()
            work.checks()
            generation.close()
            write_rows(task.artefact.part(shard), work.rows, Rollout)
            return ShardResult(rows=len(work.rows), metrics=work.metrics(), timing=generation.timing)

        return run

    def metrics(self, task: Task, shards: Sequence[ShardResult]) -> dict[str, Any]:
        """Sums, and what was saved. Stops the run when too many continuations could not be judged."""
        total = add_metrics(shards)
        failed, drawn, limit = total["unscored"], total["drawn"] + total["checks"], task.config["max_failure_rate"]
        if failed > limit * max(1, drawn):
            raise RatchetError(
                f"{task.label}: {failed} of {drawn} rollouts could not be judged, more than rewards.max_failure_rate={limit}"
            )
        return {**total, "saved": round(1.0 - total["drawn"] / max(1, total["naive"]), 4)}


def chosen_of(task: Task, shards: Sequence[int] | None = None) -> dict[str, Chosen]:
    """By problem, its chosen samples; the same in every stage that asks."""
    section = RolloutsSection.model_validate(task.config["rollouts"])
    verdicts: list[VerdictRow] = task.rows("verdicts", VerdictRow, shards)
    outcomes = {v.sample: v.outcome for v in verdicts}
    samples: dict[str, list[Sample]] = {}
    for s in task.rows("samples", Sample, shards):
        samples.setdefault(s.problem, []).append(s)
    seed = (task.config["seed"], task.inputs["samples"][1])
    return {problem: choose(mine, outcomes, section, derive_seed(*seed, problem)) for problem, mine in samples.items()}


def chains_of(task: Task, encoder: PromptEncoder, shards: Sequence[int] | None = None) -> list[Chain]:
    """The chains of the samples that are valued."""
    chains = []
    for chosen in chosen_of(task, shards).values():
        valued = [(s, False) for s in chosen.wrong] + [(s, True) for s in chosen.right[: chosen.valued]]
        chains += [chain(encoder.tokenizer, s, target(encoder, s), right) for s, right in valued]
    return chains


def target(encoder: PromptEncoder, sample: Sample) -> list[int]:
    """The solution's ids with its end token; a solution that was cut off has none."""
    return encoder.trimmed(sample.token_ids, sample.text) if sample.finish_reason == "stop" else list(sample.token_ids)


class _Shard:
    """The rollouts of one shard: `rows` by state and number, ordinary ones before checks."""

    def __init__(
        self, task: Task, encoder: PromptEncoder, problems: Mapping[str, Problem], chains: Sequence[Chain],
        earlier: Sequence[Rollout], generation: Generation,
    ) -> None:
        config = task.config
        self._config, self._encoder, self._problems = config, encoder, problems
        self._chains, self._generation = chains, generation
        self._section = RolloutsSection.model_validate(config["rollouts"])
        self._states = states_of(chains)
        settings = {k: config[k] for k in ("seed", "policy", "temperature", "top_p", "max_tokens", "max_model_len")}
        self._drawing = Drawing(**settings)
        self._closed = {n for n, s in self._states.items() if not room(s, config["max_tokens"], config["max_model_len"])}
        self._known: dict[str, dict[int, Rollout]] = {}
        for r in earlier:
            if r.prefix in self._states and not r.check and r.index < self._section.n:
                self._known.setdefault(r.prefix, {})[r.index] = r
        self.reused = sum(map(len, self._known.values()))
        self._checks: dict[str, list[Rollout]] = {}

    def values(self) -> None:
        """Rounds of ordinary rollouts, until the allocation asks for no more."""
        section = self._section
        allocation = Allocation(section.n, section.allocation == "sequential", section.batch)
        roots = not self._config["root_from_samples"]
        tallies = {name: self._tally(name) for name in self._known}
        bound = section.n * len(self._states)
        while wanted := next_round(self._chains, tallies, allocation, roots, self._closed):
            requests = [
                self._drawing.request(name, self._states[name], len(self._known.get(name, ())), count)
                for name, count in wanted.items()
            ]
            for r in self._judged(requests, bound):
                self._known.setdefault(r.prefix, {})[r.index] = r
            tallies |= {name: self._tally(name) for name in wanted}

    def checks(self) -> None:
        """Fresh continuations of a share of the pits found."""
        tallies = tallies_of([r for known in self._known.values() for r in known.values()])
        pits = []
        for c in (c for c in self._chains if not c.correct):
            pit = curve(c, tallies, self._section.n, self._section.best_of, wilson).pit
            if pit is not None and pit + 1 in c.inner:
                pits.append(c.states[pit + 1])
        tested = checked(pits, self._section.recheck, self._config["seed"])
        count = check_count(self._section.n)
        requests = [self._drawing.request(name, self._states[name], 0, count, check=True) for name in tested]
        for r in self._judged(requests, None):
            self._checks.setdefault(r.prefix, []).append(r)

    def _tally(self, name: str) -> Tally:
        return tallies_of(list(self._known[name].values()))[name]

    def _judged(self, requests: Sequence[Any], total: int | None) -> list[Rollout]:
        """One round: drawn in prefix order, then verified."""
        drawn = self._generation.draw(in_prefix_order(requests), total)
        rows = []
        for request in requests:
            name = request.id.split("/")[0]
            judge = self._judge(self._states[name])
            for c in drawn[request.id]:
                rows.append(rollout(c, self._states[name].problem, judge(c.text) if c.finish_reason == "stop" else "no_answer"))
        return rows

    def _judge(self, state: State) -> Callable[[str], str]:
        """The verdict on the whole solution, given its continuation from the state."""
        before, gold = decode(self._encoder.tokenizer, state.ids), self._problems[state.problem].answer
        mode, timeout = self._config["mode"], self._config["timeout"]
        return lambda text: verify(before + text, gold, mode=mode, timeout=timeout).outcome

    @property
    def rows(self) -> list[Rollout]:
        """All rollouts that belong to this shard's states, in a fixed order."""
        known = [self._known[name][i] for name in self._states if name in self._known for i in sorted(self._known[name])]
        return known + [r for name in self._states for r in self._checks.get(name, ())]

    def metrics(self) -> dict[str, Any]:
        """`naive` is what fixed allocation without any sharing would draw: n after each step but the last, and from
        each sample's prompt where the samples themselves do not give its value."""
        n, roots = self._section.n, not self._config["root_from_samples"]
        places = sum(len(c.inner) + roots for c in self._chains)
        distinct = sum(bool(s.ids) or roots for s in self._states.values())
        rows = self.rows
        outcomes = Counter(r.outcome for r in rows)
        checks = sum(r.check for r in rows)
        return {
            "samples": len(self._chains), "states": distinct, "naive": n * places, "without_duplicates": n * distinct,
            "drawn": len(rows) - checks - self.reused, "reused": self.reused, "checks": checks,
            "correct": outcomes["correct"], "truncated": sum(r.finish_reason == "length" for r in rows),
            "unscored": sum(outcomes[o] for o in UNSCORED), "no_room": len(self._closed),
            "tokens": sum(len(r.token_ids) for r in rows),
        }


register(RolloutsStage())
