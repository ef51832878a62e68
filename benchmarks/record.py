"""How results are written down: what was measured, with which command, on what."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def write_results(
    path: Path, name: str, rows: Sequence[dict[str, Any]], packages: Sequence[str], device: str, **more: Any
) -> None:
    """Write `rows` (what, ours, peer, peer_name, ratio, unit, note) with the command, versions, device, commit, date."""
    result = {
        "name": name,
        "command": " ".join(["python", "-m", f"benchmarks.{name}", *map(_shown, sys.argv[1:])]),
        "device": device,
        "versions": {"python": platform.python_version(), **{p: installed(p) for p in packages}},
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": list(rows),
        **more,
    }
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _shown(argument: str) -> str:
    """An argument of the command; of an absolute path the name alone, for it means nothing elsewhere."""
    return Path(argument).name if argument.startswith("/") else argument


def cpu() -> str:
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def accelerator() -> str:
    """The GPU's name, or the CPU's."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else cpu()


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def commit() -> str:
    """Of this checkout; `RATCHET_COMMIT` where the tree was copied without its history."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return os.environ.get("RATCHET_COMMIT") or done.stdout.strip()
