"""Memory and speed of training: the expected peak beside the measured one, and on a GPU beside TRL on the same work.

    python -m benchmarks.memory                  the cases of this machine: small shapes on a CPU, 7B shapes on a GPU
    python -m benchmarks.memory --only 'dpo'     some of them
    python -m benchmarks.memory --again FILE     measures nothing: that file's measurements beside today's expectations

Each case trains a few steps in a process of its own, on random weights of a published shape (configs/shapes.yaml) and random
tokens: memory depends on neither. Measured are the bytes that torch has allocated at its worst moment (GPU), or the largest
resident memory of the process less what it had before the model was loaded (CPU, with an allocator that gives freed memory
back at once). "Expected" is `pipelines.memory`, which `ratchet plan` shows. A row's `ours` is the expected number of bytes,
its `peer` the measured one; rows against TRL compare both measurements, and sequences (pairs) per second, of the last steps.
`trl_liger` is TRL with `use_liger_kernel`, `ours_compiled` ours with `training.compile`.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.record import accelerator, write_results, write_whole

PROMPT, COMPLETION = 64, 192  # tokens of a sequence; of a pair's sides COMPLETION / 2 each
STEPS = 6  # the first holds what loading and compiling took; those after the second are timed
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")


@dataclass(frozen=True)
class Case:
    """One process. `tokens`: of one micro-batch; a step has two of them."""

    shape: str
    method: str = "sft"
    adapter: str = "lora"
    dtype: str = "bfloat16"
    checkpointing: bool = False
    tokens: int = 1024
    who: str = "ours"

    @property
    def label(self) -> str:
        how = "checkpointed" if self.checkpointing else "plain"
        return f"{self.shape} {self.method} {self.adapter} {self.dtype} {how} {self.tokens} tokens: {self.who}"


SMALL, HALF = "HuggingFaceTB/SmolLM2-135M-Instruct", "Qwen/Qwen2.5-0.5B-Instruct"
SEVEN = ("meta-llama/Llama-2-7b-hf", "Qwen/Qwen2.5-7B-Instruct")
OURS = ("ours", "ours_compiled")


def cases(gpu: bool) -> list[Case]:
    """All of them stay below 6 GiB on a CPU, and below 80 GB on a GPU."""
    if not gpu:
        return [
            Case(SMALL), Case(SMALL, checkpointing=True), Case(SMALL, adapter="full", tokens=512), Case(SMALL, dtype="float32"),
            Case(SMALL, adapter="full", dtype="float32", checkpointing=True, tokens=512), Case(SMALL, "dpo"),
            Case(SMALL, "dpo", checkpointing=True, tokens=2048), Case(SMALL, "remax"), Case(HALF, tokens=512),
            Case(HALF, "dpo", checkpointing=True, tokens=512),
        ]  # fmt: skip
    found = []
    for shape in SEVEN:
        for adapter in ("lora", "qlora"):
            for who in ("ours", "trl"):
                found += [
                    Case(shape, "sft", adapter, checkpointing=True, tokens=8192, who=who),
                    Case(shape, "dpo", adapter, checkpointing=True, tokens=8192, who=who),
                    Case(shape, "dpo", adapter, tokens=4096, who=who),
                ]
            found.append(Case(shape, "sft", adapter, checkpointing=True, tokens=8192, who="trl_liger"))
            found.append(Case(shape, "remax", adapter, checkpointing=True, tokens=8192))
    found += [Case(SMALL, adapter="full", tokens=16384, who=who) for who in (*OURS, "trl")]
    return [*found, Case("Qwen/Qwen2.5-Math-1.5B", adapter="full", checkpointing=True, tokens=8192)]


def make_weights(shape: str, folder: Path) -> None:
    """Random bfloat16 weights, and a tokenizer without meaning (TRL wants one)."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    from pipelines.shape import published_config

    config = published_config(shape)
    assert config is not None, shape
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config.pop("model_type"), **config), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({"<eos>": 0, "a": 1, "b": 2, "c": 3}, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>").save_pretrained(folder)


def settings_of(case: Case) -> Any:
    from configs.schema import TrainingSection

    each = PROMPT + COMPLETION
    return TrainingSection.model_validate({
        "method": case.method, "adapter": case.adapter, "learning_rate": 1e-6, "epochs": 1, "checkpoint_every": 1000,
        "batch_size": 2 * case.tokens // each, "micro_batch_tokens": case.tokens, "warmup_ratio": 0.0,
        "gradient_checkpointing": case.checkpointing, "compile": case.who == "ours_compiled", "rl": {"steps": STEPS},
    })  # fmt: skip


def expected(case: Case, gpu: bool) -> dict[str, float]:
    """What the plan says, by part."""
    from pipelines import memory
    from pipelines.shape import published_shape

    shape = published_shape(case.shape)
    assert shape is not None
    return memory.training(shape, memory.setting(settings_of(case), case.dtype, gpu, case.tokens))


def token_ids(count: int, seed: int) -> list[int]:
    import random

    generator = random.Random(seed)
    return [generator.randrange(1, 30_000) for _ in range(count)]


def train_steps(settings: Any, dtype: str, weights: Path, measure: Measure) -> None:
    """Some steps with our trainers, each on its own data."""
    from configs.schema import ONLINE
    from trainers.loop import open_policy, train

    count = settings.batch_size * STEPS
    if settings.method in ONLINE:
        policy = open_policy(settings, weights, dtype, None, 0)
        _policy_gradient(policy, settings, measure)
        return
    method = _supervised(settings, count) if settings.method == "sft" else _preferences(settings, count)
    with tempfile.TemporaryDirectory() as work:
        train(method, settings, base=weights, dtype=dtype, start=None, seed=0, work=Path(work),
              output=Path(work) / "model", report=lambda _: measure.step())  # fmt: skip


def _supervised(settings: Any, count: int) -> Any:
    from configs.rows import Example
    from trainers.sft import SupervisedFineTuning

    examples = [
        Example(id=str(i), parents=[], stage="benchmark", problem=str(i), prompt_ids=token_ids(PROMPT, i),
                token_ids=token_ids(COMPLETION, -i - 1), text="", kind="human")
        for i in range(count)
    ]  # fmt: skip
    return SupervisedFineTuning(examples, settings, 0)


def _preferences(settings: Any, count: int) -> Any:
    from configs.rows import Pair
    from trainers.dpo import DirectPreferenceOptimization

    side = COMPLETION // 2 - 1  # sides that part at once have one token of the context more
    pairs = [
        Pair(id=str(i), parents=[], stage="benchmark", problem=str(i), context_ids=token_ids(PROMPT, i),
             chosen_ids=token_ids(side, 10**6 + i), rejected_ids=token_ids(side, 2 * 10**6 + i), chosen="", rejected="",
             kind="full", error=None, first_difference=0, chosen_eos=False, rejected_eos=False)
        for i in range(count)
    ]  # fmt: skip
    return DirectPreferenceOptimization(pairs, {p.id: (-1.0, -1.0) for p in pairs}, settings, 0)


def _policy_gradient(policy: Any, settings: Any, measure: Measure) -> None:
    from trainers.policy_gradient import PolicyGradient
    from trainers.rollouts import Greedy, Group, Trajectory

    trainer = PolicyGradient(policy, settings, 1.0)
    each = 1 if settings.method == "remax" else 2  # without a greedy sample, a right and a wrong one give an advantage
    for step in range(STEPS):
        groups = [
            Group(str(g), token_ids(PROMPT, g), [
                Trajectory(token_ids(COMPLETION, 97 * step + each * g + i), [-1.0] * COMPLETION, 1.0 - i, True, False)
                for i in range(each)
            ], Greedy(0.0, COMPLETION))
            for g in range(settings.batch_size // each)
        ]  # fmt: skip
        trainer.update(groups, step)
        measure.step()


def run_trl(case: Case, weights: Path, measure: Measure) -> None:
    """The same tokens a step with TRL's trainers, which pad; the best of its options is the caller's to choose."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            measure.step()

    more: dict[str, Any] = {}
    if case.adapter == "qlora":
        more = {"quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16)}  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(
        weights, dtype=torch.float32 if case.adapter == "full" else torch.bfloat16, attn_implementation="sdpa",
        device_map={"": 0 if torch.cuda.is_available() else "cpu"}, **more,
    )
    each = case.tokens // (PROMPT + COMPLETION)
    with tempfile.TemporaryDirectory() as work:
        common: dict[str, Any] = {
            "output_dir": work, "per_device_train_batch_size": each, "gradient_accumulation_steps": 2, "max_steps": STEPS,
            "learning_rate": 1e-6, "bf16": True, "gradient_checkpointing": case.checkpointing, "max_length": None,
            "use_cpu": not torch.cuda.is_available(),
            "gradient_checkpointing_kwargs": {"use_reentrant": False}, "report_to": "none", "save_strategy": "no",
            "logging_steps": 10_000, "dataloader_pin_memory": False, "use_liger_kernel": case.who == "trl_liger",
        }  # fmt: skip
        trainer = _trl_trainer(case, common, each * 2 * STEPS)(
            model=model, processing_class=AutoTokenizer.from_pretrained(weights), callbacks=[Clock()],
            peft_config=None if case.adapter == "full"
            else LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        trainer.train()


def _trl_trainer(case: Case, common: dict[str, Any], count: int) -> Callable[..., Any]:
    """TRL's trainer for the method with its data, waiting for the model."""
    import functools

    from datasets import Dataset

    if case.method == "sft":
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        texts = [token_ids(PROMPT + COMPLETION, i) for i in range(count)]
        rows = [{"input_ids": ids, "labels": [-100] * PROMPT + ids[PROMPT:]} for ids in texts]
        config = SFTConfig(**common, dataset_kwargs={"skip_prepare_dataset": True})
        return functools.partial(SFTTrainer, args=config, train_dataset=Dataset.from_list(rows))
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class Given(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:  # token ids are given
            return dataset

    rows = [{"prompt": "a", "chosen": "b", "rejected": "c", "prompt_ids": token_ids(PROMPT, i),
             "chosen_ids": token_ids(COMPLETION // 2, 10**6 + i), "rejected_ids": token_ids(COMPLETION // 2, 2 * 10**6 + i)}
            for i in range(count)]  # fmt: skip
    config = DPOConfig(**common, precompute_ref_log_probs=True, precompute_ref_batch_size=common["per_device_train_batch_size"])
    return functools.partial(Given, args=config, train_dataset=Dataset.from_list(rows))


class Measure:
    """Peak memory of this process from the creation of this object on. The first step is counted apart: on a CPU it holds
    what loading took."""

    def __init__(self) -> None:
        import torch

        self.cuda = torch.cuda.is_available()
        self.base = 0 if self.cuda else _status("VmRSS")
        self.peaks: list[int] = []
        self.ends: list[float] = []
        self._reset()

    def step(self) -> None:
        """After an optimiser step."""
        import torch

        if self.cuda:
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        self.peaks.append(self._peak())
        self._reset()

    def _peak(self) -> int:
        import torch

        return torch.cuda.max_memory_allocated() if self.cuda else _status("VmHWM") - self.base

    def _reset(self) -> None:
        import torch

        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the largest resident size is counted anew

    def result(self) -> dict[str, float]:
        import torch

        reserved = torch.cuda.max_memory_reserved() if self.cuda else 0
        return {
            "first_bytes": self.peaks[0], "peak_bytes": max(self.peaks[1:]), "reserved_bytes": reserved,
            "step_seconds": (self.ends[-1] - self.ends[1]) / (len(self.ends) - 2),
        }  # fmt: skip


def _status(name: str) -> int:
    """A size from /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"/proc/self/status has no {name}")


def begin() -> Measure:
    """From here on memory is counted: what imports and the first product take is not the model's."""
    import torch

    import trainers.dpo
    import trainers.loop
    import trainers.policy_gradient
    import trainers.sft  # noqa: F401

    torch.set_num_threads(1)
    torch.nn.functional.linear(torch.zeros(64, 64, dtype=torch.bfloat16), torch.zeros(64, 64, dtype=torch.bfloat16))
    return Measure()


def run_case(case: Case, weights: Path) -> None:
    """The child process: its figures as the last line."""
    measure = begin()
    if case.who in OURS:
        train_steps(settings_of(case), case.dtype, weights, measure)
    else:
        run_trl(case, weights, measure)
    print(json.dumps(measure.result()))


def run(options: argparse.Namespace) -> None:
    """The parent: weights once a shape, then every case in its own process."""
    import torch

    gpu = torch.cuda.is_available()
    wanted = [c for c in cases(gpu) if not options.only or re.search(options.only, c.label)]
    found: dict[str, dict[str, Any]] = {}
    for shape in dict.fromkeys(c.shape for c in wanted):
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            weights_in_a_process(shape, folder)
            for case in (c for c in wanted if c.shape == shape):
                found[case.label] = asdict(case) | run_child(case, folder, options.limit)
                if case.who in OURS:
                    found[case.label]["expected"] = expected(case, gpu)
                print(f"{case.label:92} {_text(found[case.label])}", flush=True)
                out = options.out or Path(__file__).parent / "results" / f"memory_{'gpu' if gpu else 'cpu'}.json"
                write_results(out, "memory", _rows(found), PACKAGES, accelerator(), cases=found)


def again(path: Path) -> None:
    """Replace the expectations in a file of results."""
    result = json.loads(path.read_text())
    names = {f.name for f in fields(Case)}
    for label, found in result["cases"].items():
        case = Case(**{k: v for k, v in found.items() if k in names})
        if case.who in OURS and "failed" not in found:
            found["expected"] = expected(case, "CPU" not in result["device"])
        print(f"{label:92} {_text(found)}")
    result["rows"] = _rows(result["cases"])
    write_whole(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def run_child(case: Case, folder: str, limit: int) -> dict[str, Any]:
    """A case in a process of its own, on the weights in `folder`: its figures, or `failed` with the reason."""
    return measured(["benchmarks.memory", "--case", json.dumps(asdict(case)), "--weights", folder], limit)


def weights_in_a_process(shape: str, folder: str) -> None:
    """`make_weights`, which leaves none of its memory here."""
    code = "import sys; from pathlib import Path; from benchmarks.memory import make_weights; " \
           "make_weights(sys.argv[1], Path(sys.argv[2]))"  # fmt: skip
    subprocess.run([sys.executable, "-c", code, shape, folder], check=True, capture_output=True)


_spare: list[subprocess.Popen[str]] = []
_WAITING = """
import json, runpy, sys
import torch, transformers, peft
sys.argv = json.loads(sys.stdin.readline() or "[]")
if sys.argv:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def measured(words: Sequence[str], limit: int) -> dict[str, Any]:
    """The JSON that `python -m WORDS` prints last, or `failed` with the reason. Blocks of a MiB and more are given back as
    soon as they are freed. The next process imports its libraries meanwhile."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 20)}
    while len(_spare) < 2:
        _spare.append(subprocess.Popen(
            [sys.executable, "-c", _WAITING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment,
        ))  # fmt: skip
    process = _spare.pop(0)
    try:
        out, err = process.communicate(json.dumps(list(words)) + "\n", timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"failed": f"longer than {limit} s"}
    if process.returncode != 0:
        return {"failed": _reason(err)}
    return json.loads(out.strip().splitlines()[-1])


def _reason(err: str) -> str:
    """The last line that names an error, before what Python ignored while it ended; libraries may talk on behind it."""
    lines = err.partition("Exception ignored in")[0].strip().splitlines() or ["?"]
    return next((line for line in reversed(lines) if re.match(r"[\w.]+(Error|Exception)(:|$)", line)), lines[-1])[:400]


@atexit.register
def _send_away() -> None:
    for process in _spare:
        process.communicate("")


def _text(result: dict[str, Any]) -> str:
    if "failed" in result:
        return f"failed: {result['failed']}"
    measured = f"measured {result['peak_bytes'] / 1e9:.2f} GB"
    if "step_seconds" in result:  # files of earlier versions have none
        measured += f", {result['step_seconds']:.2f} s a step"
    if "expected" not in result:
        return measured
    total = sum(result["expected"].values())
    return f"{measured}, expected {total / 1e9:.2f} GB ({total / result['peak_bytes'] - 1:+.0%})"


def _rows(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for label, mine in found.items():
        if mine["who"] not in OURS or "failed" in mine:
            continue
        total = sum(mine["expected"].values())
        rows.append(_row(f"{label}, peak expected beside measured", total, mine["peak_bytes"], "measured"))
        for who, name in (("trl", "TRL, padded"), ("trl_liger", "TRL, padded, with Liger kernels")):
            theirs = found.get(label.removesuffix(mine["who"]) + who, {"failed": "not run"})
            if "failed" in theirs:
                continue
            rows.append(_row(f"{label}, peak", mine["peak_bytes"], theirs["peak_bytes"], name))
            each = 2 * (mine["tokens"] // (PROMPT + COMPLETION))
            rates = [each / case["step_seconds"] for case in (mine, theirs)]
            unit = "pairs/s" if mine["method"] == "dpo" else "sequences/s"
            rows.append(_row(f"{label}, speed", rates[0], rates[1], name, unit))
    return rows


def _row(what: str, ours: float, peer: float, name: str, unit: str = "bytes") -> dict[str, Any]:
    return {"what": what, "ours": ours, "peer": peer, "peer_name": name, "ratio": ours / peer, "unit": unit, "note": ""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="a regular expression over the labels of cases")
    parser.add_argument("--limit", type=int, default=600, help="seconds a case may take")
    parser.add_argument("--scratch", type=Path, help="folder for random weights (15 GB for a 7B shape)")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--again", type=Path)
    parser.add_argument("--case")
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    if options.case:
        run_case(Case(**json.loads(options.case)), options.weights)
    elif options.again:
        again(options.again)
    else:
        run(options)


if __name__ == "__main__":
    main()
