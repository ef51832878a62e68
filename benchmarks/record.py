"""How results are written down: what was measured, with which command, on what."""

from __future__ import annotations

import argparse
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

from pipelines.files import writing


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
    write_whole(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file at once: what was measured before is not lost where this fails. Its folder is made if need be."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def positive(text: str) -> int:
    """A number of at least 1 on the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


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
