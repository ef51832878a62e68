"""How much of what is learned from Knights and Knaves is learned by heart: bare answers beside worked solutions.

`python -m benchmarks.memorisation [--arms answer,steps] [--limit N] [key=value ...]` runs the recipe `knights_demo` with
`solutions: answer` and with `solutions: steps`, probes the start and the trained models on N of their training puzzles, N
new ones and the versions of both, and writes benchmarks/results/memorisation.json. What is in the store already is not
computed again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.arms import ratchet
from benchmarks.record import accelerator, write_results

ARMS: dict[str, tuple[str, ...]] = {"answer": (), "steps": ("sampling.max_tokens=96",)}
RUNS = Path("runs")


def probe(run: Path, iteration: int, limit: int) -> list[dict[str, Any]]:
    """The records of one model of a run: one for each set of puzzles and version."""
    folder = RUNS / f"{run.name}-probe-{iteration}"
    ratchet("probe", str(run), "--iteration", str(iteration), "--limit", str(limit), "--run-dir", str(folder))
    return json.loads((folder / "memorisation.json").read_text())["rows"]


def row(arm: str, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The trained model's score beside the start's."""
    ratio = after["consistency_ratio"]
    shown = "none" if ratio is None else f"{ratio:.3f}"
    return {
        "what": f"memorisation score after learning {arm}: {after['puzzles']} puzzles, {after['variant']}",
        "ours": after["score"], "peer": before["score"], "peer_name": "the start",
        "ratio": after["score"] / before["score"] if before["score"] else None,
        "unit": "share", "low": after["score_interval"][0], "high": after["score_interval"][1], "n": after["n"],
        "note": f"accuracy {before['accuracy']:.3f} -> {after['accuracy']:.3f}, of the version "
        f"{before['perturbed_accuracy']:.3f} -> {after['perturbed_accuracy']:.3f}, consistency ratio {shown}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", type=lambda names: names.split(","), default=list(ARMS), help="some of answer,steps")
    parser.add_argument("--limit", type=int, default=100, help="puzzles seen, and new ones, that are asked")
    parser.add_argument("overrides", nargs="*", help="settings of the recipe, e.g. training.epochs=10")
    arguments = parser.parse_args()
    rows, arms = [], {}
    for arm in arguments.arms:
        run = RUNS / f"memorisation-{arm}"
        ratchet("run", "knights_demo", "--run-dir", str(run), f"data.train.solutions={arm}", *ARMS[arm],
                *arguments.overrides)
        before, after = (probe(run, iteration, arguments.limit) for iteration in (0, 1))
        rows += [row(arm, b, a) for b, a in zip(before, after, strict=True)]
        arms[arm] = {"start": before, "trained": after}
    for r in rows:
        print(f"{r['what']:75} {r['peer']:.3f} -> {r['ours']:.3f} [{r['low']:.3f}, {r['high']:.3f}]  {r['note']}")
    write_results(
        Path(__file__).parent / "results" / "memorisation.json", "memorisation", rows,
        ("torch", "transformers", "peft"), accelerator(), arms=arms,
    )


if __name__ == "__main__":
    main()
