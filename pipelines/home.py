"""Where Ratchet keeps what it makes: RATCHET_HOME, by default ~/.cache/ratchet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.errors import InputError


def home() -> Path:
    """The folder that holds the artefact store and converted models."""
    return Path(os.environ.get("RATCHET_HOME") or "~/.cache/ratchet").expanduser().resolve()


def store_root() -> Path:
    """The artefact store, shared by all runs."""
    return home() / "store"


def store_of(run: Path, plan: Mapping[str, Any], setting: str) -> Path:
    """The store of a run with this recorded plan, refused unless it is the one in use. `setting` is what named the run."""
    root = store_root()
    if Path(plan["store"]) != root:
        raise InputError(f"{setting}: {run} keeps its artefacts in {plan['store']}, not in {root}: set RATCHET_HOME")
    return root
