"""Arms of a comparison: runs of one recipe with other settings, from the same start and on the same test problems."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.rows import ProblemScore
from pipelines.runfolder import RunFolder
from pipelines.statistics import paired_difference
from pipelines.store import Artefact, planned, read_rows

HERE = Path(__file__).parent
DECODINGS = ("greedy", "sampled")


def ratchet(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pipelines.cli", *arguments], check=True)


def run_arm(recipe: Path, folder: Path, overrides: Sequence[str]) -> RunFolder:
    """The finished run of `recipe` with `overrides` in `folder`; goes on where it was."""
    ratchet("run", str(recipe), "--run-dir", str(folder), *overrides)
    return RunFolder.existing(folder)


def parser_of(
    name: str, doc: str | None, arms: Collection[str], default: Collection[str] = ()
) -> argparse.ArgumentParser:
    """The command line of a benchmark: the model to begin from, settings, arms (by default all), and where runs and results
    go."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--arms", nargs="+", choices=list(arms), default=list(default or arms))
    parser.add_argument("--folder", type=Path, default=Path("runs") / name.replace("_", "-"))
    parser.add_argument("--output", type=Path, default=HERE / "results" / f"{name}.json")
    return parser


def run_arms(name: str, a: argparse.Namespace, arms: Mapping[str, Sequence[str]]) -> dict[str, RunFolder]:
    """Finished runs of `NAME.yaml`, one for each of `arms` with its settings; `a`: what `parser_of` has read."""
    return {
        arm: run_arm(HERE / f"{name}.yaml", a.folder / arm, [f"model.name={a.model}", *settings, *a.overrides])
        for arm, settings in arms.items()
    }


def metrics(run: RunFolder, kind: str) -> list[dict[str, Any]]:
    """Metrics of all stages of a kind, in order."""
    return [m for m in run.read_metrics().values() if m["kind"] == kind]


def artefact_of(run: RunFolder, stage: Mapping[str, Any]) -> Artefact:
    """Where a stage of the run's plan has its rows."""
    return planned(run.plan(), stage)


def shares(run: RunFolder, iteration: int, decoding: str) -> dict[str, float]:
    """By test problem, the share of right answers after an iteration (0: before the first)."""
    mine = [s for s in run.plan()["stages"] if s["kind"] == "score" and s["label"].endswith(f"/{decoding}")]
    named = [s for s in mine if s["label"].startswith(f"iteration{iteration}/")]
    rows: list[ProblemScore] = read_rows(artefact_of(run, named[0] if iteration else mine[0]), ProblemScore)
    return {r.problem: r.correct / r.samples for r in rows}


def changes(what: str, run: RunFolder, iteration: int = 1) -> list[dict[str, Any]]:
    """Greedy and sampled accuracy after an iteration with intervals, and the paired difference to the start; printed, too."""
    rows = []
    for decoding in DECODINGS:
        label = next(n for n in run.read_metrics() if n.startswith(f"iteration{iteration}/") and n.endswith(f"/{decoding}"))
        score = run.read_metrics()[label]
        before, after = shares(run, 0, decoding), shares(run, iteration, decoding)
        mean, low, high = paired_difference([before[p] for p in before], [after[p] for p in before], seed=0)
        start = sum(before.values()) / len(before)
        rows.append({
            "what": f"{what}, {decoding} accuracy", "ours": score["accuracy"], "peer": start, "peer_name": "the start",
            "ratio": score["accuracy"] / start if start else None, "unit": "share", "low": score["low"], "high": score["high"],
            "n": score["problems"], "note": f"change {_points(mean, low, high)}, paired",
        })  # fmt: skip
        print(f"{rows[-1]['what']}: {score['accuracy']:.1%} [{score['low']:.1%}, {score['high']:.1%}], {rows[-1]['note']}")
    return rows


def difference(names: tuple[str, str], runs: tuple[RunFolder, RunFolder], iteration: int = 1) -> list[dict[str, Any]]:
    """The first arm's accuracy less the second one's after an iteration, paired by problem; printed, too."""
    rows = []
    for decoding in DECODINGS:
        ours, theirs = (shares(run, iteration, decoding) for run in runs)
        mean, low, high = paired_difference([theirs[p] for p in theirs], [ours[p] for p in theirs], seed=0)
        rows.append({
            "what": f"{names[0]} less {names[1]}, {decoding} accuracy", "ours": mean, "peer": 0.0, "peer_name": names[1],
            "ratio": None, "unit": "share", "low": low, "high": high, "n": len(theirs), "note": "paired by problem",
        })  # fmt: skip
        print(f"{rows[-1]['what']}: {_points(mean, low, high)}")
    return rows


def _points(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
