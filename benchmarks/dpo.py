"""DPO on RISE pairs, ours beside TRL's DPOTrainer: pairs per second and peak memory (of the GPU, or resident).

    python -m benchmarks.dpo prepare PAIRS.jsonl       pairs with the lengths of GSM8K (needs $RATCHET_DATA)
    python -m benchmarks.dpo run PAIRS.jsonl           all cases of a GPU, each in its own process
    python -m benchmarks.dpo run PAIRS.jsonl --shape smollm2-cpu --batch 8 --steps 3 --warmup 1     on a CPU

The work is the same for both: the same pairs, LoRA r=16 on all projections, bfloat16, AdamW, optimiser steps of
`--batch` pairs. A problem has one pair of whole solutions (human solution against another problem's, so that
nothing but the prompt is shared) and `--edits` step pairs (a step against itself with one number changed). Weights
are random: speed and memory do not depend on them. The 7B shape is Qwen2.5-7B's.

Time of a pair = time in training steps (after warm-up) + time of its reference log-probabilities, as in one epoch.
TRL runs at several micro-batch sizes, with reference log-probs in the step or precomputed; it is given its best.
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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import accelerator, positive, write_results

LORA = 16


@dataclass(frozen=True)
class Case:
    """One process. `size` is TRL's pairs a micro-batch, or our tokens a micro-batch."""

    who: str  # "ours" or "trl"
    shape: str
    adapter: str = "lora"
    checkpointing: bool = True
    size: int = 0
    sharing: bool = True
    precomputed: bool = False

    @property
    def label(self) -> str:
        kind = f"{'shared' if self.sharing else 'packed'} {self.size} tokens" if self.who == "ours" else f"{self.size} pairs"
        extra = " precomputed" if self.precomputed else ""
        return f"{self.shape} {self.adapter} {'checkpointed' if self.checkpointing else 'plain'}: {self.who} {kind}{extra}"


def cases(shapes: list[str]) -> list[Case]:
    """What is measured for each shape, the peer's best settings searched over micro-batch sizes."""
    result: list[Case] = []
    for shape in shapes:
        if shape == "7b":
            result += [
                Case("ours", shape, size=8192),
                Case("trl", shape, size=8, sharing=False),
                Case("trl", shape, size=16, sharing=False),
                Case("trl", shape, size=16, sharing=False, precomputed=True),
                Case("ours", shape, size=8192, sharing=False),
                Case("ours", shape, checkpointing=False, size=4096),
                Case("trl", shape, checkpointing=False, size=4, sharing=False),
                Case("trl", shape, checkpointing=False, size=8, sharing=False),
                Case("ours", shape, "qlora", size=8192),
                Case("trl", shape, "qlora", size=16, sharing=False),
            ]
        else:
            tokens, pairs = (16384, 32) if shape == "smollm2" else (1024, 4)
            result += [
                Case("ours", shape, checkpointing=False, size=tokens),
                Case("ours", shape, checkpointing=False, size=tokens, sharing=False),
                Case("trl", shape, checkpointing=False, size=pairs, sharing=False),
                Case("trl", shape, checkpointing=False, size=pairs, sharing=False, precomputed=True),
            ]
    return result


def model_config(shape: str) -> Any:
    from transformers import LlamaConfig, Qwen2Config

    if shape == "7b":
        return Qwen2Config(
            vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
            num_key_value_heads=4, tie_word_embeddings=False,
        )
    sizes = {"smollm2": (49152, 576, 1536, 30, 9, 3), "tiny": (49152, 64, 128, 2, 4, 2)}
    vocabulary, hidden, intermediate, layers, heads, groups = sizes[shape.removesuffix("-cpu")]
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=groups, tie_word_embeddings=True,
    )


def make_weights(shape: str, folder: Path) -> None:
    """Random bfloat16 weights and a tokenizer without meaning (TRL wants one)."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(model_config(shape), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({"<eos>": 0, "a": 1, "b": 2, "c": 3}, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>").save_pretrained(folder)


def prepare(path: Path, problems: int, edits: int, seed: int) -> None:
    """Write pairs (problem, kind, context, chosen, rejected: token ids) built from GSM8K's training set."""
    from configs.schema import ModelSection, PromptSection
    from data_gen.problems import load_problems, strip_calculator_marks
    from data_gen.prompts import PromptEncoder
    from data_gen.steps import split_steps
    from pipelines.models import resolve_model

    generator = random.Random(seed)
    encoder = PromptEncoder(resolve_model(ModelSection()).path, PromptSection())
    rows = list(load_problems("gsm8k", "train", limit=problems, seed=seed))
    texts = [strip_calculator_marks(p.solution or "") for p in rows]

    def ids(text: str) -> list[int]:
        return encoder.completion_ids(text)[:-1]

    with path.open("w") as out:
        for number, (problem, text) in enumerate(zip(rows, texts, strict=True)):
            prompt, end = encoder.encode(problem.question), encoder.completion_ids("")
            other = ids(texts[(number + 1) % len(texts)])
            pairs = [("full", prompt, ids(text) + end, other + end)]
            steps = split_steps(text)
            numbered = [i for i, s in enumerate(steps) if re.search(r"\d", s)]
            for i in generator.sample(numbered, min(edits, len(numbered))):
                found = generator.choice(list(re.finditer(r"\d", steps[i])))
                digit = str((int(found.group()) + generator.randint(1, 8)) % 9 + 1)
                wrong = steps[i][: found.start()] + digit + steps[i][found.end() :]
                pairs.append(("edited", prompt + ids("".join(steps[:i])), ids(steps[i]), ids(wrong)))
            for kind, context, chosen, rejected in pairs:
                if chosen != rejected:
                    out.write(json.dumps({"problem": problem.id, "kind": kind, "context": context, "chosen": chosen,
                                          "rejected": rejected}) + "\n")


def load_pairs(path: Path, count: int) -> list[dict[str, Any]]:
    """The first `count` pairs of the file, problem after problem."""
    with path.open() as lines:
        return [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]


def run_ours(case: Case, weights: Path, rows: list[dict[str, Any]], batch: int, warmup: int, measure: Any) -> None:
    from configs.rows import Pair
    from configs.schema import TrainingSection
    from trainers.dpo import DirectPreferenceOptimization, reference_logprobs
    from trainers.loop import open_policy, train

    pairs = [
        Pair(id=str(i), parents=[], stage="benchmark", problem=r["problem"], context_ids=r["context"],
             chosen_ids=r["chosen"], rejected_ids=r["rejected"], chosen="", rejected="", kind=r["kind"], error=None,
             first_difference=0, chosen_eos=False, rejected_eos=False)
        for i, r in enumerate(rows)
    ]
    settings = TrainingSection.model_validate({
        "method": "dpo", "adapter": case.adapter, "lora": {"r": LORA, "alpha": 32}, "learning_rate": 1e-6,
        "batch_size": batch, "epochs": 1, "micro_batch_tokens": case.size, "prefix_sharing": case.sharing,
        "gradient_checkpointing": case.checkpointing, "checkpoint_every": 1000,
    })
    policy = open_policy(settings, weights, "bfloat16", None, 0)
    reference_logprobs(policy, pairs[:batch], settings)  # warm-up: kernels are compiled here
    measure.begin()
    reference = reference_logprobs(policy, pairs, settings)
    measure.reference(len(pairs))
    del policy
    measure.begin()
    with tempfile.TemporaryDirectory() as work:
        train(DirectPreferenceOptimization(pairs, reference, settings, 0), settings, base=weights, dtype="bfloat16",
              start=None, seed=0, work=Path(work), output=Path(work) / "model", report=lambda _: measure.step())


def run_trl(case: Case, weights: Path, rows: list[dict[str, Any]], batch: int, warmup: int, measure: Any) -> None:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            measure.step()

    class Trainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:  # token ids are given
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            measure.begin()
            result = super()._precompute_ref_logps(dataset, *args, **kwargs)
            measure.reference(len(rows))
            return result

    more: dict[str, Any] = {}
    if case.adapter == "qlora":
        more = {"quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16)}
    cuda = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(
        weights, dtype=torch.bfloat16, attn_implementation="sdpa", device_map={"": 0} if cuda else None, **more
    )
    with tempfile.TemporaryDirectory() as work:
        config = DPOConfig(
            output_dir=work, per_device_train_batch_size=case.size, gradient_accumulation_steps=batch // case.size,
            num_train_epochs=1, learning_rate=1e-6, bf16=True, gradient_checkpointing=case.checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False}, max_length=None, logging_steps=10_000,
            save_strategy="no", report_to="none", precompute_ref_log_probs=case.precomputed, use_cpu=not cuda,
            precompute_ref_batch_size=case.size, dataloader_pin_memory=False,
        )
        dataset = Dataset.from_list([
            {"prompt": "a", "chosen": "b", "rejected": "c", "prompt_ids": r["context"], "chosen_ids": r["chosen"],
             "rejected_ids": r["rejected"]} for r in rows
        ])
        trainer = Trainer(
            model=model, args=config, train_dataset=dataset, processing_class=AutoTokenizer.from_pretrained(weights),
            peft_config=LoraConfig(r=LORA, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
            callbacks=[Clock()],
        )
        measure.begin()
        trainer.train()


class Measure:
    """Clock and memory of one case."""

    def __init__(self) -> None:
        import torch

        self.cuda = torch.cuda.is_available()
        self.times: list[float] = []
        self.reference_seconds = 0.0  # a pair
        self.began = 0.0

    def _now(self) -> float:
        import torch

        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def begin(self) -> None:
        import gc

        import torch

        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self.began = self._now()
        self.times = []

    def reference(self, pairs: int) -> None:
        self.reference_seconds = (self._now() - self.began) / pairs

    def step(self) -> None:
        self.times.append(self._now())

    def result(self, warmup: int, batch: int) -> dict[str, float]:
        import torch

        steps = [b - a for a, b in zip(self.times[warmup - 1 :], self.times[warmup:], strict=False)]
        seconds = statistics.fmean(steps)
        return {
            "steps": len(steps), "step_seconds": seconds, "step_median": statistics.median(steps),
            "reference_seconds_a_pair": self.reference_seconds,
            "pairs_per_second": 1.0 / (seconds / batch + self.reference_seconds),
            "pairs_per_second_without_reference": batch / seconds,
            "peak_gib": (torch.cuda.max_memory_allocated() if self.cuda else _resident()) / 2**30,
            "peak_reserved_gib": torch.cuda.max_memory_reserved() / 2**30 if self.cuda else 0.0,
        }


def _resident() -> int:
    """Largest resident memory of this process so far, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


def run_case(options: argparse.Namespace) -> None:
    """The child process: one case, its figures as the last line."""
    case = Case(**json.loads(options.case))
    rows = load_pairs(options.pairs, options.batch * (options.warmup + options.steps))
    measure = Measure()
    runner: Callable[..., None] = run_ours if case.who == "ours" else run_trl
    runner(case, options.weights, rows, options.batch, options.warmup, measure)
    print(json.dumps(measure.result(options.warmup, options.batch)))


def run(options: argparse.Namespace) -> None:
    """The parent: weights once a shape, then every case in its own process."""
    found: dict[str, Any] = {}
    for shape in options.shape:
        parent = "/dev/shm" if shutil.disk_usage("/dev/shm").free > 40 << 30 else None
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            command = [sys.executable, "-c", "import sys; from pathlib import Path; from benchmarks.dpo import make_weights; "
                       "make_weights(sys.argv[1], Path(sys.argv[2]))", shape, folder]
            subprocess.run(command, check=True)
            for case in cases([shape]):
                if options.only and not re.search(options.only, case.label):
                    continue
                found[case.label] = asdict(case) | _child(case, folder, options)
                print(f"{case.label:60s} {_text(found[case.label])}", flush=True)
                write_results(
                    options.out, "dpo", _rows(found), ("torch", "transformers", "peft", "trl", "bitsandbytes"), accelerator(),
                    batch=options.batch, pairs=_lengths(load_pairs(options.pairs, options.batch * options.steps)), cases=found,
                )


def _lengths(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The work in figures: mean tokens by kind."""
    result: dict[str, Any] = {"count": len(rows), "problems": len({r["problem"] for r in rows})}
    for kind in ("full", "edited"):
        mine = [r for r in rows if r["kind"] == kind]
        result[kind] = {"count": len(mine)} | {
            side: round(statistics.fmean(len(r[side]) for r in mine), 1) for side in ("context", "chosen", "rejected") if mine
        }
    return result


def _child(case: Case, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    arguments = [
        sys.executable, "-m", "benchmarks.dpo", "case", str(options.pairs), "--case", json.dumps(asdict(case)),
        "--weights", folder, "--batch", str(options.batch), "--steps", str(options.steps), "--warmup", str(options.warmup),
    ]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=options.limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"longer than {options.limit} s"}
    if done.returncode != 0:
        return {"failed": (done.stderr.strip().splitlines() or ["?"])[-1][:400], "stderr": done.stderr[-3000:]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _text(result: dict[str, Any]) -> str:
    if "failed" in result:
        return f"failed: {result['failed']}"
    return (
        f"{result['pairs_per_second']:8.2f} pairs/s ({result['pairs_per_second_without_reference']:.2f} without reference), "
        f"peak {result['peak_gib']:.2f} GiB, {result['peak_reserved_gib']:.2f} reserved"
    )


def _rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Our cases against the fastest TRL case of the same shape, adapter and checkpointing."""
    rows = []
    for label, mine in found.items():
        peers = {
            k: v for k, v in found.items()
            if v["who"] == "trl" and "failed" not in v and all(v[x] == mine[x] for x in ("shape", "adapter", "checkpointing"))
        }
        if mine["who"] != "ours" or "failed" in mine or not peers:
            continue
        best = max(peers, key=lambda k: peers[k]["pairs_per_second"])
        for field, unit in (("pairs_per_second", "pairs/s"), ("peak_gib", "GiB")):
            ours, peer = mine[field], peers[best][field]
            rows.append({"what": f"{label}, {field}", "ours": ours, "peer": peer, "peer_name": f"TRL ({best})",
                         "ratio": ours / peer if peer else None, "unit": unit, "note": ""})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", "run", "case"])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--shape", nargs="+", default=["7b", "smollm2"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=positive, default=8)
    parser.add_argument("--warmup", type=positive, default=3)
    parser.add_argument("--edits", type=int, default=1)
    parser.add_argument("--problems", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=240, help="seconds a case may take")
    parser.add_argument("--only", help="a regular expression over case labels")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "dpo.json")
    parser.add_argument("--case")
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    if options.what == "prepare":
        prepare(options.pairs, options.problems, options.edits, options.seed)
    elif options.what == "run":
        run(options)
    else:
        run_case(options)


if __name__ == "__main__":
    main()
