"""B-STaR's balance: the surface in one pass beside the triple loop, and sequential allocation beside the grid.

    python -m benchmarks.bstar                               surface and allocation on simulated samples
    python -m benchmarks.bstar --runs RUN [RUN ...]          allocation also on real samples: runs whose sweep drew the
                                                             whole grid (balance.rounds=[1.0] balance.budget=1.0)

Surface. 600 queries, 64 samples, 201 thresholds, caps 1 to 64, as in the paper's fine grid and script. The peer is the
loop of that script, rewritten with our definitions: for every threshold, for every cap, for every query. It is timed on
fewer queries and scaled (it is linear in them), and must give the same numbers there.

Allocation. Simulated worlds: problems differ in difficulty, accuracy falls and variety grows with the temperature, rewards
are the answer or the answer and a noisy score. Each world is decided twice on the same samples: by the whole grid, and in
rounds. `same choice` counts equal (temperature, threshold); `loss` is how much lower the grid's own score of the
sequentially chosen point is. With real samples each run is replayed in `--orders` random orders of its problems, and a
bootstrap over the problems tells how often the grid itself would come to the same temperature again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import cpu, write_results
from configs.rows import Problem, Sample, Score, VerdictRow
from pipelines.allocation import Race, drop, round_ends
from pipelines.balance import Point, Pool, Rule, balance_score, choose, per_query, surface
from pipelines.candidates import candidates, rewards_of, scores_of
from pipelines.store import planned, read_rows

TEMPERATURES = tuple(round(0.5 + 0.1 * i, 1) for i in range(8))
THRESHOLDS = tuple(round(0.1 * i - 1, 1) for i in range(21))
ROUNDS = (0.125, 0.25, 0.5, 1.0)


def simulated(rng: np.random.Generator, queries: int, n: int, scored: bool) -> dict[float, Pool]:
    """One world: a pool for each temperature, all on the same problems."""
    skill = rng.normal(rng.uniform(-1.5, 1.0), 1.5, queries)
    decay, variety = rng.uniform(0.3, 4.0), rng.uniform(1.0, 5.0)
    sharpness = rng.uniform(0.2, 1.5)  # of the scorer
    pools = {}
    for t in TEMPERATURES:
        chance = 1 / (1 + np.exp(-(skill - decay * (t - 0.5))))
        correct = rng.random((queries, n)) < chance[:, None]
        ways = max(2, round(math.exp(variety * t)))  # different right solutions within reach; wrong ones rarely repeat
        text = np.where(correct, rng.integers(0, ways, (queries, n)), ways + rng.integers(0, 10**6, (queries, n)))
        reward = correct.astype(float)
        if scored:  # a deterministic scorer: equal texts, equal scores
            noise = np.random.default_rng(7).normal(0, 1, 4096)[(text * 31 + np.arange(queries)[:, None] * 101) % 4096]
            reward += np.tanh(sharpness * (correct - 0.5) + noise * 0.5)
        pools[t] = Pool(np.repeat(np.arange(queries), n), reward.ravel(), correct.ravel(), text.ravel(), queries)
    return pools


def first_queries(pool: Pool, count: int) -> Pool:
    """The pool of the first `count` queries (queries are in order)."""
    end = int(np.searchsorted(pool.query, count))
    return Pool(pool.query[:end], pool.reward[:end], pool.correct[:end], pool.text[:end], count)


def reordered(pools: Mapping[float, Pool], order: np.ndarray) -> dict[float, Pool]:
    """The same pools with their queries in another order."""
    result = {}
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    for t, p in pools.items():
        query = place[p.query]
        at = np.argsort(query, kind="stable")
        result[t] = Pool(query[at], p.reward[at], p.correct[at], p.text[at], p.queries)
    return result


@dataclass(frozen=True)
class Outcome:
    same: bool
    same_temperature: bool
    share: float
    loss: float
    dropped_by_budget: int


def race(pools: Mapping[float, Pool], rule: Rule, budget: float) -> Outcome:
    """Decide by rounds and by the grid, on the same samples."""
    queries = next(iter(pools.values())).queries
    surfaces = {t: surface(p, rule) for t, p in pools.items()}
    grid = choose(surfaces, rule, "all", 1)
    ends = round_ends(ROUNDS, queries)
    setting = Race(tuple(pools), ends, 0.05, budget)
    alive, used, before, by_budget = list(pools), 0, 0, 0
    chosen: Point = grid
    for end in ends:
        used += len(alive) * (end - before)
        before = end
        now = {t: first_queries(pools[t], end) for t in alive}
        chosen = choose({t: surface(p, rule) for t, p in now.items()}, rule, "all", 1)
        if end < queries:
            gone = drop(now, rule, "all", 1, setting, used)
            by_budget += sum(g.reason == "budget" for g in gone)
            alive = [t for t in alive if t not in {g.temperature for g in gone}]
    there = surfaces[chosen.temperature].score[rule.thresholds.index(chosen.threshold), -1]
    same = (chosen.temperature, chosen.threshold) == (grid.temperature, grid.threshold)
    share = used / (len(pools) * queries)
    return Outcome(same, chosen.temperature == grid.temperature, share, grid.score - float(there), by_budget)


def repeatability(pools: Mapping[float, Pool], rule: Rule, times: int) -> float:
    """How often the whole grid picks the same temperature on other problems of the same kind (bootstrap over queries)."""
    grid = choose({t: surface(p, rule) for t, p in pools.items()}, rule, "all", 1)
    caps = np.full(len(rule.thresholds), rule.caps)
    values = {t: per_query(p, rule, caps)[0] for t, p in pools.items()}
    same = 0
    for i in range(times):
        drawn = np.random.default_rng(i).integers(0, len(next(iter(values.values()))), len(next(iter(values.values()))))
        scores = {t: v[drawn].mean(axis=0).max() for t, v in values.items()}
        same += max(scores, key=lambda t: scores[t]) == grid.temperature
    return same / times


def summarise(what: str, outcomes: Sequence[Outcome], budget: float) -> dict[str, Any]:
    count = len(outcomes)
    share = sum(o.share for o in outcomes) / count
    losses = sorted(o.loss for o in outcomes)
    return {
        "what": f"{what}, budget {budget:g}", "ours": share, "peer": 1.0, "peer_name": "the whole grid", "ratio": share,
        "unit": "share of the grid's samples",
        "note": f"{count} sweeps; same temperature {sum(o.same_temperature for o in outcomes) / count:.1%}, same temperature "
        f"and threshold {sum(o.same for o in outcomes) / count:.1%}; most samples {max(o.share for o in outcomes):.1%}; score "
        f"lost where it differs: mean over all sweeps {sum(losses) / count:.5f}, largest {losses[-1]:.4f}",
        "same_temperature": sum(o.same_temperature for o in outcomes) / count,
        "same_choice": sum(o.same for o in outcomes) / count, "largest_share": max(o.share for o in outcomes),
        "mean_loss": sum(losses) / count, "largest_loss": losses[-1], "sweeps": count,
    }  # fmt: skip


def triple_loop(pool: Pool, rule: Rule) -> np.ndarray:
    """Mean score [threshold, cap] by the loop of the paper's script."""
    groups: list[list[tuple[float, bool, int]]] = [[] for _ in range(pool.queries)]
    for q, r, c, t in zip(pool.query.tolist(), pool.reward.tolist(), pool.correct.tolist(), pool.text.tolist(), strict=True):
        groups[q].append((r, c, t))
    groups = [sorted(g, key=lambda x: -x[0]) for g in groups]
    result = np.zeros((len(rule.thresholds), rule.caps))
    for i, threshold in enumerate(rule.thresholds):
        for cap in range(1, rule.caps + 1):
            total = 0.0
            for group in groups:
                chosen: dict[int, bool] = {}
                for r, c, t in group[:cap]:
                    if r > threshold:
                        chosen.setdefault(t, c)
                total += balance_score(sum(chosen.values()), len(chosen), rule.n_star)
            result[i, cap - 1] = total / len(groups)
    return result


def surface_row(queries: int, n: int, few: int) -> dict[str, Any]:
    """One pass beside the triple loop, which runs on `few` queries and is scaled."""
    pool = simulated(np.random.default_rng(0), queries, n, scored=True)[1.0]
    rule = Rule(8, tuple(round(0.01 * i - 1, 2) for i in range(201)), n)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        surface(pool, rule)
        times.append(time.perf_counter() - began)
    small = first_queries(pool, few)
    began = time.perf_counter()
    slow = triple_loop(small, rule)
    peer = (time.perf_counter() - began) * queries / few
    difference = float(np.abs(slow - surface(small, rule).score).max())
    if difference > 1e-9:
        raise SystemExit(f"the surfaces differ by {difference}")
    ours = min(times)
    return {
        "what": f"surface of one temperature: {queries} queries x {n} samples, 201 thresholds x {n} caps", "ours": ours,
        "peer": peer, "peer_name": "triple loop", "ratio": ours / peer, "unit": "seconds",
        "note": f"{peer / ours:.0f} times faster; the loop timed on {few} queries and scaled; they differ by {difference:.0e}",
    }


def real_pools(run: Path, human: bool = False) -> dict[str, dict[float, Pool]]:
    """Pools of every sweep in a run that drew the whole grid in one round, by its label."""
    plan = json.loads((run / "plan.json").read_text())
    stages = {s["key"]: s for s in plan["stages"]}
    found = {}
    for stage in (s for s in plan["stages"] if s["kind"] == "balance"):
        if "samples2" in stage["inputs"]:
            raise SystemExit(f"{run}: its sweep came in rounds; draw the grid with balance.rounds=[1.0] balance.budget=1.0")

        def rows(name: str, row: Any, inputs: dict[str, str] = stage["inputs"]) -> list[Any]:
            return read_rows(planned(plan, stages[inputs[name]]), row)

        samples: list[Sample] = rows("samples1", Sample)
        verdicts = {v.sample: v for v in rows("verdicts1", VerdictRow)}
        scores = scores_of(rows("scores1", Score), "minimum") if "scores1" in stage["inputs"] else None
        dev = {s.problem for s in samples}
        problems = [p for p in rows("problems", Problem) if p.id in dev]
        for name, values in (("answer only", None), ("answer and score", scores)):
            if name == "answer and score" and scores is None:
                continue
            rewards = rewards_of(samples, verdicts, values, 1.0, True)
            found[f"{stage['label']}, {name}"] = {
                t: candidates(problems, [s for s in samples if s.temperature == t], verdicts, rewards, human).pool
                for t in sorted({s.temperature for s in samples})
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--queries", type=int, default=600)
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--few", type=int, default=6, help="queries on which the triple loop is timed")
    parser.add_argument("--orders", type=int, default=50, help="random orders of the problems of each real sweep")
    parser.add_argument("--runs", type=Path, nargs="*", default=[])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "bstar.json")
    a = parser.parse_args()
    rows = [surface_row(a.queries, a.n, a.few)]
    for scored in (False, True):
        outcomes: dict[float, list[Outcome]] = {0.5: [], 1.0: []}
        for world in range(a.worlds):
            pools = simulated(np.random.default_rng(world), a.queries, a.n, scored)
            for budget, found in outcomes.items():
                found.append(race(pools, Rule(6, THRESHOLDS, a.n), budget))
        name = "answer and score" if scored else "answer only"
        rows += [summarise(f"simulated sweeps, {name}", found, budget) for budget, found in outcomes.items()]
    for run in a.runs:
        for label, pools in real_pools(run).items():
            queries, most = next(iter(pools.values())).queries, max(int(np.bincount(p.query).max()) for p in pools.values())
            rule = Rule(6, THRESHOLDS, most)
            for budget in (0.5, 1.0):
                found = [
                    race(reordered(pools, np.random.default_rng(i).permutation(queries)), rule, budget) for i in range(a.orders)
                ]
                row = summarise(f"real sweep of {queries} problems ({run.name}: {label})", found, budget)
                row["grid_repeats"] = repeatability(pools, rule, 500)
                row["note"] += f"; the grid on other problems (bootstrap) picks this temperature in {row['grid_repeats']:.1%}"
                rows.append(row)
    for row in rows:
        print(f"{row['what']}: {row['ours']:.4g} {row['unit']}, ratio {row['ratio']:.4f}; {row['note']}")
    write_results(a.output, "bstar", rows, ("numpy",), cpu())


if __name__ == "__main__":
    main()
