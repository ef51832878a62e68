"""What computations tile by tile have in common."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def tiles(count: int, size: int) -> Iterator[slice]:
    """`count` places in slices of `size`, the last one shorter where need be."""
    for begin in range(0, count, size):
        yield slice(begin, begin + size)


def product_dtype(x: torch.Tensor) -> torch.dtype:
    """The type in which products with `x` are computed: autocast's within it, else its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
