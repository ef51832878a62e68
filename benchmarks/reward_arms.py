"""Reward models trained on a run's own samples: pairwise accuracy beside its baselines, RM@k beside maj@k and pass@1.

    python -m benchmarks.reward_arms MODEL [key=value ...] [--arms outcome process ...] [--folder runs/reward-arms]

MODEL is RUN@ITERATION or a folder. Runs `reward_arms.yaml` once for each arm and writes benchmarks/results/reward_arms.json.
Everything is measured on test problems; chance of a pair is one half.
"""

from __future__ import annotations

from typing import Any

from benchmarks.arms import metrics, parser_of, run_arms
from benchmarks.record import accelerator, write_results

ARMS: dict[str, list[str]] = {
    "outcome": [],
    "pairs": ["reward_model.loss=pairs"],
    "process": ["reward_model.kind=process"],
}
WHAT = {"outcome": "outcome model", "pairs": "outcome model, single pairs", "process": "process model"}


def rows_of(arm: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Pairwise accuracy of the model and its baselines, and RM@k against maj@k at the largest k."""
    rows: list[dict[str, Any]] = []

    def add(what: str, value: dict[str, Any], peer: float | None, peer_name: str | None, note: str) -> None:
        rows.append({
            "what": f"{WHAT[arm]}: {what}", "ours": value["mean"], "peer": peer, "peer_name": peer_name, "ratio": None,
            "unit": "share", "low": value["low"], "high": value["high"], "n": int(value.get("problems", found["problems"])),
            "note": note,
        })  # fmt: skip
        print(f"{rows[-1]['what']}: {value['mean']:.1%} [{value['low']:.1%}, {value['high']:.1%}], {note}")

    for name, value in found["pairwise"].items():
        if value is not None:
            add(f"pairs ordered rightly by {name}", value, 0.5, "chance", "mean over problems with right and wrong samples")
    best, note = found["at"][-1], f"exact over all subsets; pass@1 {found['at'][0]['pass']['mean']:.1%}"
    for name in ("rm", "weighted", "maj", "pass", "rm_gain"):
        if best.get(name) is not None:
            add(f"{name}@{best['k']}", best[name], None, None, note)
    return rows


def main() -> None:
    a = parser_of("reward_arms", __doc__, ARMS).parse_intermixed_args()
    runs = run_arms("reward_arms", a, {arm: ARMS[arm] for arm in a.arms})
    rows = [row for arm, run in runs.items() for row in rows_of(arm, metrics(run, "reward_eval")[-1])]
    kinds = ("reward_data", "reward_train", "reward_eval")
    more = {"arms": {arm: {k: metrics(run, k) for k in kinds} for arm, run in runs.items()}}
    write_results(a.output, "reward_arms", rows, ("torch", "transformers", "peft"), accelerator(), **more)


if __name__ == "__main__":
    main()
