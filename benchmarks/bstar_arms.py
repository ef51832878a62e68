"""B-STaR beside its control arms at small scale: procedural problems of graded difficulty, equal sampling budgets.

    python -m benchmarks.bstar_arms commands --folder runs/arms            the exact commands, in order
    python -m benchmarks.bstar_arms run --folder runs/arms                 runs them one after the other; goes on where it was
    python -m benchmarks.bstar_arms report --folder runs/arms              the table, and results/bstar_arms.json

`--size tiny` is a check of the machinery, `small` is for a CPU, `large` for a GPU. `--seeds`, `--arms` and
`--set KEY=VALUE` change the rest; give the same seeds and arms to `report`.

Every arm starts from the same weights: SmolLM2-135M-Instruct after three epochs on the human solutions of other problems. An
iteration of B-STaR draws M * n samples and, in its sweep, at most budget * temperatures * queries * n; the control arms draw
as many in all, on the M problems. All train for the same number of steps. Pass@K, Pass@K-S, Reward@K-S and diversity are
measured on test problems at temperature 1, the accuracy greedily. Intervals are 95 % over problems (the mean of the seeds'
intervals, which does not shrink with the number of seeds); the difference to B-STaR is paired by problem.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.arms import ratchet, shares
from benchmarks.record import accelerator, write_results
from pipelines.runfolder import RunFolder
from pipelines.statistics import paired_difference
from pipelines.store import planned

ARMS = ("bstar", "online_rft", "rest_em")
TEMPERATURES = (0.6, 0.8, 1.0, 1.2)
BUDGET = 0.5
SIZES: dict[str, dict[str, int]] = {
    # n: of B-STaR; queries: of its sweep; test, k: test problems and samples of each; start: problems of the first training
    "tiny": {"problems": 32, "n": 4, "queries": 16, "count": 2, "steps": 2, "batch": 8, "test": 12, "k": 4, "start": 32},
    "small": {"problems": 120, "n": 6, "queries": 24, "count": 4, "steps": 12, "batch": 16, "test": 100, "k": 8, "start": 600},
    "large": {
        "problems": 2048, "n": 32, "queries": 512, "count": 4, "steps": 150, "batch": 64, "test": 600, "k": 32, "start": 2048,
    },
}  # fmt: skip


def source(split: str, limit: int, seed: int) -> str:
    return f"{{source: procedural, split: {split}, limit: {limit}, seed: {seed}, levels: [1, 2, 3], max_number: 20}}"


def control_n(size: dict[str, int]) -> int:
    """Samples of a problem in a control arm: B-STaR's and its sweep's share."""
    return size["n"] + round(BUDGET * len(TEMPERATURES) * size["queries"] * size["n"] / size["problems"])


def commands(
    folder: Path, size: dict[str, int], arms: Sequence[str], seeds: Sequence[int], more: Sequence[str]
) -> list[list[str]]:
    """`ratchet` commands: the start, then every arm and seed."""
    start = folder / "start"
    first = [
        "run", "demo", "--run-dir", str(start), "name=start", f"data.train={source('train', size['start'], 5)}",
        "data.fresh_per_iteration=false", "sampling.n=1", "sampling.shots=[]", "sampling.max_tokens=96", "iterations.count=1",
        "sampling.batch_size=256", "selection.include_human=true", "training.epochs=3",
        f"evaluation={{max_tokens: 96, benchmarks: [{{name: graded, source: {source('test', 120, 1)}}}]}}", *more,
    ]  # fmt: skip
    result = [first]
    for seed in seeds:
        for arm in arms:
            n = size["n"] if arm == "bstar" else control_n(size)
            result.append([
                "run", "bstar_gsm8k", "--run-dir", str(folder / f"{arm}-{seed}"), f"name={arm}-{seed}", f"seed={seed}",
                f"model.name={start}@1", f"data={{train: {source('train', size['problems'], 100 + seed)}}}",
                f"sampling.n={n}", "sampling.max_tokens=96", "sampling.batch_size=256", f"selection.max_per_problem={n}",
                f"balance.temperatures={list(TEMPERATURES)}", f"balance.queries={size['queries']}", f"balance.budget={BUDGET}",
                "balance.n_star=4", "training.learning_rate=2e-4", f"training.steps={size['steps']}",
                f"training.batch_size={size['batch']}", f"evaluation.samples={size['k']}",
                f"evaluation.benchmarks=[{{name: graded, source: {source('test', size['test'], 1)}}}]",
                f"exploration.k=[1, 4, {size['k']}]", "exploration.s=[1, 2, 4]",
                f"iterations={{count: {size['count']}, scheme: {arm}}}", *more,
            ])  # fmt: skip
    return result


def figures(run: RunFolder, iteration: int, k: int) -> dict[str, tuple[float, float, float]]:
    """(mean, low, high) of every metric on the test problems after an iteration (0: before the first)."""
    model = run.plan()["model"]["name"]
    metrics = run.read_metrics()
    who = f"iteration{iteration}" if iteration else next(
        label.split("/")[0] for label in metrics if label.endswith("/graded/greedy") and not label.startswith("iteration")
    )
    plan = run.plan()
    stage = next((s for s in plan["stages"] if s["label"] == f"{who}/graded/sampled/exploration"), None)
    if stage is None:
        raise SystemExit(f"{run.path} ({model}): no metrics of {who}; finish it with `ratchet resume {run.path}`")
    content = json.loads((planned(plan, stage).path / "exploration.json").read_text())["overall"]
    greedy = metrics[f"{who}/graded/greedy"]
    found = {"greedy": (greedy["accuracy"], greedy["low"], greedy["high"])}
    distinct = (f"{what}@{k}-{s}" for what in ("pass", "reward") for s in (2, 4))
    for name in (f"pass@{k}", *distinct, "unique_correct", "diversity", "equation_gap"):
        if name in content:
            found[name] = (content[name]["mean"], content[name]["low"], content[name]["high"])
    return found


def drawn(run: RunFolder) -> int:
    """Samples that the run drew to train on, sweeps included."""
    metrics = run.read_metrics()
    return sum(
        m["samples"] for label, m in metrics.items()
        if m["kind"] in ("sample", "sweep") and label.startswith("iteration") and label.count("/") == 1
    )  # fmt: skip


def report(folder: Path, size: dict[str, int], arms: Sequence[str], seeds: Sequence[int], output: Path) -> None:
    """Print and write the table by arm and iteration, and the paired differences to B-STaR."""
    runs = {arm: [RunFolder.existing(folder / f"{arm}-{seed}") for seed in seeds] for arm in arms}
    rows: list[dict[str, Any]] = []
    for arm, mine in runs.items():
        for i in range(size["count"] + 1):
            each = [figures(run, i, size["k"]) for run in mine]
            for name in each[0]:
                values = [f[name] for f in each if name in f]
                mean, low, high = (fmean(v[j] for v in values) for j in range(3))
                rows.append({
                    "what": f"{arm}, iteration {i}: {name}", "ours": mean, "peer": None, "peer_name": None, "ratio": None,
                    "unit": "", "low": low, "high": high, "n": size["test"], "seeds": [v[0] for v in values],
                    "note": f"{fmean(drawn(r) for r in mine):.0f} training samples in all",
                })  # fmt: skip
                print(f"{rows[-1]['what']:45} {mean:7.3f}  [{low:.3f}, {high:.3f}]  seeds {[round(v[0], 3) for v in values]}")
    for arm in (a for a in arms if a != "bstar" and "bstar" in arms):
        for decoding in ("greedy", "sampled"):
            theirs, ours = (_mean_shares(runs[a], size["count"], decoding) for a in (arm, "bstar"))
            mean, low, high = paired_difference([theirs[p] for p in theirs], [ours[p] for p in theirs], seed=0)
            rows.append({
                "what": f"bstar minus {arm}, {decoding} accuracy after the last iteration", "ours": mean, "peer": 0.0,
                "peer_name": arm, "ratio": None, "unit": "", "low": low, "high": high, "n": size["test"],
                "note": "paired by problem, mean over seeds",
            })  # fmt: skip
            print(f"{rows[-1]['what']}: {100 * mean:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]")
    write_results(output, "bstar_arms", rows, ("torch", "transformers", "vllm"), accelerator())


def _mean_shares(runs: Sequence[RunFolder], iteration: int, decoding: str) -> dict[str, float]:
    each = [shares(run, iteration, decoding) for run in runs]
    return {p: fmean(s[p] for s in each) for p in each[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["commands", "run", "report"])
    parser.add_argument("--folder", type=Path, default=Path("runs/arms"))
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for every run")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "bstar_arms.json")
    a = parser.parse_args()
    size = SIZES[a.size]
    if a.what == "report":
        report(a.folder, size, a.arms, a.seeds, a.output)
        return
    for words in commands(a.folder.absolute(), size, a.arms, a.seeds, a.set):
        print("ratchet", shlex.join(words), flush=True)
        if a.what == "run":
            ratchet(*words)


if __name__ == "__main__":
    main()
