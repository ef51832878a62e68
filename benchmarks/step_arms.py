"""Per-step DPO beside SFT, RFT and DPO on arbitrary pairs: the same problems, the same start, the same samples.

    python -m benchmarks.step_arms MODEL [key=value ...] [--arms pit full ...] [--folder runs/step-arms]

MODEL is RUN@ITERATION or a folder. Runs `step_arms.yaml` once for each arm and writes benchmarks/results/step_arms.json
and step_arms.svg, the value curves of the samples that were rolled out. What is in the store already is not computed again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.arms import artefact_of, changes, difference, metrics, parser_of, run_arms
from benchmarks.record import accelerator, write_results, write_whole
from data_gen.step_curves import svg
from pipelines.runfolder import RunFolder

DPO = [
    "training.method=dpo", "training.learning_rate=5e-5",
    "training.dpo={beta: 0.2, nll: 0.2, validation_fraction: 0.1}", "pairs.kind=per_step",
]  # fmt: skip
ARMS: dict[str, list[str]] = {
    "sft": ["selection={include_human: true, max_per_problem: 0}"],
    "rft": ["selection={max_per_problem: 4}"],
    "full": [*DPO, "pairs.per_step.variant=full"],
    "pit": [*DPO, "pairs.per_step.variant=pit"],
    "step": [*DPO, "pairs.per_step.variant=step"],
    "both": [*DPO, "pairs.per_step.variant=both"],
}
WHAT = {
    "sft": "SFT on human solutions", "rft": "RFT on own right samples", "full": "DPO on arbitrary pairs",
    "pit": "per-step DPO (pit)", "step": "per-step DPO (step)", "both": "per-step DPO (both)",
}  # fmt: skip
VALUED = ("pit", "step", "both")


def draw_curves(run: RunFolder, path: Path) -> None:
    stage = next(s for s in run.plan()["stages"] if s["kind"] == "steps")
    write_whole(path, svg(json.loads((artefact_of(run, stage).path / "curves.json").read_text())))


def main() -> None:
    a = parser_of("step_arms", __doc__, ARMS).parse_intermixed_args()
    runs = run_arms("step_arms", a, {arm: ARMS[arm] for arm in a.arms})
    rows = [row for arm, run in runs.items() for row in changes(WHAT[arm], run)]
    for arm in VALUED:
        if arm in runs and "full" in runs:
            rows += difference((WHAT[arm], WHAT["full"]), (runs[arm], runs["full"]))
    kinds = ("select", "step_pairs", "train")
    more: dict[str, Any] = {"arms": {arm: {k: metrics(run, k) for k in kinds} for arm, run in runs.items()}}
    if valued := next((runs[arm] for arm in VALUED if arm in runs), None):
        draw_curves(valued, a.output.with_suffix(".svg"))
        more |= {"rollouts": metrics(valued, "rollouts"), "steps": metrics(valued, "steps")}
    write_results(a.output, "step_arms", rows, ("torch", "transformers", "peft"), accelerator(), **more)


if __name__ == "__main__":
    main()
