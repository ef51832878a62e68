"""Sampling from a small model with vLLM: tokens per second of our engine, alone and several on one GPU, beside `LLM.generate`.

    python -m benchmarks.generation                                            a GPU: 1,000 GSM8K problems x 8 samples
    python -m benchmarks.generation --source procedural --problems 8 --n 2 --workers 1 --repeats 1       a check, on a CPU

SmolLM2-135M at temperature 0.8, up to 256 tokens. All engines are started first, side by side, each with its part of the GPU,
and stand still while another is measured; a measurement with k workers gives each of k engines 1/k of the problems, and lasts
until the last has finished. `LLM.generate` runs as vLLM's documentation shows it, text only, and with the log-probability of
each token, which our rows have; once with as many sequences at a time as one of our engines, once with as many as all of them
together ("wide"). Start-up is not part of it; it is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import accelerator, write_results

SYSTEM = "Solve the problem step by step. End with the final answer on its own line as #### number."
TEMPERATURE, MAX_TOKENS = 0.8, 256
PACKAGES = ("torch", "transformers", "vllm")


class Child:
    """A process with an engine. It answers a line of JSON with a line of JSON."""

    def __init__(self, kind: str, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-m", "benchmarks.generation", *arguments, "--child", kind]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.kind = kind

    def ask(self, question: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next answer; other lines are libraries' talk."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"the process of `{self.kind}` ended with {self._process.wait()}: see what it printed above")

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # with the processes that vLLM has started
        self._process.wait()


def child(kind: str, a: argparse.Namespace) -> None:
    """Serve one engine until the input ends."""
    began = time.monotonic()
    problems = _problems(a)
    run = _ours(a) if kind == "ours" else _plain(a, a.batch * (max(a.workers) if kind == "wide" else 1))
    for logprobs in (False, True):  # what is compiled at the first call
        run(problems[: min(8, len(problems))], logprobs)
    print(json.dumps({"start": time.monotonic() - began}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.monotonic()
        samples, tokens = run(problems[asked["part"] :: asked["of"]], asked["logprobs"])
        print(json.dumps({"samples": samples, "tokens": tokens, "seconds": time.monotonic() - began}), flush=True)


def _problems(a: argparse.Namespace) -> list[tuple[str, list[int]]]:
    """Ids and prompt tokens."""
    from configs.schema import ModelSection, PromptSection
    from data_gen.problems import load_problems
    from data_gen.procedural import generate
    from data_gen.prompts import PromptEncoder
    from pipelines.models import resolve_model

    gsm8k = a.source == "gsm8k"
    problems = load_problems("gsm8k", "train", limit=a.problems) if gsm8k else generate(a.problems, "train", 3)
    encoder = PromptEncoder(resolve_model(ModelSection()).path, PromptSection(system=SYSTEM))
    return [(p.id, encoder.encode(p.question)) for p in problems]


def _plain(a: argparse.Namespace, batch: int) -> Any:
    import torch

    os.environ["VLLM_USE_FLASHINFER_SAMPLER"] = "0"  # as ours: it needs a compiler at run time
    from vllm import LLM, SamplingParams

    from configs.schema import ModelSection
    from pipelines.models import resolve_model

    settings: dict[str, Any] = {}
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB; on a CPU the default takes half of the memory
    if torch.cuda.is_available():
        cache = a.cache * batch / a.batch
        settings = {"kv_cache_memory_bytes": int(cache * 2**30), "gpu_memory_utilization": (cache + 3.6) / a.memory}
    llm = LLM(
        str(resolve_model(ModelSection()).path), dtype="bfloat16", max_model_len=1024, max_num_seqs=batch,
        enable_prefix_caching=True, **settings,
    )

    def run(problems: Sequence[tuple[str, list[int]]], logprobs: bool) -> tuple[int, int]:
        parameters = SamplingParams(temperature=TEMPERATURE, max_tokens=MAX_TOKENS, n=a.n, logprobs=0 if logprobs else None)
        outputs = llm.generate([{"prompt_token_ids": ids} for _, ids in problems], parameters, use_tqdm=False)
        llm.reset_prefix_cache()
        completions = [c for o in outputs for c in o.outputs]
        return len(completions), sum(len(c.token_ids) for c in completions)

    return run


def _ours(a: argparse.Namespace) -> Any:
    from configs.keys import derive_seed
    from configs.schema import ModelSection
    from data_gen.engine import EngineConfig, Request, open_engine
    from pipelines.models import resolve_model

    engine: Any = open_engine(EngineConfig(
        kind="vllm", model=str(resolve_model(ModelSection()).path), dtype="bfloat16", batch_size=a.batch, max_model_len=1024,
        gpu_memory=(a.cache + 3.6) / a.memory, gpu_shared=True,
    ))  # fmt: skip

    def run(problems: Sequence[tuple[str, list[int]]], _logprobs: bool) -> tuple[int, int]:
        requests = [
            Request(
                id=name, prompt_ids=ids, seeds=[derive_seed(name, i) for i in range(a.n)], temperature=TEMPERATURE,
                top_p=1.0, max_tokens=MAX_TOKENS,
            )
            for name, ids in problems
        ]  # fmt: skip
        completions = [c for group in engine.generate(requests) for c in group]
        engine._llm.reset_prefix_cache()
        return len(completions), sum(len(c.token_ids) for c in completions)

    return run


def measure(children: Sequence[Child], repeats: int, logprobs: bool = True) -> dict[str, float]:
    """Median tokens per second of the work shared by `children`. Ours always has log-probabilities."""
    rates, tokens, samples = [], 0, 0
    for _ in range(repeats):
        began = time.monotonic()
        for i, c in enumerate(children):
            c.ask({"part": i, "of": len(children), "logprobs": logprobs})
        answers = [c.answer() for c in children]
        tokens, samples = sum(x["tokens"] for x in answers), sum(x["samples"] for x in answers)
        rates.append(tokens / (time.monotonic() - began))
    return {"rate": statistics.median(rates), "lowest": min(rates), "highest": max(rates), "tokens": tokens, "samples": samples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="gsm8k", choices=["gsm8k", "procedural"])
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--batch", type=int, default=512, help="sequences at a time in one engine")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--cache", type=float, default=6.0, help="GiB of KV cache of each engine")
    parser.add_argument("--memory", type=float, default=79.0, help="GiB of the GPU")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "generation.json")
    parser.add_argument("--child", choices=["plain", "wide", "ours"], help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.child:
        child(a.child, a)
        return
    told = ("source", "problems", "n", "batch", "cache", "memory")
    arguments = [word for name in told for word in (f"--{name}", str(getattr(a, name)))]
    arguments += ["--workers", *map(str, a.workers)]
    peers = [Child("plain", arguments), *([Child("wide", arguments)] if max(a.workers) > 1 else [])]
    ours = [Child("ours", arguments) for _ in range(max(a.workers))]
    try:
        compare(a, peers, ours)
    finally:
        for c in (*peers, *ours):
            c.close()


def compare(a: argparse.Namespace, peers: Sequence[Child], ours: Sequence[Child]) -> None:
    """Measure all of them in turn, and write the table."""
    starts: dict[str, list[float]] = {}
    for c in (*peers, *ours):
        starts.setdefault(c.kind, []).append(c.answer()["start"])
    print(f"seconds to start, side by side: {starts}", flush=True)
    found = {}
    for c in peers:
        name = f"LLM.generate, {a.batch if c.kind == 'plain' else a.batch * max(a.workers)} sequences at a time"
        found[f"{name}, text only"] = measure([c], a.repeats, logprobs=False)
        found[f"{name}, with log-probabilities"] = measure([c], a.repeats)
    for name, peer in found.items():
        print(f"{name}: {peer['rate']:,.0f} tokens/s", flush=True)
    rows: list[dict[str, Any]] = []
    for k in a.workers:
        mine = measure(ours[:k], a.repeats)
        for text, peer in found.items():
            rows.append({
                "what": f"sampling with {k} engine{'s' if k > 1 else ''} on the device", "ours": mine["rate"],
                "peer": peer["rate"], "peer_name": text, "ratio": mine["rate"] / peer["rate"], "unit": "tokens/s",
                "note": f"{mine['samples']} samples of {mine['tokens'] / mine['samples']:.0f} tokens (peer "
                f"{peer['tokens'] / peer['samples']:.0f}); lowest and highest {mine['lowest']:.0f}-{mine['highest']:.0f}, "
                f"peer {peer['lowest']:.0f}-{peer['highest']:.0f}",
            })  # fmt: skip
            ratio = rows[-1]["ratio"]
            print(f"{rows[-1]['what']}: {mine['rate']:,.0f} against {peer['rate']:,.0f} ({ratio:.2f}) {text}", flush=True)
    mean, theirs = statistics.fmean(starts["ours"]), starts["plain"][0]
    rows.append({
        "what": "starting an engine, beside the others", "ours": mean, "peer": theirs,
        "peer_name": "LLM.generate, text only", "ratio": mean / theirs, "unit": "s",
        "note": f"mean of {len(ours)}; lowest and highest {min(starts['ours']):.1f}-{max(starts['ours']):.1f}",
    })  # fmt: skip
    write_results(a.out, "generation", rows, PACKAGES, accelerator())


if __name__ == "__main__":
    main()
