"""Training an outcome reward model: the shared-prefix listwise forward beside padded and separate ones.

    python -m benchmarks.reward_model --shape tiny            seconds on a CPU, as a check
    python -m benchmarks.reward_model --shape smollm2         minutes on a CPU, or a GPU
    python -m benchmarks.reward_model --shape 7b              a GPU with 80 GB

The work is the same for all: groups of `--solutions` solutions of a problem (half of them right), the listwise loss
over all pairs, LoRA r=16 on all projections, a float32 head, bfloat16, AdamW, steps of `--batch` problems. Lengths are
drawn once, log-normal with the given means (the defaults are those of GSM8K with a chat prompt). Weights are random:
speed and memory do not depend on them. The 7B shape is Qwen2.5-7B's.

    shared    ours: a problem's prompt is computed once, rows without padding
    packed    ours with training.prefix_sharing=false: every solution has a copy of its prompt
    padded    transformers: the solutions of one or more problems as one padded batch
    separate  transformers: one forward pass for each solution, all kept until the group's loss is known

Every case is a process of its own. Seconds are those of the clock on a GPU, else seconds of CPU time, so that other
work on the machine does not count. Peak memory is that of the allocator on a GPU, else what the process had resident.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.memory import measured
from benchmarks.record import accelerator, positive, write_results
from configs.rows import Group
from configs.schema import RewardModelSection, TrainingSection

_WEIGHTS = """
import sys
from pathlib import Path
from benchmarks.dpo import make_weights
make_weights(sys.argv[1], Path(sys.argv[2]))
"""
RESULTS = Path(__file__).parent / "results" / "reward_model.json"


@dataclass(frozen=True)
class Case:
    """One process. `size`: our tokens in a micro-batch, or problems in a padded batch."""

    how: str
    shape: str
    size: int
    checkpointing: bool = False

    @property
    def label(self) -> str:
        unit = "tokens" if self.how in ("shared", "packed") else "problems"
        return f"{self.shape} {'checkpointed' if self.checkpointing else 'plain'}: {self.how}, {self.size} {unit}"


def cases(shape: str) -> list[Case]:
    """What is measured; the padded peer at several sizes, so that it can be given its best."""
    if shape == "7b":
        return [
            *(Case("shared", shape, size, on) for size, on in ((8192, True), (4096, False))),
            *(Case("packed", shape, size, on) for size, on in ((8192, True), (4096, False))),
            *(Case("padded", shape, size, on) for size, on in ((4, True), (8, True), (1, False), (2, False), (4, False))),
            Case("separate", shape, 1, True), Case("separate", shape, 1, False),
        ]  # fmt: skip
    tokens = 16384 if shape == "smollm2" else 2048
    return [Case("shared", shape, tokens), Case("packed", shape, tokens), *(Case("padded", shape, size) for size in (1, 4)),
            Case("separate", shape, 1)]


def make_groups(count: int, solutions: int, prompt: int, solution: int, seed: int = 0) -> list[Group]:
    """Random ids with log-normal lengths (sigma 0.4) around these means."""
    rng = random.Random(seed)

    def ids(mean: int) -> list[int]:
        return [rng.randrange(10, 40_000) for _ in range(max(4, round(mean * rng.lognormvariate(-0.08, 0.4))))]

    groups = []
    for number in range(count):
        texts = [ids(solution) for _ in range(solutions)]
        groups.append(Group(
            id=str(number), parents=[], stage="benchmark", problem=str(number), split="train", prompt_ids=ids(prompt),
            samples=[f"{number}#{i}" for i in range(solutions)], models=["m"] * solutions,
            token_ids=[t for s in texts for t in s], lengths=[len(s) for s in texts], marks=[len(s) - 1 for s in texts],
            labels=[float(i < solutions // 2) for i in range(solutions)], counts=[1] * solutions, solve_rate=0.5,
        ))  # fmt: skip
    return groups


def settings_of(case: Case, batch: int) -> TrainingSection:
    return TrainingSection.model_validate({
        "method": "reward_model", "adapter": "lora", "lora": {"r": 16, "alpha": 32}, "learning_rate": 1e-6, "batch_size": batch,
        "epochs": 1, "micro_batch_tokens": case.size if case.how in ("shared", "packed") else 1, "checkpoint_every": 10_000,
        "prefix_sharing": case.how == "shared", "gradient_checkpointing": case.checkpointing, "schedule": "constant",
    })


def run_ours(case: Case, weights: Path, groups: Sequence[Group], batch: int, step: Callable[[], None]) -> None:
    from trainers.loop import train
    from trainers.reward_head import RewardHead
    from trainers.reward_model import outcome_reward_model

    settings = settings_of(case, batch)
    with tempfile.TemporaryDirectory() as work:
        method = outcome_reward_model(groups, settings, RewardModelSection(), 0)
        train(
            method, settings, base=weights, dtype="bfloat16", start=None, seed=0, work=Path(work),
            output=Path(work) / "model", report=lambda _: step(), part=RewardHead("outcome"),
        )


def run_peer(case: Case, weights: Path, groups: Sequence[Group], batch: int, step: Callable[[], None]) -> None:
    """The model's own forward on padded batches or single sequences; the same adapter, head, loss and optimiser."""
    import torch
    from torch.nn.functional import softplus

    from trainers.model import device, load_for_training, trainable
    from trainers.optimizer import Optimizer
    from trainers.reward_groups import responses

    settings = settings_of(case, batch)
    model: Any = load_for_training(weights, "bfloat16", "lora", settings.lora, None, 0, "sdpa")
    if case.checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    backbone, size = model.get_base_model().base_model, model.config.hidden_size
    head = torch.nn.Sequential(torch.nn.Linear(size, size), torch.nn.ReLU(), torch.nn.Linear(size, 1)).to(device())
    model.add_module("reward_head", head)
    optimizer = Optimizer(trainable(model), settings)

    def scores(sequences: Sequence[list[int]]) -> Any:
        width = max(map(len, sequences))
        ids = torch.tensor([s + [0] * (width - len(s)) for s in sequences], device=device())
        last = torch.tensor([len(s) - 1 for s in sequences], device=device())
        mask = (torch.arange(width, device=device())[None] <= last[:, None]).long()
        hidden = backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return head(hidden[torch.arange(len(sequences)), last].float())[:, 0]

    for begin in range(0, len(groups), batch):
        for first in range(begin, begin + batch, case.size):
            mine = groups[first : first + case.size]
            texts = [[r.prompt_ids + r.token_ids for r in responses(g)] for g in mine]
            if case.how == "separate":
                values = torch.cat([scores([s]) for t in texts for s in t])
            else:
                values = scores([s for t in texts for s in t])
            losses = []
            for g, v in zip(mine, values.split([len(t) for t in texts]), strict=True):
                right = torch.tensor(g.labels, device=device()) > 0.5
                losses.append(softplus(v[~right][None, :] - v[right][:, None]).mean())
            (torch.stack(losses).sum() / batch).backward()
        optimizer.step(1e-6)
        step()


def run_case(options: argparse.Namespace) -> None:
    """The child process: one case, its figures as the last line."""
    import torch

    case, cuda = Case(**json.loads(options.case)), torch.cuda.is_available()
    groups = make_groups(options.batch * (options.warmup + options.steps), options.solutions, options.prompt, options.solution)
    times: list[float] = []

    def step() -> None:
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() if cuda else time.process_time())

    runner = run_ours if case.how in ("shared", "packed") else run_peer
    runner(case, options.weights, groups, options.batch, step)
    seconds = [b - a for a, b in zip(times[options.warmup - 1 :], times[options.warmup :], strict=False)]
    print(json.dumps({
        "problems_per_second": options.batch / statistics.fmean(seconds), "step_median": statistics.median(seconds),
        "steps": len(seconds), "peak_gib": (torch.cuda.max_memory_allocated() if cuda else _resident()) / 2**30,
    }))


def _resident() -> int:
    """Largest resident memory of this process so far, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


def _child(case: Case, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    numbers = ("batch", "steps", "warmup", "solutions", "prompt", "solution")
    arguments = [x for name in numbers for x in (f"--{name}", str(getattr(options, name)))]
    arguments += ["--case", json.dumps(asdict(case)), "--weights", folder]
    return measured(["benchmarks.reward_model", *arguments], options.limit)


def run(options: argparse.Namespace) -> None:
    """The parent: weights once a shape, then every case in its own process."""
    found: dict[str, Any] = {}
    sample = make_groups(options.batch * options.steps, options.solutions, options.prompt, options.solution)
    work = {
        "problems_a_step": options.batch, "solutions": options.solutions,
        "mean_prompt_tokens": statistics.fmean(len(g.prompt_ids) for g in sample),
        "mean_solution_tokens": statistics.fmean(n for g in sample for n in g.lengths),
    }
    for shape in options.shape:
        parent = "/dev/shm" if shutil.disk_usage("/dev/shm").free > 40 << 30 else None
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            subprocess.run([sys.executable, "-c", _WEIGHTS, shape, folder], check=True)
            for case in (c for c in cases(shape) if not options.only or re.search(options.only, c.label)):
                result = found[case.label] = asdict(case) | _child(case, folder, options)
                print(f"{case.label:45s} {_told(result)}", flush=True)
                write_results(
                    options.out, "reward_model", _rows(found), ("torch", "transformers", "peft"), accelerator(), work=work,
                    cases=found,
                )


def _told(result: dict[str, Any]) -> str:
    if "failed" in result:
        return f"failed: {result['failed']}"
    return f"{result['problems_per_second']:.2f} problems/s, peak {result['peak_gib']:.2f} GiB"


def _rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The shared forward against each other way, the fastest of each, at the same shape and checkpointing."""
    rows = []
    done = {k: v for k, v in found.items() if "failed" not in v}
    for label, mine in done.items():
        if mine["how"] != "shared":
            continue
        for how in ("packed", "padded", "separate"):
            peers = {k: v for k, v in done.items()
                     if v["how"] == how and all(v[x] == mine[x] for x in ("shape", "checkpointing"))}
            if peers:
                best = max(peers, key=lambda k: peers[k]["problems_per_second"])
                rows += [
                    {"what": f"{label}, {field}", "ours": mine[field], "peer": peers[best][field], "peer_name": best,
                     "ratio": mine[field] / peers[best][field], "unit": unit, "note": ""}
                    for field, unit in (("problems_per_second", "problems/s"), ("peak_gib", "GiB"))
                ]  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", default=["7b"], choices=["tiny", "smollm2", "7b"])
    parser.add_argument("--only", help="a regular expression over the labels of cases")
    parser.add_argument("--batch", type=int, default=16, help="problems in a step")
    parser.add_argument("--steps", type=positive, default=6)
    parser.add_argument("--warmup", type=positive, default=2)
    parser.add_argument("--solutions", type=int, default=6)
    parser.add_argument("--prompt", type=int, default=110, help="mean tokens")
    parser.add_argument("--solution", type=int, default=130, help="mean tokens")
    parser.add_argument("--limit", type=int, default=300, help="seconds that a case may take")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        run_case(options)
    else:
        run(options)


if __name__ == "__main__":
    main()
