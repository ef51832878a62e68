"""The public functions: verify one prediction, many, or a file of them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from configs.errors import InputError
from rewards.extraction import find
from rewards.judge import NeedsSymbolic, judge
from rewards.pool import VerifierPool, default_pool
from rewards.verdict import OUTCOMES, Mode, Verdict

_CHUNK = 2048
_SYMBOLIC_SHARE = 0.85
"""Part of the time limit after which the worker is given up, so that the verdict is out before the end."""
T = TypeVar("T")


def extract(prediction: str, mode: Mode = "strict") -> str | None:
    """The answer text in `prediction`, or None.

    Strict: the last \\boxed{} or \\fbox{}, else the `####` line. Lenient: also "the answer is ...",
    `<answer>`, delimited mathematics, bold text and the last number.
    """
    candidate = find(prediction, mode)
    return candidate.text.strip() if candidate else None


def verify(prediction: str, gold: str, mode: Mode = "strict", timeout: float = 1.0) -> Verdict:
    """Judge one prediction. Never raises, never prints, deterministic, safe in any thread.

    Almost every answer is decided in this process within fixed bounds of work; what needs sympy goes to
    a worker process, shared by the threads of this one, that is killed so that the verdict comes within
    `timeout` seconds, the start of the worker included.
    """
    start = time.perf_counter()
    try:
        outcome, extracted, rule = judge(as_text(prediction), as_text(gold), mode)
    except NeedsSymbolic:
        left = _SYMBOLIC_SHARE * timeout - (time.perf_counter() - start)
        verdict = default_pool().verify(as_text(prediction), as_text(gold), mode, timeout, within=left)
        extracted = verdict.extracted or extract(as_text(prediction), mode)
        return Verdict(verdict.outcome, extracted, verdict.rule, time.perf_counter() - start)
    except Exception as error:  # the contract: a failing checker is an outcome of its own, never a 0
        return Verdict("error", None, f"error:{type(error).__name__}", time.perf_counter() - start)
    return Verdict(outcome, extracted, rule, time.perf_counter() - start)


def warm() -> None:
    """Start this process's worker now: the first answer that needs sympy would wait for it, 0.4 s on an idle core."""
    default_pool().warm()


def as_text(value: object) -> str:
    """Text as it is, numbers as text; anything else is a caller's mistake, reported as outcome "error"."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"expected text, got {type(value).__name__}")


def verify_many(pairs: Sequence[tuple[str, str]], mode: Mode = "strict", workers: int = 1) -> list[Verdict]:
    """Verdicts of (prediction, gold) pairs in the same order, on `workers` processes if more than one."""
    if workers <= 1:
        return [verify(prediction, gold, mode) for prediction, gold in pairs]
    with VerifierPool(workers) as pool:
        return pool.verify_many([(as_text(p), as_text(g)) for p, g in pairs], mode)


def verify_file(
    input_path: str | os.PathLike[str],
    output_path: str | os.PathLike[str],
    mode: Mode = "strict",
    workers: int = 1,
) -> dict[str, int]:
    """Judge JSON lines `id, gold, prediction` (optional `mode`); returns the count of each outcome.

    Writes `id, outcome, extracted, rule, seconds` in the same order. The output appears only when it is
    complete. Raises InputError naming the file and line of the first bad record.
    """
    source, target = Path(input_path), Path(output_path)
    if mode not in ("strict", "lenient"):
        raise InputError(f"mode must be strict or lenient, not {mode!r}")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    counts: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
    pool = VerifierPool(workers) if workers > 1 else None
    try:
        with temporary.open("w", encoding="utf-8") as out:
            for chunk in chunked(records(source, mode), _CHUNK):
                for record, verdict in zip(chunk, judged(chunk, pool), strict=True):
                    counts[verdict.outcome] += 1
                    out.write(json.dumps(row(record, verdict), ensure_ascii=False) + "\n")
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"{error.filename or target}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
        if pool is not None:
            pool.close()
    return counts


def judged(chunk: list[dict[str, Any]], pool: VerifierPool | None) -> list[Verdict]:
    if pool is None:
        return [verify(r["prediction"], r["gold"], r["mode"]) for r in chunk]
    verdicts: list[Verdict | None] = [None] * len(chunk)
    for mode in ("strict", "lenient"):
        places = [index for index, r in enumerate(chunk) if r["mode"] == mode]
        done = pool.verify_many([(chunk[i]["prediction"], chunk[i]["gold"]) for i in places], mode)
        for index, verdict in zip(places, done, strict=True):
            verdicts[index] = verdict
    return [verdict for verdict in verdicts if verdict is not None]


def row(record: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    return {
        "id": record["id"],
        "outcome": verdict.outcome,
        "extracted": verdict.extracted,
        "rule": verdict.rule,
        "seconds": round(verdict.seconds, 6),
    }


def records(path: Path, mode: Mode) -> Iterator[dict[str, Any]]:
    """The records of a JSON lines file, checked one by one."""
    try:
        handle = path.open(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    with handle:
        number = 0
        try:
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    yield checked(line, f"{path}:{number}", mode)
        except UnicodeDecodeError as error:
            raise InputError(f"{path}:{number + 1}: not UTF-8 text ({error.reason})") from error


def checked(line: str, place: str, mode: Mode) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place}: not valid JSON ({error})") from error
    if not isinstance(record, dict):
        raise InputError(f"{place}: expected an object with id, gold and prediction")
    missing = [key for key in ("id", "gold", "prediction") if key not in record]
    if missing:
        raise InputError(f"{place}: missing {', '.join(missing)}")
    for key in ("gold", "prediction"):
        value = record[key]
        if isinstance(value, int | float) and not isinstance(value, bool):
            record[key] = str(value)
        elif not isinstance(value, str):
            raise InputError(f"{place}: {key} must be text, not {type(value).__name__}")
    found = record.setdefault("mode", mode)
    if found not in ("strict", "lenient"):
        raise InputError(f"{place}: mode must be strict or lenient, not {found!r}")
    return record


def chunked(items: Iterator[T], size: int) -> Iterator[list[T]]:
    chunk: list[T] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
