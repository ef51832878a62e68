"""The one forward pass that all trainers share: log-probabilities of the targets of packed sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from configs.errors import InputError
from trainers.attention import BLOCK, attention_inputs
from trainers.head import Scale, TokenValues, check_head, token_logprobs, token_values
from trainers.packing import Packed, TokenSequence, pack

ROW_TOKENS = 512  # width of a row where attention costs its square; wider rows only for longer groups


class Policy:
    """A causal language model (transformers, or PEFT around it) as a function of packed sequences.

    `attention` is "sdpa", "flex" or "flash"; with `share`, equal prefixes are computed once; `autocast` runs
    float32 weights in bfloat16.
    """

    def __init__(self, model: Any, attention: str, share: bool, autocast: bool = False) -> None:
        self.model = model
        self.attention, self.share, self.autocast = attention, share, autocast
        causal = model.get_base_model() if hasattr(model, "peft_config") else model
        self._backbone, self._head = causal.base_model, causal.get_output_embeddings()
        if not hasattr(self._head, "weight"):
            raise InputError(f"models of type {causal.config.model_type} have no output projection to train with")
        if hasattr(self._head, "lora_A"):
            raise InputError("training.lora.targets names the output projection, which cannot have an adapter here")
        self._scale = Scale(causal.config)
        check_head(causal, self._scale)
        self._window = _sliding_window(causal.config)

    @property
    def device(self) -> torch.device:
        return self._head.weight.device

    def pack(self, groups: Sequence[Sequence[TokenSequence]]) -> Packed:
        """Sequences laid out for `logprobs`; those of one group may share a prefix."""
        longest = max(len(s.ids) for g in groups for s in g)
        if self._window is not None and longest > self._window:
            raise InputError(
                f"a sequence of {longest} tokens exceeds the model's attention window of {self._window}, "
                "which packed rows do not know: lower pairs.max_length or sampling.max_tokens"
            )
        one_row = self.attention != "sdpa"
        packed = pack(groups, None if one_row else ROW_TOKENS, self.share, BLOCK if self.attention == "flex" else 1)
        return packed.to(self.device)

    def logprobs(self, packed: Packed) -> torch.Tensor:
        """Natural log-probabilities [targets], float32, in the order of `packed.places`."""
        with self._autocast():
            return token_logprobs(self._hidden(packed), self._head, packed.labels, self._scale)[packed.places]

    def values(self, packed: Packed, temperature: float = 1.0, entropy_gradient: bool = False) -> TokenValues:
        """Log-probabilities at `temperature` and at 1, and entropies, each [targets] as in `logprobs`."""
        with self._autocast():
            hidden = self._hidden(packed)
            unique = token_values(hidden, self._head, packed.labels, self._scale, temperature, entropy_gradient)
        return TokenValues(*(u[packed.places] for u in unique))

    def _autocast(self) -> torch.autocast:
        """Without torch's cache of rounded weights: each is used once a pass, and with checkpointing the cache would hold
        them all until the pass ends."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast, cache_enabled=False)

    def _hidden(self, packed: Packed) -> torch.Tensor:
        """Hidden states [distinct, size] of the places that predict a target."""
        return self._states(packed).index_select(0, packed.wanted)

    def hidden(self, packed: Packed) -> torch.Tensor:
        """Hidden states [marks, size] in front of the output projection, in the order of `packed.marks`."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return self._states(packed)[packed.marks]

    def _states(self, packed: Packed) -> torch.Tensor:
        """Hidden states of all places [rows * width, size]."""
        inputs = attention_inputs(packed, self.attention)
        return self._backbone(input_ids=packed.ids, use_cache=False, **inputs).last_hidden_state.flatten(0, 1)

    @property
    def size(self) -> int:
        """Width of a hidden state."""
        return self._head.weight.shape[1]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Without dropout and without gradients.

        4-bit projections stay in training mode: bitsandbytes on a CPU repacks them at their first use in
        evaluation mode, and gradients through them are different ever after.
        """
        self.model.eval()
        for module in self.model.modules():
            if type(module).__name__ == "Linear4bit" and not hasattr(module, "lora_A"):
                module.training = True
        with torch.no_grad():
            yield
        self.model.train()

    def sums(self, packed: Packed, logprobs: torch.Tensor) -> torch.Tensor:
        """Sums of the targets' log-probabilities [sequences]."""
        return logprobs.new_zeros(packed.sequences).index_add(0, packed.owner, logprobs)


def _sliding_window(config: Any) -> int | None:
    """The attention window of a model that has one, else None."""
    config = config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and "sliding_attention" not in kinds:
        unknown = set(kinds) - {"full_attention"}
        if unknown:
            raise InputError(f"packed training does not know layers of type {sorted(unknown)} ({config.model_type})")
        return None
    if getattr(config, "use_sliding_window", True) is False:
        return None
    return getattr(config, "sliding_window", None)
