"""Sampling with plain transformers, for machines without vLLM.

Faster than `model.generate` on a CPU for this work: a prompt is computed once for all of its samples, a
prefix shared by all prompts once for the batch, rows that have finished leave the batch, and the KV cache
grows in place. Each row draws from its own generator, so that a row's tokens do not depend on what else is
in the batch; which rows share a batch is a function of the request list alone, because matrix products of
different shapes round differently.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.cache_utils import Cache, DynamicLayer

from configs.errors import InputError
from data_gen.engine import Completion, EngineConfig, Request

_GROW = 64  # positions by which a cache buffer grows
_COMPACT_BELOW = 0.75  # rows leave the batch when fewer than this share are still running


class _GrowingLayer(DynamicLayer):
    """A KV cache layer with spare room: one position is written in place instead of copying the whole cache.

    `keys` and `values`, which the base class reads, are views [rows, heads, used positions, head size].
    """

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._buffers = (key_states[:, :, :0], value_states[:, :, :0])
        assert self.keys is not None and self.values is not None
        used = self.get_seq_length()
        total = used + key_states.shape[2]
        if total > self._buffers[0].shape[2]:
            self._buffers = (self._grown(self.keys, key_states, total), self._grown(self.values, value_states, total))
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, used:total] = new
        self.keys, self.values = (b[:, :, :total] for b in self._buffers)
        return self.keys, self.values

    @staticmethod
    def _grown(old: torch.Tensor, like: torch.Tensor, total: int) -> torch.Tensor:
        rows, heads, _, size = like.shape
        buffer = like.new_empty(rows, heads, total + _GROW, size)
        if old.numel():
            buffer[:, :, : old.shape[2]] = old
        return buffer

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep (or repeat) the given rows; the spare room goes with them."""
        assert self.keys is not None and self.values is not None
        used = self.get_seq_length()
        rows = self.keys[indices]
        values = self.values[indices]
        self._buffers = (self._grown(rows, rows, used), self._grown(values, values, used))
        self.keys, self.values = (b[:, :, :used] for b in self._buffers)


class TransformersEngine:
    """`Engine` on a transformers causal language model, on a GPU where there is one.

    `prefill` counts the prompt tokens of all sequences so far, and those of them that were not computed again.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            config.model, dtype=getattr(torch, config.dtype), use_safetensors=True, trust_remote_code=False
        )
        self._model.to(self._device).eval()
        # For a sliced hidden state, PyTorch would copy the whole vocabulary matrix once a row.
        self._model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0].contiguous(),))
        self._base = self._model
        self._tokenizer = AutoTokenizer.from_pretrained(config.model, trust_remote_code=False)
        self._end_ids = end_token_ids(self._model, self._tokenizer)
        self._adapter: Path | None = None
        self._adapter_shape: bytes | None = None
        self.prefill = (0, 0)

    def set_adapter(self, path: Path | None) -> None:
        if path == self._adapter:
            return
        from peft import PeftModel

        shape = None if path is None else (path / "adapter_config.json").read_bytes()
        if path is not None and shape == self._adapter_shape:
            self._refill(path)
        else:
            if isinstance(self._model, PeftModel):
                self._base = self._model.unload()
                self._model = self._base
            if path is not None:
                self._model = PeftModel.from_pretrained(
                    self._base, str(path), use_safetensors=True, autocast_adapter_dtype=False  # as the trainer runs it
                ).eval()
        self._adapter, self._adapter_shape = path, shape

    def _refill(self, path: Path) -> None:
        """Other numbers for the adapter that is there: a small part of the time that making its modules anew takes."""
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        found = set_peft_model_state_dict(self._model, load_file(path / "adapter_model.safetensors"))
        missing = [name for name in found.missing_keys if ".lora_" in name]
        if missing or found.unexpected_keys:
            raise InputError(f"{path}: not the adapter that its config describes: {(missing + found.unexpected_keys)[:3]}")

    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        self.set_adapter(None)
        with torch.no_grad():
            self._base.load_state_dict(weights)

    def rest(self) -> None:
        if self._device.type == "cuda":
            self._model.to("cpu")
            torch.cuda.empty_cache()

    def close(self) -> None:
        del self._model, self._base

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], done: Collection[str] = ()) -> Iterator[list[Completion]]:
        self._model.to(self._device)
        for batch in batches(requests, self._config.batch_size):
            if all(r.id in done for r in batch):
                continue
            yield self._decode(batch)

    def _prefill(self, batch: Sequence[Request]) -> tuple[torch.Tensor, Cache, torch.Tensor]:
        """Last logits [requests, vocabulary], cache and attention mask of left-padded prompts.

        The longest prefix common to all prompts is computed for one row and repeated.
        """
        prompts = [r.prompt_ids for r in batch]
        shared = _common_prefix(prompts) if len(prompts) > 1 else 0
        cache = Cache(layer_class_to_replicate=_GrowingLayer)
        if shared:
            ids = torch.tensor([prompts[0][:shared]], device=self._device)
            self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.batch_select_indices(torch.zeros(len(batch), dtype=torch.long, device=self._device))
        rest = [p[shared:] for p in prompts]
        width = max(len(p) for p in rest)
        pad = self._end_ids[0]
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in rest], device=self._device)
        mask = torch.ones(len(batch), shared + width, dtype=torch.long, device=self._device)
        for row, p in enumerate(rest):
            mask[row, shared : shared + width - len(p)] = 0
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
        out = self._model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache,
            use_cache=True, logits_to_keep=1,
        )
        return out.logits[:, -1], cache, mask

    def _decode(self, batch: Sequence[Request]) -> list[Completion]:
        """All completions of a batch of requests, in request order."""
        logits, cache, mask = self._prefill(batch)
        asked = sum(len(r.prompt_ids) * len(r.seeds) for r in batch)
        shared = _common_prefix([r.prompt_ids for r in batch]) if len(batch) > 1 else 0
        computed = sum(len(r.prompt_ids) for r in batch) - shared * (len(batch) - 1)
        self.prefill = (self.prefill[0] + asked, self.prefill[1] + asked - computed)
        owners = [i for i, r in enumerate(batch) for _ in r.seeds]
        rows = [_Row(batch[i], seed, k) for i, r in enumerate(batch) for k, seed in enumerate(r.seeds)]
        index = torch.tensor(owners, device=self._device)
        if len(owners) != len(batch):
            cache.batch_select_indices(index)
        logits, mask = logits[index], mask[index]
        alive = list(range(len(rows)))
        positions = mask.sum(1, keepdim=True)
        while True:
            tokens, logprobs = _draw(logits, [rows[i] for i in alive])
            for i, token, logprob in zip(alive, tokens.tolist(), logprobs.tolist(), strict=True):
                self._accept(rows[i], token, logprob)
            keep = [k for k, i in enumerate(alive) if rows[i].finish_reason is None]
            if not keep:
                break
            if len(keep) < _COMPACT_BELOW * len(alive):
                index = torch.tensor(keep, device=self._device)
                cache.batch_select_indices(index)
                mask, positions, tokens = mask[index], positions[index], tokens[index]
                alive = [alive[k] for k in keep]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            out = self._model(
                input_ids=tokens[:, None], attention_mask=mask, position_ids=positions, past_key_values=cache,
                use_cache=True,
            )
            logits, positions = out.logits[:, -1], positions + 1
        return [self._completion(row) for row in rows]

    def _accept(self, row: _Row, token: int, logprob: float) -> None:
        """Append a drawn token to a running row and decide whether the row has ended."""
        if row.finish_reason is not None:
            return
        row.token_ids.append(token)
        row.logprobs.append(logprob)
        if token in self._end_ids or (self._config.stop and self._stop_at(row) is not None):
            row.finish_reason = "stop"
        elif len(row.token_ids) == row.request.max_tokens:
            row.finish_reason = "length"

    def _stop_at(self, row: _Row) -> int | None:
        """Where a stop string begins in the row's text, if one has appeared."""
        text = self._tokenizer.decode(row.token_ids, skip_special_tokens=True)
        found = [at for s in self._config.stop if (at := text.find(s)) >= 0]
        return min(found) if found else None

    def _completion(self, row: _Row) -> Completion:
        text = self._tokenizer.decode(row.token_ids, skip_special_tokens=True)
        return Completion(
            request=row.request.id, index=row.index, seed=row.seed, token_ids=row.token_ids,
            logprobs=row.logprobs, text=text[: self._stop_at(row)] if self._config.stop else text,
            finish_reason=row.finish_reason or "length",
        )


class _Row:
    """A sequence being decoded. `uniforms` are its random numbers, one for each position, drawn at once."""

    def __init__(self, request: Request, seed: int, index: int) -> None:
        self.request, self.seed, self.index = request, seed, index
        generator = torch.Generator().manual_seed(seed)
        self.uniforms: list[float] = torch.rand(request.max_tokens, generator=generator, dtype=torch.float64).tolist()
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.finish_reason: str | None = None


def _draw(logits: torch.Tensor, rows: Sequence[_Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [rows] and their untempered log-probabilities [rows] from logits [rows, vocabulary].

    Sampling inverts the cumulative distribution at the row's next uniform number. With top_p, tokens are
    ordered by probability and the smallest set that reaches top_p is kept.
    """
    logits = logits.float()
    normaliser = torch.logsumexp(logits, dim=-1)
    request = rows[0].request
    if request.temperature == 0.0:
        tokens = logits.argmax(-1)
    else:
        step = [min(len(r.token_ids), r.request.max_tokens - 1) for r in rows]
        uniform = torch.tensor(
            [r.uniforms[s] for r, s in zip(rows, step, strict=True)], dtype=torch.float32, device=logits.device
        )[:, None]
        scaled = logits if request.temperature == 1.0 else logits / request.temperature
        probabilities = torch.softmax(scaled, dim=-1)
        if request.min_p > 0.0:
            least = request.min_p * probabilities.amax(-1, keepdim=True)
            probabilities = probabilities.masked_fill(probabilities < least, 0.0)
        if request.top_p < 1.0:
            ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
            before = ordered.cumsum(-1) - ordered
            cumulative = ordered.masked_fill(before >= request.top_p, 0.0).cumsum(-1)
        else:
            order, cumulative = None, probabilities.cumsum(-1)
        place = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        place = place.clamp(max=logits.shape[-1] - 1)
        tokens = (place if order is None else order.gather(1, place))[:, 0]
    return tokens, logits.gather(1, tokens[:, None])[:, 0] - normaliser


def batches(requests: Sequence[Request], batch_size: int) -> list[list[Request]]:
    """Requests grouped for joint decoding: alike in settings, similar in prompt length, at most `batch_size`
    sequences each (or one request, if it alone asks for more). Deterministic in the list."""
    order = sorted(
        range(len(requests)),
        key=lambda i: (
            requests[i].temperature, requests[i].top_p, requests[i].min_p, requests[i].max_tokens,
            len(requests[i].prompt_ids), i,
        ),
    )
    groups: list[list[Request]] = []
    for i in order:
        request = requests[i]
        last = groups[-1] if groups else None
        alike = last is not None and _law(last[0]) == _law(request)
        if last is None or not alike or sum(len(r.seeds) for r in last) + len(request.seeds) > batch_size:
            groups.append([request])
        else:
            last.append(request)
    return groups


def _law(request: Request) -> tuple[float, float, float]:
    return request.temperature, request.top_p, request.min_p


def end_token_ids(model: torch.nn.Module, tokenizer: object) -> list[int]:
    """The ids that end a completion: those of the generation config and the tokenizer's own."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    ids = [*ids, getattr(tokenizer, "eos_token_id", None)]
    return list(dict.fromkeys(i for i in ids if i is not None))


def _common_prefix(prompts: Sequence[list[int]]) -> int:
    """Length of the longest common prefix, leaving at least one token of every prompt over."""
    first, last = min(prompts), max(prompts)
    limit = min(len(p) for p in prompts) - 1
    length = 0
    while length < limit and first[length] == last[length]:
        length += 1
    return length
