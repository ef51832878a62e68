"""What this machine is: cores, memory, accelerator. Nothing here imports torch unless it has to."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any


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


def device_name() -> str:
    """The first GPU's name, or `CPU, N cores`."""
    found = gpu()
    return found[0] if found else f"CPU, {cores()} cores"


def resolve_dtype(dtype: str) -> str:
    """`auto`: bfloat16 on a GPU or on a CPU with matrix instructions for it (AMX), else float32."""
    if dtype != "auto":
        return dtype
    if gpu() is not None:
        return "bfloat16"
    import torch

    return "bfloat16" if torch.cpu._is_amx_tile_supported() else "float32"


class Peaks:
    """The most memory that this process (not its children) held between making this and `read`."""

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")  # begins the peak of resident memory anew
            self._resident = True
        except OSError:  # not Linux, or forbidden in this container
            self._resident = False
        self._cuda = _cuda_in_use()
        if self._cuda is not None:
            self._cuda.reset_peak_memory_stats()

    def read(self) -> dict[str, float]:
        """Bytes: `peak_resident_bytes` where the system tells, `peak_gpu_bytes` where this process uses a GPU."""
        found: dict[str, float] = {}
        if self._resident:
            status = Path("/proc/self/status").read_text()
            kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
            found["peak_resident_bytes"] = 1024.0 * int(kilobytes)
        cuda = _cuda_in_use()
        if cuda is not None:
            found["peak_gpu_bytes"] = float(cuda.max_memory_allocated())
        return found


def _cuda_in_use() -> Any:
    """`torch.cuda` if this process has begun to use it; torch is not imported for the question."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
