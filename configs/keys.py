"""Content keys and derived seeds: everything that must be the same on every machine and in every order."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> bytes:
    """JSON bytes of `value` with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def content_key(*parts: Any) -> str:
    """32 hex digits (128 bits) of SHA-256 over the canonical form of `parts`."""
    return hashlib.sha256(canonical(parts)).hexdigest()[:32]


def derive_seed(*parts: Any) -> int:
    """A seed in [0, 2**63) from `parts` (run seed, stage key, row id, sample index, ...).

    Order of execution, number of workers and a resume cannot change it.
    """
    return int.from_bytes(hashlib.sha256(canonical(parts)).digest()[:8], "big") >> 1
