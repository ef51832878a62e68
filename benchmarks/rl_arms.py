"""ReMax beside RLOO (and GRPO, REINFORCE) at equal samples: curves and final accuracy.

    python -m benchmarks.rl_arms MODEL [key=value ...] [--arms remax rloo ...] [--seeds 0 ...]

MODEL is RUN@ITERATION or a folder. Runs `rl_arms.yaml` once for each arm and seed and writes benchmarks/results/rl_arms.json
and rl_arms.svg, the held-out accuracy over steps (problems of the training split). ReMax draws three samples of a problem
and its greedy solution, the others draw four samples: the same number of completions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.arms import artefact_of, changes, difference, metrics, run_arm
from benchmarks.record import accelerator, write_results
from pipelines.runfolder import RunFolder

HERE = Path(__file__).parent
ARMS: dict[str, list[str]] = {
    "remax": ["training.method=remax", "sampling.n=3"],
    "rloo": ["training.method=rloo"],
    "grpo": ["training.method=grpo"],
    "reinforce": ["training.method=reinforce", "training.rl.baseline=batch"],
}
COLOURS = {"remax": "#d62728", "rloo": "#1f77b4", "grpo": "#2ca02c", "reinforce": "#9467bd"}
KEPT = (
    "step", "reward", "greedy_reward", "difference", "equal_to_greedy", "entropy", "kl_initial", "gradient_norm", "zero_groups",
    "mismatch_kl", "tokens_sampled", "validation_accuracy",
)  # fmt: skip


def history(run: RunFolder) -> list[dict[str, float]]:
    """Records of the training's steps."""
    stage = next(s for s in run.plan()["stages"] if s["kind"] == "train" and s["label"].startswith("iteration1/"))
    lines = (artefact_of(run, stage).path / "train.jsonl").read_text().splitlines()
    return [{k: round(v, 5) for k, v in json.loads(line).items() if k in KEPT} for line in lines]


def svg(curves: dict[str, list[list[dict[str, float]]]], width: int = 640, height: int = 260) -> str:
    """Held-out accuracy over steps: one line for each seed, a colour for each arm."""
    pad = 34
    points = [
        (r["step"], r["validation_accuracy"])
        for arm in curves.values() for each in arm for r in each if "validation_accuracy" in r
    ]  # fmt: skip
    last, low, high = max(p[0] for p in points), min(p[1] for p in points), max(p[1] for p in points)
    low, high = max(0.0, low - 0.02), min(1.0, high + 0.02)

    def place(step: float, value: float) -> str:
        x, y = step / last, (value - low) / (high - low)
        return f"{pad + x * (width - 2 * pad):.1f},{height - pad - y * (height - 2 * pad):.1f}"

    parts = []
    for i, (arm, each) in enumerate(curves.items()):
        for records in each:
            line = " ".join(place(r["step"], r["validation_accuracy"]) for r in records if "validation_accuracy" in r)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[arm]}" stroke-width="2"/>')
        parts.append(f'<text x="{pad + 8 + 90 * i}" y="14" font-size="12" fill="{COLOURS[arm]}">{arm}</text>')
    for value in (low, high):
        parts.append(f'<text x="2" y="{float(place(0, value).split(",")[1]) + 4}" font-size="11">{value:.0%}</text>')
    parts.append(f'<text x="{width - pad}" y="{height - 12}" font-size="11" text-anchor="end">step {last:.0f}</text>')
    axes = f'<path d="M{pad},{pad}V{height - pad}H{width - pad}" fill="none" stroke="#444"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{axes}{"".join(parts)}</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=["remax", "rloo"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/rl-arms"))
    parser.add_argument("--output", type=Path, default=HERE / "results" / "rl_arms.json")
    a = parser.parse_intermixed_args()
    runs = {
        (arm, seed): run_arm(
            HERE / "rl_arms.yaml", a.folder / f"{arm}-{seed}",
            [f"model.name={a.model}", f"seed={seed}", *ARMS[arm], *a.overrides],
        )
        for seed in a.seeds for arm in a.arms
    }  # fmt: skip
    rows = [row for (arm, seed), run in runs.items() for row in changes(f"{arm}, seed {seed}", run)]
    for seed in a.seeds:
        if (("remax", seed) in runs) and (("rloo", seed) in runs):
            rows += difference((f"remax, seed {seed}", f"rloo, seed {seed}"), (runs["remax", seed], runs["rloo", seed]))
    curves = {arm: [history(runs[arm, seed]) for seed in a.seeds] for arm in a.arms}
    a.output.with_suffix(".svg").write_text(svg(curves), encoding="utf-8")
    more: dict[str, Any] = {"train": {f"{arm}-{seed}": metrics(run, "train") for (arm, seed), run in runs.items()}}
    write_results(a.output, "rl_arms", rows, ("torch", "transformers", "peft"), accelerator(), **more, curves=curves)


if __name__ == "__main__":
    main()
