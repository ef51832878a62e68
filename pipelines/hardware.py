"""What this machine is: cores, memory, accelerator. Nothing here imports torch unless it has to."""

from __future__ import annotations

import functools
import os


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@functools.cache
def gpu() -> tuple[str, int] | None:
    """Name and memory (bytes) of the first CUDA device, or None."""
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return properties.name, properties.total_memory


def resolve_dtype(dtype: str) -> str:
    """`auto`: bfloat16 on a GPU or on a CPU with matrix instructions for it (AMX), else float32."""
    if dtype != "auto":
        return dtype
    if gpu() is not None:
        return "bfloat16"
    import torch

    return "bfloat16" if torch.cpu._is_amx_tile_supported() else "float32"
