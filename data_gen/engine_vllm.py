"""Sampling with vLLM, on a GPU or with its CPU build.

The engine runs in this process, so that it dies with its worker. An adapter is served unmerged as a
LoRARequest with a fresh id for each version: vLLM caches adapters and KV blocks by id, and a used id would
bring back old weights. Each sample is a request of its own with its own seed, as the contract asks; its
prompt is computed once all the same, by the prefix cache.

On a CPU, prompts are not split over steps (no chunked prefill): when a step ends inside a prompt, vLLM winds
the request's random generator back by an offset, which a CPU generator does not have ("CPU Generator does
not use offset", vLLM 0.32).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from data_gen.engine import Completion, EngineConfig, Request

_SEED_LIMIT = 2**63 - 1


class VllmEngine:
    """`Engine` on vLLM's offline interface.

    `prefill` counts the prompt tokens of all sequences so far, and those of them that came from the prefix cache.
    """

    def __init__(self, config: EngineConfig) -> None:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")  # needs a compiler at run time
        self._gpu = torch.cuda.is_available()
        if not self._gpu:
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB; the default takes half of the memory
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # binding would slow the trainer after us
        from vllm import LLM

        self._config = config
        settings: dict[str, Any] = {}
        if self._gpu:
            settings |= {"gpu_memory_utilization": config.gpu_memory, "enable_sleep_mode": True}
        else:
            settings |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(4096, config.max_model_len)}
        if config.max_lora_rank:
            settings |= {"enable_lora": True, "max_lora_rank": _allowed_rank(config.max_lora_rank), "max_loras": 1}
        self._llm = LLM(
            config.model, dtype=config.dtype, max_model_len=config.max_model_len, max_num_seqs=config.batch_size,
            trust_remote_code=False, load_format="safetensors", enable_prefix_caching=True, seed=0,
            disable_log_stats=True, **settings,
        )
        self._ids: dict[Path, int] = {}
        self._adapter: Path | None = None
        self._asleep = False
        self.prefill = (0, 0)

    def set_adapter(self, path: Path | None) -> None:
        if path == self._adapter:
            return
        if path is not None and path not in self._ids:
            self._ids[path] = len(self._ids) + 1
        self._adapter = path
        self._llm.reset_prefix_cache()

    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        self._wake()
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights.items())})
        self._llm.reset_prefix_cache()

    def _wake(self) -> None:
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False

    def generate(self, requests: Sequence[Request], done: Collection[str] = ()) -> Iterator[list[Completion]]:
        """Requests are queued all at once; each is yielded when its last completion has finished."""
        self._wake()
        engine = self._llm.llm_engine
        waiting: dict[str, tuple[Request, dict[int, Completion]]] = {}
        for request in requests:
            if request.id in done:
                continue
            waiting[request.id] = (request, {})
            for index, seed in enumerate(request.seeds):
                engine.add_request(
                    f"{index}:{request.id}", {"prompt_token_ids": request.prompt_ids}, self._parameters(request, seed),
                    lora_request=self._lora(),
                )
        try:
            while waiting:
                for output in engine.step():
                    if not output.finished:
                        continue
                    index, _, name = output.request_id.partition(":")
                    request, completions = waiting[name]
                    cached = output.num_cached_tokens or 0
                    self.prefill = (self.prefill[0] + len(request.prompt_ids), self.prefill[1] + cached)
                    completions[int(index)] = _completion(request, int(index), output.outputs[0])
                    if len(completions) == len(request.seeds):
                        del waiting[name]
                        yield [completions[i] for i in range(len(request.seeds))]
        finally:
            if waiting:  # the caller stopped early, or an error: leave nothing running in the engine
                engine.abort_request([f"{i}:{n}" for n, (r, c) in waiting.items() for i in range(len(r.seeds)) if i not in c])

    def _parameters(self, request: Request, seed: int) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=request.temperature, top_p=request.top_p, min_p=request.min_p, max_tokens=request.max_tokens,
            logprobs=0, seed=None if request.temperature == 0.0 else seed % _SEED_LIMIT, stop=self._config.stop or None,
            skip_special_tokens=True,
        )

    def _lora(self) -> Any:
        if self._adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        number = self._ids[self._adapter]
        return LoRARequest(f"version{number}", number, str(self._adapter))

    def rest(self) -> None:
        if self._gpu and not self._asleep:
            self._llm.sleep(level=1)
            self._asleep = True

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        if self._gpu:
            torch.cuda.empty_cache()


def _completion(request: Request, index: int, output: Any) -> Completion:
    """From vLLM's output; its log-probabilities are of the untempered distribution (`logprobs_mode` raw)."""
    ids = list(output.token_ids)
    logprobs = [float(entry[token].logprob) for token, entry in zip(ids, output.logprobs, strict=True)]
    return Completion(
        request=request.id, index=index, seed=request.seeds[index], token_ids=ids, logprobs=logprobs,
        text=output.text, finish_reason=output.finish_reason,
    )


def _allowed_rank(rank: int) -> int:
    """vLLM takes certain maximal ranks only; the next one up."""
    return next((r for r in (8, 16, 32, 64, 128, 256, 320, 512) if r >= rank), rank)
