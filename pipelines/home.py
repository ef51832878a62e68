"""Where Ratchet keeps what it makes: RATCHET_HOME, by default ~/.cache/ratchet."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The folder that holds the artefact store and converted models."""
    return Path(os.environ.get("RATCHET_HOME") or "~/.cache/ratchet").expanduser().resolve()


def store_root() -> Path:
    """The artefact store, shared by all runs."""
    return home() / "store"
