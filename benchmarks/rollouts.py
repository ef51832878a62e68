"""Step values by rollouts: what sharing and the search for pits save, and rollouts per second with prefix-aware ordering.

    python -m benchmarks.rollouts                         chains with known values, and real samples on this machine
    python -m benchmarks.rollouts --engine vllm --source gsm8k --problems 200 --samples 8 --n 8       on a GPU
    python -m benchmarks.rollouts --problems 4 --samples 4 --n 4 --max-tokens 48                      a quick check

The naive scheme draws n continuations after every step but the last of every wrong sample. Chains: the true value of a state
falls at random and is 0 from a first pit on; an error is a pit found elsewhere. Real samples: wrong samples of SmolLM2-135M.
Ordering: the same continuations, each a request of its own, in the order of the prefix tree against a random order; the
prefix cache is emptied before each (vLLM), and orders take turns.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.record import accelerator, write_results
from configs.schema import ModelSection, PromptSection
from data_gen.allocation import Allocation, next_round
from data_gen.engine import Completion, Engine, EngineConfig, Request, open_engine, resolve_engine
from data_gen.problems import load_problems
from data_gen.procedural import generate
from data_gen.prompts import PromptEncoder
from data_gen.rollouts import Drawing, State, in_prefix_order, rollout, states_of
from data_gen.step_values import Chain, Tally, chain, curve, tally
from data_gen.steps import decode
from pipelines.hardware import resolve_dtype
from pipelines.models import resolve_model
from pipelines.statistics import clustered, wilson
from rewards import verify
from tests.data_gen.chains import ToyPolicy, toy_chain, wrong_curve

SYSTEM = "Solve the problem step by step. End with the final answer on its own line as #### number."
CONTEXT = 1024


def simulated(samples: int, runs: int) -> list[dict[str, Any]]:
    """Errors and rollouts a sample on chains with known values; half of the samples share their first steps in pairs."""
    rng = random.Random(1)
    values: dict[str, float] = {}
    chains, truth = [], {}
    for i in range(samples):
        true = wrong_curve(rng, rng.randint(4, 10))
        shared: list[str] = []
        if i % 4 == 1:  # the same beginning as the sample before
            before, other = chains[-1], truth[chains[-1].sample.id]
            same = rng.randint(1, max(1, min(other, len(true) - 2)))
            shared = before.states[: same + 1]
            true = [*(values[s] for s in shared), *true[same + 1 :]]
        c = toy_chain(f"p{i}#0", len(true) - 1, shared=shared)
        values |= dict(zip(c.states, true, strict=True))
        truth[c.sample.id] = true.index(0.0) - 1
        chains.append(c)
    rows, naive = [], 0.0
    for name, allocation, share in (
        ("naive: n after every step", Allocation(8), False),
        ("equal prefixes once", Allocation(8), True),
        ("sequential, n = 8", Allocation(8, sequential=True), True),
        ("sequential, n = 16", Allocation(16, sequential=True), True),
    ):  # fmt: skip
        drawn, wrong = 0, Counter[str]()
        for seed in range(runs):
            policy = ToyPolicy(values, seed)
            tallies, _ = policy.run(chains, allocation)
            drawn += policy.drawn if share else allocation.n * sum(len(c.inner) for c in chains)
            wrong.update(c.sample.id for c in chains if curve(c, tallies, allocation.n, 1, wilson).pit != truth[c.sample.id])
        each, count = drawn / (runs * samples), runs * samples
        naive = naive or each
        low, high = clustered([wrong[c.sample.id] / runs for c in chains], count)  # each chain is drawn in every run
        rows.append({
            "what": f"rollouts a wrong sample, {name}", "ours": round(each, 2), "peer": round(naive, 2), "peer_name": "naive",
            "ratio": round(each / naive, 4), "unit": "rollouts", "n": count,
            "note": f"wrong pit {wrong.total() / count:.3f} [{low:.3f}, {high:.3f}]",
        })  # fmt: skip
    return rows


class Real:
    """Wrong samples of a real model, and its continuations of them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.a = arguments
        model = resolve_model(ModelSection())
        self.encoder = PromptEncoder(model.path, PromptSection(system=SYSTEM))
        self.engine: Engine = open_engine(EngineConfig(
            kind=resolve_engine(arguments.engine), model=str(model.path), dtype=resolve_dtype("auto"),
            batch_size=arguments.batch_size, max_model_len=CONTEXT, gpu_memory=arguments.gpu_memory,
        ))  # fmt: skip
        self.drawing = Drawing(0, "benchmark", 0.7, 1.0, arguments.max_tokens, CONTEXT)
        self.golds: dict[str, str] = {}

    def wrong_chains(self) -> list[Chain]:
        """Chains of the samples that ended with a wrong answer."""
        from configs.rows import Sample

        a = self.a
        problems = (
            load_problems("gsm8k", "train", limit=a.problems) if a.source == "gsm8k"
            else generate(a.problems, "train", 3, (2, 3), 20)
        )
        self.golds = {p.id: p.answer for p in problems}
        prompts = {p.id: self.encoder.encode(p.question) for p in problems}
        requests = [
            Request(id=p.id, prompt_ids=prompts[p.id], seeds=[1000 * i + k for k in range(a.samples)], temperature=0.7,
                    top_p=1.0, max_tokens=a.max_tokens)
            for i, p in enumerate(problems)
        ]  # fmt: skip
        chains = []
        for c in sorted((c for group in self.engine.generate(requests) for c in group), key=lambda c: (c.request, c.index)):
            if c.finish_reason == "stop" and verify(c.text, self.golds[c.request], mode="lenient").outcome == "wrong":
                row = Sample(
                    id=f"{c.request}#{c.index}", parents=[], stage="sample", problem=c.request, prompt_ids=prompts[c.request],
                    token_ids=c.token_ids, text=c.text, logprobs=[], logprob=0.0, finish_reason=c.finish_reason,
                    temperature=0.7, top_p=1.0, seed=c.seed, model="m",
                )
                chains.append(chain(self.encoder.tokenizer, row, c.token_ids, False))
        return chains

    def outcome(self, state: State, c: Completion) -> str:
        if c.finish_reason != "stop":
            return "wrong"
        return verify(decode(self.encoder.tokenizer, state.ids) + c.text, self.golds[state.problem], mode="lenient").outcome

    def allocate(self, chains: list[Chain], allocation: Allocation) -> tuple[dict[str, Tally], int, float]:
        """Tallies, rollouts drawn and seconds of an allocation."""
        states, tallies, drawn = states_of(chains), {}, 0
        began = time.monotonic()
        while wanted := next_round(chains, tallies, allocation, False):
            requests = [
                self.drawing.request(s, states[s], tallies.get(s, Tally()).drawn, count) for s, count in wanted.items()
            ]
            for group in self.engine.generate(in_prefix_order(requests)):
                for c in group:
                    row = rollout(c, "", self.outcome(states[c.request.split("/")[0]], c))
                    tallies[row.prefix] = tallies.get(row.prefix, Tally()) + tally([row.outcome])
                    drawn += 1
        return tallies, drawn, time.monotonic() - began

    def ordering(self, chains: list[Chain], repeats: int) -> dict[str, tuple[float, float]]:
        """By order, rollouts per second (median) and share of the prompt tokens that were not computed."""
        a, states = self.a, states_of(chains)
        singles = [
            msgspec.structs.replace(r, id=f"{r.id}/{k}", seeds=[seed])
            for s, state in states.items() if state.ids
            for r in [self.drawing.request(s, state, 0, a.n)] for k, seed in enumerate(r.seeds)
        ]
        shuffled = random.Random(0).sample(singles, len(singles))
        orders = {"prefix order": in_prefix_order(singles), "random order": shuffled}
        rates: dict[str, list[float]] = {name: [] for name in orders}
        hits: dict[str, float] = {}
        for _ in range(repeats):
            for name, requests in orders.items():
                if llm := getattr(self.engine, "_llm", None):
                    llm.reset_prefix_cache()
                before, began = getattr(self.engine, "prefill", (0, 0)), time.monotonic()
                count = sum(len(group) for group in self.engine.generate(requests))
                rates[name].append(count / (time.monotonic() - began))
                after = getattr(self.engine, "prefill", (0, 0))
                hits[name] = (after[1] - before[1]) / max(1, after[0] - before[0])
        return {name: (statistics.median(found), hits[name]) for name, found in rates.items()}


def real(a: argparse.Namespace) -> list[dict[str, Any]]:
    run = Real(a)
    chains = run.wrong_chains()
    if not chains:
        raise SystemExit("no wrong samples: raise --problems")
    naive = a.n * sum(len(c.inner) for c in chains)
    fixed, drawn, seconds = run.allocate(chains, Allocation(a.n))
    searched, fewer, less = run.allocate(chains, Allocation(a.n, sequential=True))
    pits = [[curve(c, t, a.n, 1, wilson).pit for c in chains] for t in (fixed, searched)]
    same = sum(x == y for x, y in zip(*pits, strict=True))
    where = f"{len(chains)} wrong samples, {a.source}, {resolve_engine(a.engine)}"
    rows = [
        {"what": f"rollouts, equal prefixes once ({where})", "ours": drawn, "peer": naive, "peer_name": "naive",
         "ratio": round(drawn / max(1, naive), 4), "unit": "rollouts", "note": f"{seconds:.1f} s"},
        {"what": f"rollouts, sequential ({where})", "ours": fewer, "peer": naive, "peer_name": "naive",
         "ratio": round(fewer / max(1, naive), 4), "unit": "rollouts",
         "note": f"{less:.1f} s; the same pit as fixed allocation in {same} of {len(chains)}"},
    ]  # fmt: skip
    orders = run.ordering(chains, a.repeats)
    own = "" if resolve_engine(a.engine) == "vllm" else "; this engine makes its own batches, so a difference is noise"
    (ours, hit), (peer, other) = orders["prefix order"], orders["random order"]
    rows.append({
        "what": f"rollouts per second, prefix order ({where})", "ours": round(ours, 2), "peer": round(peer, 2),
        "peer_name": "random order", "ratio": round(ours / peer, 4), "unit": "1/s",
        "note": f"prompt tokens not computed: {hit:.1%} against {other:.1%}; gpu_memory {a.gpu_memory}, "
                f"median of {a.repeats}{own}",
    })  # fmt: skip
    run.engine.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("both", "simulated", "real"), default="both")
    parser.add_argument("--engine", choices=("auto", "transformers", "vllm"), default="auto")
    parser.add_argument("--source", choices=("procedural", "gsm8k"), default="procedural")
    for name, default in (("problems", 12), ("samples", 4), ("n", 8), ("max-tokens", 96), ("batch-size", 64), ("repeats", 1),
                          ("chains", 400), ("runs", 20)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--gpu-memory", type=float, default=0.6)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "rollouts.json")
    a = parser.parse_args()
    rows = (simulated(a.chains, a.runs) if a.part != "real" else []) + (real(a) if a.part != "simulated" else [])
    for r in rows:
        print(f"{r['what']:95s} {r['ours']:>9} / {r['peer']:>9} = {r['ratio']:.3f}  {r['note']}")
    write_results(a.output, "rollouts", rows, ("torch", "transformers", "vllm"), accelerator())


if __name__ == "__main__":
    main()
