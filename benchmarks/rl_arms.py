"""ReMax beside RLOO (and GRPO, REINFORCE) at equal samples: curves and final accuracy.

    python -m benchmarks.rl_arms MODEL [key=value ...] [--arms remax rloo ...] [--seeds 0 ...]

MODEL is RUN@ITERATION or a folder. Runs `rl_arms.yaml` once for each arm and seed and writes benchmarks/results/rl_arms.json
and rl_arms.svg, the mean reward of the samples over steps (a moving mean of ten). ReMax draws three samples of a problem
and its greedy solution, the others draw four samples: the same number of completions.
"""

from __future__ import annotations

import json
from statistics import fmean

from benchmarks.arms import artefact_of, changes, difference, metrics, parser_of, run_arms
from benchmarks.chart import Point, chart
from benchmarks.record import accelerator, write_results, write_whole
from pipelines.runfolder import RunFolder

ARMS: dict[str, list[str]] = {
    "remax": ["training.method=remax", "sampling.n=3"],
    "rloo": ["training.method=rloo"],
    "grpo": ["training.method=grpo"],
    "reinforce": ["training.method=reinforce", "training.rl.baseline=batch"],
}
KEPT = (
    "step", "reward", "greedy_reward", "difference", "equal_to_greedy", "entropy", "kl_initial", "gradient_norm", "zero_groups",
    "mismatch_kl", "tokens_sampled",
)  # fmt: skip


def history(run: RunFolder) -> list[dict[str, float]]:
    """Records of the training's steps."""
    stage = next(s for s in run.plan()["stages"] if s["kind"] == "train" and s["label"].startswith("iteration1/"))
    lines = (artefact_of(run, stage).path / "train.jsonl").read_text().splitlines()
    return [{k: round(v, 5) for k, v in json.loads(line).items() if k in KEPT} for line in lines]


def smoothed(records: list[dict[str, float]], width: int = 10) -> list[Point]:
    """Points (step, mean reward of the last `width` steps); of fewer steps than that, their mean."""
    rewards = [r["reward"] for r in records]
    width = min(width, len(records))
    return [Point(records[i]["step"], fmean(rewards[i + 1 - width : i + 1])) for i in range(width - 1, len(records))]


def main() -> None:
    parser = parser_of("rl_arms", __doc__, ARMS, ["remax", "rloo"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    a = parser.parse_intermixed_args()
    each = [(arm, seed) for seed in a.seeds for arm in a.arms]
    runs = run_arms("rl_arms", a, {f"{arm}-{seed}": [f"seed={seed}", *ARMS[arm]] for arm, seed in each})
    rows = [row for arm, seed in each for row in changes(f"{arm}, seed {seed}", runs[f"{arm}-{seed}"])]
    for seed in a.seeds:
        if "remax" in a.arms and "rloo" in a.arms:
            rows += difference((f"remax, seed {seed}", f"rloo, seed {seed}"), (runs[f"remax-{seed}"], runs[f"rloo-{seed}"]))
    curves = {arm: [history(runs[f"{arm}-{seed}"]) for seed in a.seeds] for arm in a.arms}
    lines = {arm: [smoothed(records) for records in each] for arm, each in curves.items()}
    end = f"step {max(p.x for each in lines.values() for line in each for p in line):.0f}"
    write_whole(a.output.with_suffix(".svg"), chart("mean reward of the samples, last ten steps", lines, end))
    train = {label: metrics(run, "train") for label, run in runs.items()}
    write_results(a.output, "rl_arms", rows, ("torch", "transformers", "peft"), accelerator(), train=train, curves=curves)


if __name__ == "__main__":
    main()
