"""RISE's arms side by side: both kinds of pairs, whole solutions only, edited steps only; accuracy before and after.

`python -m benchmarks.rise_arms MODEL [key=value ...]` runs `rise_arms.yaml` once for each arm, from the same weights
on the same samples, and writes benchmarks/results/rise_arms.json. MODEL is RUN@ITERATION or a folder. What is in the
store already is not computed again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import accelerator, write_results

RECIPE = Path(__file__).parent / "rise_arms.yaml"
ARMS = ("both", "full_only", "edited_only")


def run_arm(arm: str, model: str, overrides: list[str]) -> dict[str, Any]:
    """Figures of one arm, from the metrics of its run."""
    folder = Path("runs") / f"rise-{arm}"
    command = [
        sys.executable, "-m", "pipelines.cli", "run", str(RECIPE), "--run-dir", str(folder), f"model.name={model}",
        f"pairs.rise.arm={arm}", *overrides,
    ]
    subprocess.run(command, check=True)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_kind.setdefault(line["kind"], []).append(line)
    before, after = by_kind["score"][0], by_kind["score"][-1]
    return {"arm": arm, "before": before, "after": after, "pairs": by_kind["pairs"][-1], "train": by_kind["train"][-1]}


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    model, overrides = sys.argv[1], sys.argv[2:]
    arms = [run_arm(arm, model, overrides) for arm in ARMS]
    rows = []
    for a in arms:
        score, before = a["after"], a["before"]
        what = f"accuracy after {a['arm']} ({a['pairs']['kinds']}, {a['train']['steps']} steps)"
        rows.append({
            "what": what, "ours": score["accuracy"],
            "peer": before["accuracy"], "peer_name": "the start", "ratio": score["accuracy"] / before["accuracy"],
            "unit": "share", "low": score["low"], "high": score["high"], "n": score["problems"],
            "note": f"start [{before['low']:.4f}, {before['high']:.4f}]",
        })
        print(f"{a['arm']:12s} {before['accuracy']:.1%} -> {score['accuracy']:.1%} [{score['low']:.1%}, {score['high']:.1%}]")
    write_results(
        Path(__file__).parent / "results" / "rise_arms.json", "rise_arms", rows, ("torch", "transformers", "peft"),
        accelerator(), arms=arms,
    )


if __name__ == "__main__":
    main()
