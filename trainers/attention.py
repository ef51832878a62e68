"""Attention for packed rows (see `trainers.packing`): place q attends to place k when k <= q < end[k].

`flex`: torch's flex_attention with a block mask, which skips the blocks that no token attends to; compiled, for
GPUs. `sdpa`: scaled_dot_product_attention with a dense boolean mask; everywhere. `flash`: flash-attn's variable
length kernels, for rows in which nothing is shared (it knows no trees).
"""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from configs.errors import ConfigError
from trainers.packing import Packed

FLEX = "ratchet_flex"
IMPLEMENTATION = {"sdpa": "sdpa", "flex": FLEX, "flash": "flash_attention_2"}
BLOCK = 128


def resolve_attention(kind: str, prefix_sharing: bool, device: torch.device) -> str:
    """`auto`: flex on a GPU, sdpa elsewhere. Raises ConfigError for what cannot work."""
    if kind == "auto":
        return "flex" if device.type == "cuda" else "sdpa"
    if kind == "flash":
        if prefix_sharing:
            raise ConfigError(
                "training.attention is `flash`, which cannot share prefixes: set training.prefix_sharing=false, "
                "or training.attention=flex"
            )
        if device.type != "cuda" or importlib.util.find_spec("flash_attn") is None:
            raise ConfigError(
                "training.attention is `flash`, which needs a GPU and flash-attn (pip install '.[flash]'): "
                "or set training.attention=auto"
            )
    return kind


def attention_inputs(packed: Packed, kind: str) -> dict[str, Any]:
    """Keyword arguments of the model's forward that make it see `packed` as the trie that it is."""
    if kind == "flash":  # the kernel finds the sequences by the position ids that start again
        return {"position_ids": packed.depth, "attention_mask": None}
    mask = _block_mask(packed.end) if kind == "flex" else _dense_mask(packed.end)
    return {"position_ids": packed.depth, "attention_mask": mask}


def _dense_mask(end: torch.Tensor) -> torch.Tensor:
    """[rows, 1, width, width], true where q (third) may see k (fourth)."""
    place = torch.arange(end.shape[1], device=end.device)
    return ((place[None, None, :] <= place[None, :, None]) & (place[None, :, None] < end[:, None, :]))[:, None]


def _block_mask(end: torch.Tensor) -> BlockMask:
    """The mask by blocks, without the dense one: block i of the queries sees something of an earlier block j if the last
    `end` in j is behind i's first place, and all of it if the first `end` in j is not before i's last place."""

    def visible(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (k <= q) & (q < end[b, k])

    rows, width = end.shape
    first, last = (e[:, None, None, :] for e in end.view(rows, width // BLOCK, BLOCK).aminmax(dim=-1))  # [rows, 1, 1, j]
    begin = torch.arange(0, width, BLOCK, device=end.device)
    earlier, same = begin[:, None] > begin, begin[:, None] == begin  # [i, j]
    full = earlier & (first >= begin[:, None] + BLOCK)
    partial = (earlier & (last > begin[:, None]) & ~full) | same
    return BlockMask.from_kv_blocks(
        *_ordered(partial), *_ordered(full), BLOCK_SIZE=BLOCK, mask_mod=visible, seq_lengths=(width, width)
    )


def _ordered(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts [rows, 1, i] and numbers [rows, 1, i, j] of the blocks that are true, these first."""
    numbers = blocks.to(torch.int32).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32), numbers.to(torch.int32)


@functools.cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention, dynamic=True)


def _flex(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: BlockMask | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function for transformers: [rows, heads, width, size] in, [rows, width, heads, size] out."""
    if dropout > 0.0:
        raise ConfigError("training.attention is `flex`, which knows no attention dropout: set training.attention=sdpa")
    if attention_mask is None:  # the two tokens of `head.check_head`: not worth a compilation
        out = scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
        )
        return out.transpose(1, 2).contiguous(), None
    # under autocast, rotary embeddings leave float32 queries and keys beside bfloat16 values
    query, key = query.to(value.dtype), key.to(value.dtype)
    attend = flex_attention if torch.compiler.is_compiling() else _compiled_flex()  # a compiled layer compiles it too
    out = attend(
        query, key, value, block_mask=attention_mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(FLEX, _flex)
