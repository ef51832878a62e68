"""The block mask of flex attention, made from subtree ends: against torch's own and against the dense mask."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from trainers.attention import BLOCK, _dense_mask, attention_inputs
from trainers.packing import Packed, TokenSequence, pack


def _packed(seed: int, rows: int) -> Packed:
    """Random tries of up to a few blocks, `rows` of them, padded to the widest."""
    rng = random.Random(seed)
    groups: list[list[TokenSequence]] = []
    for _ in range(rows):
        group: list[TokenSequence] = []
        for _ in range(rng.randint(1, 6)):
            base = rng.choice(group).ids if group and rng.random() < 0.7 else []
            keep = base[: rng.randint(0, len(base))]
            ids = keep + [rng.randrange(100) for _ in range(rng.choice([3, 60, 128, 300]))]
            group.append(TokenSequence(ids, 1))
        groups.append(group)
    return pack(groups, 1 if rows > 1 else None, share=rng.random() < 0.7, multiple=BLOCK)


@pytest.mark.parametrize("seed", range(12))
def test_the_block_mask_is_torchs_own(seed: int) -> None:
    packed = _packed(seed, 1 + seed % 3)
    rows, width = packed.ids.shape
    ours = attention_inputs(packed, "flex")["attention_mask"]
    dense = _dense_mask(packed.end)
    theirs = create_block_mask(lambda b, h, q, k: dense[b, 0, q, k], rows, None, width, width, device="cpu", BLOCK_SIZE=BLOCK)
    assert torch.equal(ours.to_dense(), theirs.to_dense())
    names = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices")
    names += tuple(n.replace("kv", "q") for n in names)
    for name in names:
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert ours.full_kv_num_blocks is not None
    assert ours.seq_lengths == theirs.seq_lengths


@pytest.mark.parametrize("seed", range(3))
def test_flex_attention_sees_what_the_dense_mask_shows(seed: int) -> None:
    packed = _packed(seed, 1 + seed)
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, packed.ids.shape[0], 2, packed.ids.shape[1], 16, generator=generator)
    mask = attention_inputs(packed, "flex")["attention_mask"]
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=_dense_mask(packed.end))
    torch.testing.assert_close(flex_attention(q, k, v, block_mask=mask), expected)
