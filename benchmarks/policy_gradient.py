"""The training part of an online step: ReMax beside PPO with a critic, RLOO beside TRL's RLOOTrainer.

    python -m benchmarks.policy_gradient                        all cases of a GPU, each in its own process
    python -m benchmarks.policy_gradient --only 'remax|ppo'     cases whose labels match
    python -m benchmarks.policy_gradient --shape tiny --problems 4 --samples 2 --steps 2 --warmup 1 --tokens 1024   on a CPU

No network is needed: weights are random (7B: Qwen2.5-7B's shape), on which neither speed nor memory depends; prompts
and completions are random ids whose lengths follow a log-normal law (prompts: median 100; completions: median 300, 95 %
below 900). Both sides get the same prompts, completions and rewards, LoRA r=16 on all projections, bfloat16,
checkpointing, and an optimiser step over the whole batch. All samples have an advantage unless the case says so.

Generation is not part of it. ReMax draws one greedy completion more for each problem, PPO and RLOO do not; PPO here
pays for its critic in training alone. TRL runs its own training loop with generation replaced by the given
completions, at several micro-batch sizes, and is given its best.

Accuracy over steps on real data needs the weights and vLLM, and is a run rather than a benchmark:

    ratchet run remax_gsm8k model.name=runs/rft_gsm8k@1 sampling.engine=vllm --run-dir runs/remax
    ratchet run remax_gsm8k model.name=runs/rft_gsm8k@1 sampling.engine=vllm training.method=rloo --run-dir runs/rloo
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.dpo import LORA, Measure, make_weights
from benchmarks.record import accelerator, write_results

_PACKAGES = ("torch", "transformers", "peft", "trl")


@dataclass(frozen=True)
class Case:
    """One process. `who`: remax, ppo, rloo or trl; `size` is TRL's samples a micro-batch, else unused."""

    who: str
    shape: str
    samples: int
    kl: bool = True
    size: int = 0
    sharing: bool = True
    equal: bool = False  # half of ReMax's samples do as well as the greedy one

    @property
    def label(self) -> str:
        parts = [self.shape, self.who, f"n={self.samples}", "kl" if self.kl else "no-kl"]
        parts += [f"micro={self.size}"] if self.size else []
        parts += ["unshared"] if not self.sharing else []
        parts += ["half-equal"] if self.equal else []
        return " ".join(parts)


def cases(shape: str, samples: int) -> list[Case]:
    """ReMax and PPO with one sample a problem, as in the paper; RLOO and TRL's with several."""
    result = [Case(who, shape, 1, kl) for kl in (True, False) for who in ("remax", "ppo")]
    result += [Case("remax", shape, 1, kl=False, equal=True)]
    for kl in (False, True):
        result += [Case("rloo", shape, samples, kl)]
        result += [Case("trl", shape, samples, kl, size) for size in ((4, 8, 16) if shape != "tiny" else (samples,))]
    return [*result, Case("rloo", shape, samples, kl=False, sharing=False)]


@dataclass(frozen=True)
class Problem:
    """Words of a prompt (each is one token), completions that end with the end token 0, and their rewards."""

    prompt: list[str]
    completions: list[list[int]]
    rewards: list[float]


def workload(problems: int, samples: int, steps: int, seed: int, vocabulary: int) -> list[list[Problem]]:
    """Problems of every step."""
    rng = random.Random(seed)

    def length(median: float, high: float, most: int) -> int:  # `high`: the 95th percentile
        return max(8, min(most, round(median * math.exp(rng.gauss(0.0, 1.0) * math.log(high / median) / 1.645))))

    def problem() -> Problem:
        completions = [
            [rng.randrange(4, vocabulary) for _ in range(length(300, 900, 1500) - 1)] + [0] for _ in range(samples)
        ]
        return Problem(rng.choices("abc", k=length(100, 200, 400)), completions, [float(i % 2) for i in range(samples)])

    return [[problem() for _ in range(problems)] for _ in range(steps)]


def run_ours(case: Case, weights: Path, batches: list[list[Problem]], options: argparse.Namespace, measure: Measure) -> None:
    """ReMax, RLOO or PPO on all batches."""
    from transformers import AutoTokenizer

    from benchmarks.ppo import Ppo
    from configs.schema import TrainingSection
    from trainers.loop import open_policy
    from trainers.policy_gradient import PolicyGradient

    settings = TrainingSection.model_validate({
        "method": "rloo" if case.who == "rloo" else "remax", "lora": {"r": LORA}, "learning_rate": 1e-6,
        "micro_batch_tokens": options.tokens, "gradient_checkpointing": True, "prefix_sharing": case.sharing,
        "rl": {"steps": len(batches), "kl": "to_go" if case.kl else "none", "loss": "sequence_sum"},
    })
    trainer = PolicyGradient(open_policy(settings, weights, "bfloat16", None, 0), settings, 1.0)
    if not case.kl:
        trainer.initial = None  # the monitor of the distance travelled: TRL and PPO have none without a KL term
    ppo = Ppo(trainer, open_policy(settings, weights, "bfloat16", None, 1), settings) if case.who == "ppo" else None
    tokenizer = AutoTokenizer.from_pretrained(weights)
    measure.begin()
    measure.step()
    for step, batch in enumerate(batches):
        groups = [_group(case, tokenizer, number, p) for number, p in enumerate(batch)]
        if ppo:
            ppo.update(groups, step)
        else:
            trainer.update(groups, step)
        measure.step()


def _group(case: Case, tokenizer: Any, number: int, problem: Problem) -> Any:
    from trainers.rollouts import Greedy, Group, Trajectory

    # random weights give log-probabilities near -log(vocabulary), whatever the sampler may say: their value is free
    samples = [
        Trajectory(ids, [-11.0] * len(ids), reward, reward > 0, False)
        for ids, reward in zip(problem.completions, problem.rewards, strict=True)
    ]
    greedy = Greedy(float(number % 2) if case.equal else 0.5, 300)
    return Group(str(number), tokenizer(" ".join(problem.prompt))["input_ids"], samples, greedy)


def run_trl(case: Case, weights: Path, batches: list[list[Problem]], options: argparse.Namespace, measure: Measure) -> None:
    """TRL's own training loop; its generation returns the given completions."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl.trainer.rloo_config import RLOOConfig
    from trl.trainer.rloo_trainer import RLOOTrainer

    flat = [p for batch in batches for p in batch]
    given = {" ".join(p.prompt): p for p in flat}

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            measure.step()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            measure.step()

    tokenizer = AutoTokenizer.from_pretrained(weights)

    class Trainer(RLOOTrainer):
        def _generate_single_turn(self, prompt_ids: Any, *_: Any, **__: Any) -> Any:
            seen: dict[str, int] = {}
            found = []
            for text in tokenizer.batch_decode(prompt_ids, skip_special_tokens=True):
                found.append(given[text].completions[seen.get(text, 0)])
                seen[text] = seen.get(text, 0) + 1
            return found

    def rewards(prompts: list[str], **_: Any) -> list[float | None]:
        return [float(i % case.samples % 2) for i in range(len(prompts))]

    cuda = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(
        weights, dtype=torch.bfloat16, attn_implementation="sdpa", device_map={"": 0} if cuda else None
    )
    batch = options.problems * case.samples
    with tempfile.TemporaryDirectory() as work:
        config = RLOOConfig(
            output_dir=work, per_device_train_batch_size=case.size, gradient_accumulation_steps=batch // case.size,
            num_generations=case.samples, max_steps=len(batches), learning_rate=1e-6, bf16=True, report_to="none",
            gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False},
            beta=0.001 if case.kl else 0.0, save_strategy="no", logging_steps=10_000, use_cpu=not cuda, shuffle_dataset=False,
            max_completion_length=1500, dataloader_pin_memory=False,
        )
        trainer = Trainer(
            model=model, reward_funcs=rewards, args=config, processing_class=tokenizer,
            train_dataset=Dataset.from_list([{"prompt": " ".join(p.prompt)} for p in flat]), callbacks=[Clock()],
            peft_config=LoraConfig(r=LORA, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        measure.begin()
        trainer.train()


def run_case(options: argparse.Namespace) -> None:
    """The child process: one case, its figures as the last line."""
    case = Case(**json.loads(options.case))
    batches = workload(options.problems, case.samples, options.warmup + options.steps, options.seed, 40000)
    measure = Measure()
    (run_trl if case.who == "trl" else run_ours)(case, options.weights, batches, options, measure)
    result = measure.result(options.warmup + 1, options.problems * case.samples)
    wanted = ("steps", "step_seconds", "step_median", "peak_gib", "peak_reserved_gib")
    tokens = sum(len(c) for b in batches[options.warmup :] for p in b for c in p.completions) / options.steps
    print(json.dumps({k: result[k] for k in wanted} | {"tokens": tokens, "tokens_per_second": tokens / result["step_seconds"]}))


def run(options: argparse.Namespace) -> None:
    """The parent: weights once a shape, then every case in its own process; results are written after each."""
    found: dict[str, Any] = {}
    for shape in options.shape:
        parent = "/dev/shm" if shutil.disk_usage("/dev/shm").free > 40 << 30 else None
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            command = [sys.executable, "-m", "benchmarks.policy_gradient", "--make", folder, "--shape", shape]
            subprocess.run(command, check=True)
            for case in cases(shape, options.samples):
                if options.only and not re.search(options.only, case.label):
                    continue
                found[case.label] = asdict(case) | _child(case, folder, options)
                print(f"{case.label:44s} {_text(found[case.label])}", flush=True)
                rows = table(found)
                write_results(
                    options.out, "policy_gradient", rows, _PACKAGES, accelerator(), problems=options.problems,
                    micro_batch_tokens=options.tokens, cases=found,
                )  # fmt: skip
    print(f"\n{'what':52} {'ours':>9} {'peer':>9} {'ratio':>7}  unit, peer")
    for r in table(found):
        print(f"{r['what']:52} {r['ours']:9.3f} {r['peer']:9.3f} {r['ratio']:7.3f}  {r['unit']} {r['peer_name']}")


def _child(case: Case, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    arguments = [sys.executable, "-m", "benchmarks.policy_gradient", "--case", json.dumps(asdict(case)), "--weights", folder]
    for name in ("problems", "steps", "warmup", "tokens", "seed"):
        arguments += [f"--{name}", str(getattr(options, name))]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=options.limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"longer than {options.limit} s"}
    if done.returncode != 0:
        return {"failed": (done.stderr.strip().splitlines() or ["?"])[-1][:400], "stderr": done.stderr[-3000:]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _text(r: dict[str, Any]) -> str:
    if "failed" in r:
        return f"failed: {r['failed']}"
    return f"{r['step_seconds']:8.3f} s a step, {r['tokens_per_second']:8.0f} tokens/s, peak {r['peak_gib']:.2f} GiB"


def table(found: dict[str, Any]) -> list[dict[str, Any]]:
    """ReMax against PPO, RLOO against the fastest TRL case, alike in shape, samples and KL."""
    rows = []
    for label, mine in found.items():
        rival = {"remax": "ppo", "rloo": "trl"}.get(mine["who"])
        alike = ("shape", "samples", "kl")
        peers = {
            k: v for k, v in found.items()
            if v["who"] == rival and "failed" not in v and all(v[x] == mine[x] for x in alike)
        }  # fmt: skip
        if "failed" in mine or not peers:
            continue
        best = min(peers, key=lambda k: peers[k]["step_seconds"])
        for field, unit in (("step_seconds", "s"), ("peak_gib", "GiB")):
            ours, peer = mine[field], peers[best][field]
            rows.append({"what": f"{label}, {field}", "ours": ours, "peer": peer, "peer_name": best,
                         "ratio": ours / peer, "unit": unit, "note": "training part of a step, without generation"})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", default=["7b"], choices=["7b", "smollm2", "smollm2-cpu", "tiny"])
    parser.add_argument("--problems", type=int, default=32, help="problems in a step")
    parser.add_argument("--samples", type=int, default=4, help="samples of a problem for RLOO and TRL")
    parser.add_argument("--tokens", type=int, default=16384, help="our distinct tokens in a micro-batch")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=300, help="seconds a case may take")
    parser.add_argument("--only", help="a regular expression over case labels")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "policy_gradient.json")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make_weights(options.shape[0], options.make)
    elif options.case:
        run_case(options)
    else:
        run(options)


if __name__ == "__main__":
    main()
