"""The worker process: reads requests as JSON lines from stdin, answers on its private copy of stdout.

Started by rewards.pool as `python -m rewards.worker MEMORY_MB`. It limits its own memory before it
imports sympy; its time is limited by the parent, which kills it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any


def limit_memory(megabytes: int) -> None:
    size = megabytes << 20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """One verification with sympy at hand. `kind` "sleep" serves the tests of the pool's time limit."""
    from rewards import symbolic
    from rewards.judge import judge

    outcome, extracted, rule = judge(request["prediction"], request["gold"], request["mode"], symbolic.equal)
    return {"outcome": outcome, "extracted": extracted, "rule": rule}


def serve(memory_mb: int) -> None:
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # a stray print of a library must not break the protocol
    os.dup2(quiet, 2)
    limit_memory(memory_mb)
    import rewards.symbolic  # noqa: F401  (before the first request, so that its time limit is for the work)

    out.write(b"ready\n")
    for line in sys.stdin.buffer:
        try:
            reply = handle(json.loads(line))
        except Exception as error:  # reported by name; the parent turns it into outcome "error"
            reply = {"outcome": "error", "extracted": None, "rule": f"error:{type(error).__name__}"}
        out.write(json.dumps(reply).encode() + b"\n")


if __name__ == "__main__":
    serve(int(sys.argv[1]))
