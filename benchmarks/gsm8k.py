"""GSM8K from start to finish with SmolLM2-135M on one GPU: arms of a self-improvement pipeline, killed on the way if wanted.

    python -m benchmarks.gsm8k run control --folder runs/gsm8k                 one arm; goes on where it was
    python -m benchmarks.gsm8k run ours --folder runs/gsm8k --kill 150 400     the same, killed (SIGKILL) twice, and resumed
    python -m benchmarks.gsm8k report --folder runs/gsm8k                      the table, and results/gsm8k.json
    python -m benchmarks.gsm8k report --beside gsm8k_all.json --output x.json  the same, compared with an earlier report's arms

Arms: `control`, plain SFT on the human solutions and a naive round of rejection sampling with 4 samples; `ours`, more
practice, two rounds of rejection sampling and a reward model; `equations`, the same with solutions that are equations alone;
`rounds`, the same at the practice's better rate (`benchmarks.sft_search`) with half of the samples; `all`, its practice, the
rounds at a higher rate as well, then RISE pairs, first pits and ReMax; `online`, little practice on equations and then
reinforcement learning, `online_fast` at three times its learning rate. `ARMS` names their recipes. Settings are chosen on
problems held out of the training split; the test problems come once for each final model. Intervals are 95 %, differences
paired by problem.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.chart import Point, chart
from benchmarks.record import accelerator, write_results, write_whole
from configs.errors import InputError
from configs.rows import ProblemScore
from pipelines.compare import Paired, compare, measured, paired_shares
from pipelines.models import trained_names
from pipelines.runfolder import RunFolder
from pipelines.store import read_rows

ARMS: dict[str, tuple[str, list[str]]] = {  # recipe; settings
    "control": ("smollm2_gsm8k_control", []),
    "ours": ("smollm2_gsm8k_ours", []),
    "equations": ("smollm2_gsm8k_equations", []),
    "rounds": ("smollm2_gsm8k_equations", [
        "sampling.n=8", "phases.practice.training.learning_rate=1e-3", "phases.practice.training.schedule=constant",
        "phases.practice.training.average=0.5",
    ]),
    "all": ("smollm2_gsm8k", []),
    "online": ("smollm2_gsm8k_online", []),
    "online_fast": ("smollm2_gsm8k_online", ["phases.rl.training.learning_rate=3.0e-5"]),
}
PACKAGES = ("torch", "transformers", "vllm", "ray")
KILLS, WALL = "kills.json", "wall.json"


def run(arm: str, folder: Path, kills: Sequence[float], more: Sequence[str]) -> None:
    """Run an arm to its end, killed `kills` seconds after each of its starts; what was killed is written into its folder."""
    target = folder / arm
    recipe, settings = ARMS[arm]
    command = ["run", recipe, "--run-dir", str(target), f"name={arm}", *settings, *more]
    fresh = not kills and not target.exists()
    done: list[dict[str, Any]] = []
    for after in (*kills, None):
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "pipelines.cli", *command], start_new_session=True)
        try:
            code = process.wait(after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            finished = len(RunFolder.existing(target).read_metrics()) if (target / "plan.json").is_file() else 0
            done.append({"seconds": round(time.monotonic() - began, 1), "stages_finished": finished})
            write_whole(target / KILLS, json.dumps(done, indent=1) + "\n")
            print(f"killed after {after:.0f} s with {finished} stages finished", flush=True)
            time.sleep(5)  # until the workers have seen it and the GPU's memory is free
            continue
        if code:
            raise SystemExit(code)
        if fresh:
            write_whole(target / WALL, json.dumps({"seconds": time.monotonic() - began}) + "\n")
        return


def rows_of(arm: str, stages: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Accuracies of every model of an arm that was measured, and what its samples come to, from the metrics of its stages."""
    for label, m in stages.items():
        what = f"{arm}, {label.replace('/', ', ')}"
        if m["kind"] == "score":
            yield row(what, m["accuracy"], m["low"], m["high"], m["problems"], f"{m['mode']} extraction")
        elif m["kind"] in ("votes", "reward_eval"):
            best = m["at"][-1]
            for name in ("pass", "maj") if m["kind"] == "votes" else ("rm", "weighted", "rm_gain"):
                if best.get(name) is not None:
                    yield estimate(f"{what}: {name}@{best['k']}", best[name], best["problems"], "exact over all subsets")
            for name, value in m.get("pairwise", {}).items():
                if value is not None:
                    yield estimate(f"{what}: pairs ordered rightly by {name}", value, value["problems"], "chance is one half")


def overhead(arm: str, runs: dict[str, RunFolder]) -> dict[str, Any]:
    """Wall time of the whole command, with all imports and planning, beside the time that its stages took: also those which
    another of `runs` computed meanwhile, for which it had to wait."""
    found = runs[arm]
    wall = json.loads((found.path / WALL).read_text())["seconds"]
    needed = {m["key"] for m in found.read_metrics().values()}
    began = datetime.fromisoformat(found.events()[0]["time"]).timestamp()
    spans = sorted(
        (end - e["seconds"], end)
        for run in runs.values() for e in run.events()
        if e["event"] == "finished" and e["key"] in needed and (end := datetime.fromisoformat(e["time"]).timestamp()) > began
    )  # fmt: skip
    stages, until = 0.0, began
    for start, end in spans:
        stages += max(0.0, end - max(start, until))
        until = max(until, end)
    note = "with stages that another run computed meanwhile; those that the store held before count in neither"
    return {"what": f"{arm}: wall time of the whole command", "ours": wall, "peer": stages, "peer_name": "its stages",
            "ratio": wall / stages, "unit": "s", "note": note}  # fmt: skip


def estimate(what: str, value: dict[str, Any], problems: int, note: str) -> dict[str, Any]:
    return row(what, value["mean"], value["low"], value["high"], problems, note)


def row(what: str, value: float, low: float, high: float, problems: int, note: str) -> dict[str, Any]:
    return {"what": what, "ours": value, "peer": None, "peer_name": None, "ratio": None, "unit": "share", "low": low,
            "high": high, "n": problems, "note": note}  # fmt: skip


def pairs_of(models: dict[str, list[str]], stages: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Which models are compared: each of an arm with the one before it, and all that were measured on the test problems."""
    pairs = [(f"{arm}@{a}", f"{arm}@{b}") for arm, names in models.items() for a, b in pairwise(names)]
    return list(dict.fromkeys([*pairs, *combinations(tested_of(models, stages), 2)]))


def tested_of(models: dict[str, list[str]], stages: dict[str, dict[str, Any]]) -> list[str]:
    """Models that were measured on the test problems."""
    return [
        f"{arm}@{name}" for arm, names in models.items() for name in names
        if f"{'initial' if name == '0' else name}/gsm8k/greedy" in stages[arm]
    ]  # fmt: skip


def solved(folder: Path, tested: Sequence[str]) -> dict[str, str]:
    """Of each tested model a 1 for each test problem that its greedy answer solves, else a 0, in the order of the test set:
    what a later report needs to compare its own arms with these."""
    found = {name: read_rows(measured(str(folder / name)).scores["gsm8k", "greedy"], ProblemScore) for name in tested}
    return {name: "".join(str(r.correct) for r in rows) for name, rows in found.items()}


def differences_beside(new: dict[str, str], old: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Each model of this report less each of an earlier one, on the test problems."""
    for name, bits in new.items():
        for other, before in old.items():
            if len(bits) != len(before):
                raise InputError(f"{other} was measured on {len(before)} test problems, {name} on {len(bits)}")
            numbers = [str(i) for i in range(len(bits))]
            found = paired_shares(numbers, *([float(b) for b in side] for side in (before, bits)), single=True)
            yield difference(f"{name} less {other}, gsm8k, greedy, paired", found)


def differences(folder: Path, pairs: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Each pair of models on what both were measured on."""
    for one, other in pairs:
        try:
            found = compare(measured(str(folder / one)), measured(str(folder / other)))
        except InputError as e:  # an arm that was not measured there, or not to the end
            print(f"{one} and {other}: {e}")
            continue
        for c in found["comparisons"]:
            yield difference(f"{other} less {one}, {c['benchmark']}, {c['decoding']}, paired", msgspec.convert(c, Paired))


def difference(what: str, c: Paired) -> dict[str, Any]:
    note = f"{c.second:.1%} less {c.first:.1%}; {c.test} p = {c.p:.2g}"
    return row(what, c.difference, c.low, c.high, c.problems, note)


def curve(stages: dict[str, dict[str, Any]]) -> str:
    """Greedy accuracy on the validation problems after each training of each arm, an SVG."""
    lines: dict[str, list[list[Point]]] = {}
    for number, (arm, found) in enumerate(stages.items()):
        measured_on = {k: m for k, m in found.items() if k.endswith("/validation/greedy") and m["kind"] == "score"}
        scored = [(k.partition("/")[0], m) for k, m in measured_on.items()]
        first = 0.08 * number + (not scored or scored[0][0] != "initial")  # beside each other, or intervals hide each other
        numbered = [(first + i, name, m) for i, (name, m) in enumerate(scored)]
        lines[arm] = [[Point(i, m["accuracy"], m["low"], m["high"], name) for i, name, m in numbered]]
    lines = {arm: line for arm, line in lines.items() if line[0]}
    return chart("validation problems, greedy", lines, "trainings", percent=True) if lines else ""


def report(folder: Path, output: Path, beside: Path | None) -> None:
    rows: list[dict[str, Any]] = []
    models: dict[str, list[str]] = {}
    more: dict[str, Any] = {"kills": {}, "stages": {}}
    arms = [a for a in ARMS if (folder / a / "plan.json").is_file()]
    if not arms:
        raise InputError(f"{folder} has no run of an arm ({', '.join(ARMS)})")
    runs = {arm: RunFolder.existing(folder / arm) for arm in arms}
    for arm, found in runs.items():
        more["stages"][arm] = found.read_metrics()
        rows += rows_of(arm, more["stages"][arm])
        first = ["0"] if any(label.startswith("initial/") for label in more["stages"][arm]) else []
        models[arm] = [*first, *trained_names(found.plan())]
        if (folder / arm / KILLS).is_file():
            more["kills"][arm] = json.loads((folder / arm / KILLS).read_text())
    rows += differences(folder, pairs_of(models, more["stages"]))
    more["solved"] = solved(folder, tested_of(models, more["stages"]))
    if beside is not None:
        earlier = json.loads(beside.read_text())
        if "solved" not in earlier:
            raise InputError(f"{beside} does not tell which problems its models solve: it was written by an earlier version")
        rows += differences_beside(more["solved"], earlier["solved"])
    times = [overhead(arm, runs) for arm in runs if (folder / arm / WALL).is_file()]
    for t in times:
        print(f"{t['what']}: {t['ours']:.1f} s, {t['peer_name']} {t['peer']:.1f} s ({t['ratio']:.3f})")
    for r in rows:
        print(f"{r['what']:60} {r['ours']:+.1%} [{r['low']:+.1%}, {r['high']:+.1%}] n = {r['n']} {r['note']}")
    if drawn := curve(more["stages"]):
        write_whole(output.with_suffix(".svg"), drawn)
    write_results(output, "gsm8k", rows + times, PACKAGES, accelerator(), **more)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "report"):
        command = commands.add_parser(name)
        command.add_argument("--folder", type=Path, default=Path("runs") / "gsm8k")
        if name == "run":
            command.add_argument("arm", choices=list(ARMS))
            command.add_argument("--kill", type=float, nargs="*", default=[], metavar="SECONDS")
            command.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the recipe")
        else:
            command.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "gsm8k.json")
            command.add_argument("--beside", type=Path, help="an earlier report; its tested models are compared with these")
    a = parser.parse_args()
    if a.command == "run":
        run(a.arm, a.folder, a.kill, a.set)
        return
    try:
        report(a.folder, a.output, a.beside)
    except InputError as e:
        raise SystemExit(f"error: {e}") from e


if __name__ == "__main__":
    main()
