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

import gc
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from configs.errors import ConfigError
from data_gen.engine import Completion, EngineConfig, Request

_SEED_LIMIT = 2**63 - 1
_YIELD_SECONDS = 0.5
_WORKING_BYTES = 3 * 2**30  # CUDA's context, graphs, activations, logits


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
            settings["compilation_config"] = {"cudagraph_capture_sizes": graph_sizes(config.batch_size)}
            if config.gpu_shared:
                settings["kv_cache_memory_bytes"] = _cache_bytes(config)
        else:
            settings |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(4096, config.max_model_len)}
        if config.max_lora_rank:
            settings |= {"enable_lora": True, "max_lora_rank": _allowed_rank(config.max_lora_rank), "max_loras": 1}
        self._llm = LLM(
            config.model, dtype=config.dtype, max_model_len=config.max_model_len, max_num_seqs=config.batch_size,
            trust_remote_code=False, load_format="safetensors", enable_prefix_caching=True, seed=0,
            disable_log_stats=True, **settings,
        )
        self._tokenizer = self._llm.get_tokenizer()
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
        self._reload(weights_iterator=iter(weights.items()))

    def load(self, model: str) -> None:
        self._reload(weights_path=model)

    def _reload(self, **source: Any) -> None:
        self._wake()
        self._llm.collective_rpc("reload_weights", kwargs=source)
        if not self._gpu:
            self._llm.collective_rpc(_pack_head)
        self._adapter = None
        self._llm.reset_prefix_cache()

    def _wake(self) -> None:
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False

    def generate(self, requests: Sequence[Request], done: Collection[str] = ()) -> Iterator[list[Completion]]:
        """Requests are queued all at once. Those of which the last completion has finished are yielded together, at most
        twice a second: a caller may make each group last on a disk, and the engine stands still meanwhile."""
        self._wake()
        engine = self._llm.llm_engine
        waiting: dict[str, tuple[Request, dict[int, Completion]]] = {}
        ready: list[Completion] = []
        yielded = time.monotonic()
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
                    completions[int(index)] = self._completion(request, int(index), output.outputs[0])
                    if len(completions) == len(request.seeds):
                        del waiting[name]
                        ready += [completions[i] for i in range(len(request.seeds))]
                if ready and (not waiting or time.monotonic() - yielded >= _YIELD_SECONDS):
                    group, ready = ready, []
                    yield group
                    yielded = time.monotonic()
        finally:
            if waiting:  # the caller stopped early, or an error: leave nothing running in the engine
                engine.abort_request([f"{i}:{n}" for n, (r, c) in waiting.items() for i in range(len(r.seeds)) if i not in c])

    def _parameters(self, request: Request, seed: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            output_kind=RequestOutputKind.FINAL_ONLY,  # the default copies all tokens of each sequence at every step
            temperature=request.temperature, top_p=request.top_p, min_p=request.min_p, max_tokens=request.max_tokens,
            logprobs=0, flat_logprobs=True, seed=None if request.temperature == 0.0 else seed % _SEED_LIMIT,
            stop=self._config.stop or None, detokenize=bool(self._config.stop), skip_special_tokens=True,
        )

    def _completion(self, request: Request, index: int, output: Any) -> Completion:
        """From vLLM's output; its log-probabilities are of the untempered distribution (`logprobs_mode` raw).

        Without stop strings nothing needs the text before the end, and a token at a time costs a fast model much of its time.
        """
        ids = list(output.token_ids)
        logprobs = [float(output.logprobs.logprobs[i]) for i in output.logprobs.start_indices]  # the drawn token comes first
        text = output.text if self._config.stop else self._tokenizer.decode(ids, skip_special_tokens=True)
        return Completion(
            request=request.id, index=index, seed=request.seeds[index], token_ids=ids, logprobs=logprobs, text=text,
            finish_reason=output.finish_reason,
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
        if self._gpu:
            self._wake()
            self._llm.sleep(level=2)  # what lies in its pool is not given back otherwise
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        if self._gpu:
            gc.collect()
            torch.cuda.empty_cache()


def _pack_head(worker: Any) -> None:
    """On a CPU, vLLM multiplies with packed copies of the weights. When it reloads, it packs each layer that the folder has
    weights of; an output projection tied to the embedding is none of them, and would go on with the old ones (vLLM 0.32)."""
    head = worker.get_model().lm_head
    head.quant_method.process_weights_after_loading(head)


def graph_sizes(batch: int) -> list[int]:
    """Numbers of sequences for which vLLM captures CUDA graphs: 1, 2, 3, 4, 6, 8, 12 ... up to `batch`. A batch runs in the
    next larger graph. vLLM's own list goes on in steps of 8 and 16: 51 sizes for 512 sequences, here 18, each captured
    twice while the engine starts."""
    powers = [2**i for i in range(batch.bit_length())]
    return sorted({size for p in powers for size in (p, p + p // 2) if size <= batch} | {batch})


def _cache_bytes(config: EngineConfig) -> int:
    """Room for the KV cache where several engines share a GPU: vLLM's own measurement would take the others' for its own."""
    share = config.gpu_memory * torch.cuda.get_device_properties(0).total_memory
    weights = sum(f.stat().st_size for f in Path(config.model).glob("*.safetensors"))
    left = int(share - weights - _WORKING_BYTES)
    if left < 2**29:
        raise ConfigError(
            f"sampling.gpu_memory: each of the workers on a GPU has {share / 2**30:.1f} GiB, of which {left / 2**30:.1f} "
            "are left for its KV cache; lower executor.workers_per_gpu or raise sampling.gpu_memory"
        )
    return left


def _allowed_rank(rank: int) -> int:
    """vLLM takes certain maximal ranks only; the next one up."""
    return next((r for r in (8, 16, 32, 64, 128, 256, 320, 512) if r >= rank), rank)
