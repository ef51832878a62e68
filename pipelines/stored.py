"""`ratchet score`: pass@k, maj@k, RM@k and the weighted vote of samples in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import InputError
from data_gen.fields import opened
from pipelines.picks import Answers, sigmoid_weight, table
from rewards import Mode, Verdict, VerifierPool, extract, verify
from rewards.voting import group_equal


@dataclass(frozen=True)
class Stored:
    """One line of the file. `place` is FILE:LINE."""

    problem: str
    answer: str
    response: str
    reward: float | None
    place: str


def score_file(
    path: Path, mode: Mode = "lenient", equal: str = "value", weights: str = "sigmoid", alpha: float = 0.5, workers: int = 1
) -> dict[str, Any]:
    """Figures of the stored samples. Raises InputError with FILE:LINE for the first bad line.

    A sample whose verification failed (timeout, error) or whose problem's answer cannot be read is left out and
    counted in `outcomes`: it is neither right nor wrong. `equal`: see `rewards.voting.group_equal`. `weights`:
    "sigmoid" of alpha * reward, or "raw" rewards, which must not be negative.
    """
    rows = list(_checked(path))
    verdicts = _verdicts(rows, mode, workers)
    outcomes: dict[str, int] = {}
    by_problem: dict[str, list[tuple[Stored, Verdict]]] = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        outcomes[verdict.outcome] = outcomes.get(verdict.outcome, 0) + 1
        if verdict.scored:
            by_problem.setdefault(row.problem, []).append((row, verdict))
    if not by_problem:
        raise InputError(f"{path}: no sample could be judged ({outcomes})")
    problems = [_judged(name, members, mode, equal) for name, members in by_problem.items()]
    return {
        "file": str(path), "mode": mode, "equal": equal, "weights": weights if weights == "raw" else f"sigmoid({alpha} r)",
        "problems": len(problems), "samples": len(rows), "left_out": sum(not v.scored for v in verdicts),
        "outcomes": dict(sorted(outcomes.items())), "at": table(problems, _weight(rows, weights, alpha)),
    }  # fmt: skip


def _weight(rows: list[Stored], weights: str, alpha: float) -> Callable[[float], float]:
    if weights == "sigmoid":
        return sigmoid_weight(alpha)
    negative = next((r for r in rows if r.reward is not None and r.reward < 0.0), None)
    if negative is not None:
        raise InputError(f"{negative.place}: reward {negative.reward} is negative: raw weights need rewards >= 0; use sigmoid")
    return lambda reward: reward


def _verdicts(rows: list[Stored], mode: Mode, workers: int) -> list[Verdict]:
    if workers <= 1:
        return [verify(r.response, r.answer, mode=mode) for r in rows]
    with VerifierPool(workers) as pool:
        return pool.verify_many([(r.response, r.answer) for r in rows], mode)


def _judged(name: str, members: list[tuple[Stored, Verdict]], mode: Mode, equal: str) -> Answers:
    answers = [None if v.outcome == "no_answer" else extract(r.response, mode) for r, v in members]
    rewards = [r.reward for r, _ in members if r.reward is not None]
    return Answers(name, [float(v.correct) for _, v in members], group_equal(answers, equal), rewards or None)


def _checked(path: Path) -> Iterator[Stored]:
    """The lines of the file; a problem has one answer, and either every line has a reward or none."""
    answers: dict[str, tuple[str, str]] = {}
    first: Stored | None = None
    for line, place in _lines(path):
        row = _stored(line, place)
        first = first or row
        known = answers.setdefault(row.problem, (row.answer, row.place))
        if known[0] != row.answer:
            raise InputError(f"{place}: problem {row.problem} has answer {row.answer!r} here and {known[0]!r} in {known[1]}")
        if (row.reward is None) != (first.reward is None):
            which = ("no reward", "one") if row.reward is None else ("a reward", "none")
            raise InputError(f"{place}: {which[0]} here, but {which[1]} in {first.place}: give one for all samples or for none")
        yield row
    if first is None:
        raise InputError(f"{path}: no samples")


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, and where they are."""
    try:
        with opened(path) as handle:
            for number, line in enumerate(handle, start=1):
                try:
                    text = line.decode()  # line by line: a text file reads ahead, and its error would name another line
                except UnicodeDecodeError as error:
                    raise InputError(f"{path}:{number}: not UTF-8 text ({error.reason})") from error
                if text.strip():
                    yield text, f"{path}:{number}"
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def _stored(line: str, place: str) -> Stored:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place}: not valid JSON ({error})") from error
    if not isinstance(record, dict):
        raise InputError(f"{place}: expected an object with problem_id, answer, response and optionally reward")
    missing = [key for key in ("problem_id", "answer", "response") if key not in record]
    if missing:
        raise InputError(f"{place}: missing {', '.join(missing)}")
    texts = {}
    for key in ("problem_id", "answer", "response"):
        value = record[key]
        number = isinstance(value, int | float) and not isinstance(value, bool) and key != "response"
        if not isinstance(value, str) and not number:
            raise InputError(f"{place}: {key} must be text, not {type(value).__name__}")
        texts[key] = str(value)
    reward = record.get("reward")
    if reward is not None and (isinstance(reward, bool) or not isinstance(reward, int | float) or not math.isfinite(reward)):
        raise InputError(f"{place}: reward must be a finite number, not {reward!r}")
    return Stored(texts["problem_id"], texts["answer"], texts["response"], None if reward is None else float(reward), place)
