"""Which data and settings of supervised fine-tuning make SmolLM2-135M best at GSM8K's validation problems.

    python -m benchmarks.sft_search                                  a GPU: every case, three beside each other
    python -m benchmarks.sft_search --only 'base|prompt' key=value   some of them, with other settings

Each case changes one thing of `base`, or a few that belong together: equations of the human solutions, two numeric variants of
each problem, 8,000 generated problems, two epochs at 3e-4, all weights (`sft_search.yaml`). The test problems are not touched:
1,000 problems of the training split are held out, each is answered greedily and by four samples. Samples tell more: their mean
has half of the greedy answers' variance. A case that is done is not computed again. Intervals are 95 %, differences to `base`
paired by problem.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.arms import DECODINGS
from benchmarks.record import accelerator, write_results
from pipelines.compare import compare, measured
from pipelines.runfolder import RunFolder

HERE = Path(__file__).parent
_SFT = "phases.sft"
CASES: dict[str, list[str]] = {
    "base": [],
    "two inverses": [f"{_SFT}.data.inverses=2"],
    "four variants": [f"{_SFT}.data.variants=4"],
    "four variants, two inverses, four epochs": [
        f"{_SFT}.data.variants=4", f"{_SFT}.data.inverses=2", f"{_SFT}.training.epochs=4",
    ],
    "four epochs": [f"{_SFT}.training.epochs=4"],
    "rate 1e-3": [f"{_SFT}.training.learning_rate=1e-3"],
    "prompt weight 0.2": [f"{_SFT}.training.prompt_weight=0.2"],
    "mean of the last half": [f"{_SFT}.training.average=0.5", f"{_SFT}.training.schedule=constant"],
    "LoRA, rank 128, rate 1e-3": [
        "training.adapter=lora", "training.lora.r=128", "training.lora.alpha=256", f"{_SFT}.training.learning_rate=1e-3",
    ],
    "no variants": [f"{_SFT}.data.variants=0"],
    "no generated problems": [f"{_SFT}.data.extra=[]"],
    "solutions in words": ["data.solutions=full", "evaluation.max_tokens=256"],
    "batch of 32": [f"{_SFT}.training.batch_size=32"],
    "human solutions alone": [f"{_SFT}.data.variants=0", f"{_SFT}.data.extra=[]"],
    "one epoch": [f"{_SFT}.training.epochs=1"],
    "rate 1e-4": [f"{_SFT}.training.learning_rate=1e-4"],
    "prompt weight 1": [f"{_SFT}.training.prompt_weight=1.0"],
    "weight decay 0.1": [f"{_SFT}.training.weight_decay=0.1"],
    "LoRA, rank 16, rate 1e-3": ["training.adapter=lora", "training.lora.r=16", f"{_SFT}.training.learning_rate=1e-3"],
}  # fmt: skip


def place(folder: Path, case: str) -> Path:
    return folder / re.sub(r"\W+", "-", case).strip("-")


def run(case: str, folder: Path, more: list[str]) -> str | None:
    """The case to its end, its output in a file beside its run folder; its name, or None where it failed."""
    target = place(folder, case)
    folder.mkdir(parents=True, exist_ok=True)
    command = ["run", str(HERE / "sft_search.yaml"), "--run-dir", str(target), f"name={target.name}", *CASES[case], *more]
    with target.with_suffix(".log").open("w") as log:
        code = subprocess.run([sys.executable, "-m", "pipelines.cli", *command], stdout=log, stderr=log).returncode
    print(f"{case}: {'done' if not code else f'failed with code {code}, see {log.name}'}", flush=True)
    return None if code else case


def rows_of(cases: list[str], folder: Path) -> list[dict[str, Any]]:
    """Accuracy of each case beside that of `base`, of samples and greedy, each the best first."""
    rows = []
    for case in cases:
        compared: dict[str, Any] = {}
        if case != "base" and "base" in cases:
            found = compare(measured(f"{place(folder, 'base')}@sft"), measured(f"{place(folder, case)}@sft"))["comparisons"]
            compared = {c["decoding"]: c for c in found}
        metrics = RunFolder.existing(place(folder, case)).read_metrics()
        for decoding in DECODINGS:
            score = metrics[f"sft/validation/{decoding}"]
            row = {"what": f"{case}, {decoding}", "ours": score["accuracy"], "peer": None, "peer_name": None, "ratio": None,
                   "unit": "share", "low": score["low"], "high": score["high"], "n": score["problems"], "note": ""}  # fmt: skip
            if c := compared.get(decoding):
                change = f"{c['difference']:+.1%} [{c['low']:+.1%}, {c['high']:+.1%}]"
                row |= {"peer": c["first"], "peer_name": "base", "note": f"change {change}; {c['test']} p = {c['p']:.2g}"}
            rows.append(row)
    return sorted(rows, key=lambda r: (r["what"].endswith("greedy"), -r["ours"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--only", default="", help="a regular expression for names of cases")
    parser.add_argument("--beside", type=int, default=3, help="cases at a time (each needs about 25 GB of the GPU)")
    parser.add_argument("--folder", type=Path, default=Path("runs") / "sft-search")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "sft_search.json")
    a = parser.parse_intermixed_args()
    cases = [case for case in CASES if re.search(a.only, case)]
    done: list[str] = []
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(a.beside) as pool:
        for future in as_completed([pool.submit(run, case, a.folder, a.overrides) for case in cases]):
            if case := future.result():
                done.append(case)
                rows = rows_of(done, a.folder)  # after each: what is done is not lost when the rest is ended
                write_results(a.output, "sft_search", rows, ("torch", "transformers"), accelerator())
    for r in rows:
        print(f"{r['what']:36} {r['ours']:6.1%} [{r['low']:.1%}, {r['high']:.1%}] {r['note']}")
    if failed := [case for case in cases if case not in done]:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
