"""RISE's arms side by side: both kinds of pairs, whole solutions only, edited steps only; accuracy before and after.

`python -m benchmarks.rise_arms MODEL [key=value ...]` runs `rise_arms.yaml` once for each arm, from the same weights
on the same samples, and writes benchmarks/results/rise_arms.json. MODEL is RUN@ITERATION or a folder. What is in the
store already is not computed again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.arms import metrics, run_arm
from benchmarks.record import accelerator, write_results

RECIPE = Path(__file__).parent / "rise_arms.yaml"
ARMS = ("both", "full_only", "edited_only")


def figures(arm: str, model: str, overrides: list[str]) -> dict[str, Any]:
    """Figures of one arm, from the metrics of its run."""
    run = run_arm(RECIPE, Path("runs") / f"rise-{arm}", [f"model.name={model}", f"pairs.rise.arm={arm}", *overrides])
    scores = metrics(run, "score")
    before, after = scores[0], scores[-1]
    return {"arm": arm, "before": before, "after": after, **{kind: metrics(run, kind)[-1] for kind in ("pairs", "train")}}


def row(a: dict[str, Any]) -> dict[str, Any]:
    """An arm's `figures` as a row of results; a start that solves nothing gives no ratio."""
    score, before = a["after"], a["before"]
    return {
        "what": f"accuracy after {a['arm']} ({a['pairs']['kinds']}, {a['train']['steps']} steps)", "ours": score["accuracy"],
        "peer": before["accuracy"], "peer_name": "the start",
        "ratio": score["accuracy"] / before["accuracy"] if before["accuracy"] else None,
        "unit": "share", "low": score["low"], "high": score["high"], "n": score["problems"],
        "note": f"start [{before['low']:.4f}, {before['high']:.4f}]",
    }  # fmt: skip


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    model, overrides = sys.argv[1], sys.argv[2:]
    arms = [figures(arm, model, overrides) for arm in ARMS]
    for a in arms:
        score, before = a["after"], a["before"]
        print(f"{a['arm']:12s} {before['accuracy']:.1%} -> {score['accuracy']:.1%} [{score['low']:.1%}, {score['high']:.1%}]")
    write_results(
        Path(__file__).parent / "results" / "rise_arms.json", "rise_arms", [row(a) for a in arms],
        ("torch", "transformers", "peft"), accelerator(), arms=arms,
    )


if __name__ == "__main__":
    main()
