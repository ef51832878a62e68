"""Ours, Math-Verify and a plain sympy grader on the same texts: speed, agreement, every disagreement.

`python -m benchmarks.verifier` reads GSM8K and MATH from $RATCHET_DATA (jsonl.gz with problem, solution,
answer), prints a table and writes benchmarks/results/verifier.json. Half of the texts end in a right
answer, some rewritten; half in a near miss made by benchmarks/perturbations.py. One process, one thread.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.perturbations import near_misses, reformatted
from benchmarks.record import cpu, write_results
from rewards import answers, judge, verify

RESULTS = Path(__file__).parent / "results" / "verifier.json"
Grader = Callable[[str, str], bool]
_LIMIT_SECONDS = 5
_OWN_LABELS = "labels by benchmarks/perturbations.py, which this verifier was developed with; peers were not"


@dataclass(frozen=True, slots=True)
class Case:
    gold: str
    prediction: str
    right: bool
    change: str


def load(folder: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def gsm8k_cases(folder: Path, count: int, seed: int) -> list[Case]:
    """Worked solutions that end in a boxed number, half of them wrong."""
    generator = random.Random(seed)
    cases = []
    for record in generator.sample(load(folder, "gsm8k_train"), count):
        work = re.sub(r"<<[^>]*>>", "", record["solution"]).rpartition("####")[0]
        gold = record["answer"].replace(",", "")
        changes = [("same", gold, True), ("comma", f"{int(gold):,}", True), ("dollars", rf"\${gold}", True)]
        changes += [
            (name, text, False) for name, text in near_misses(gold) if re.fullmatch(r"-?[\d.]+", text)
        ][:3]
        name, answer, right = generator.choice(changes)
        cases.append(Case(gold, f"{work}\nThe answer is \\boxed{{{answer}}}.", right, name))
    return cases


def math_cases(folder: Path, count: int, seed: int) -> list[Case]:
    """MATH solutions with their last box rewritten, left alone or made wrong."""
    generator = random.Random(seed)
    records = [r for r in load(folder, "math_train") + load(folder, "math500") if r["answer"]]
    cases = []
    while len(cases) < count:
        record = generator.choice(records)
        gold, solution = record["answer"], record["solution"]
        head, found, tail = solution.rpartition(gold)
        if not found or "boxed" not in head[-12:]:
            continue
        right = generator.random() < 0.5
        changes = list(reformatted(gold) if right else near_misses(gold))
        if changes:
            name, answer = generator.choice(changes)
            cases.append(Case(gold, head + answer + tail, right, name))
    return cases


def ours(prediction: str, gold: str) -> bool:
    return verify(prediction, gold).outcome == "correct"


def math_verify_grader() -> Grader:
    import math_verify

    def grade(prediction: str, gold: str) -> bool:
        return bool(math_verify.verify(math_verify.parse(f"${gold}$"), math_verify.parse(prediction)))

    return grade


def sympy_grader() -> Grader:
    """The last box, equal as text or with a difference that sympy simplifies to zero, within 5 s."""
    import sympy
    from latex2sympy2_extended import latex2sympy

    def late(*_: object) -> None:
        raise TimeoutError

    def grade(prediction: str, gold: str) -> bool:
        found = judge.find(prediction, "strict")
        if found is None:
            return False
        if found.text.replace(" ", "") == gold.replace(" ", ""):
            return True
        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, _LIMIT_SECONDS)
        try:
            left: Any = latex2sympy(gold)
            return bool(sympy.simplify(left - latex2sympy(found.text)) == 0)
        except Exception:  # a plain grader counts whatever goes wrong as a wrong answer; that is its weakness
            return False
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    return grade


@dataclass(frozen=True, slots=True)
class Run:
    verdicts: list[bool]
    milliseconds: list[float]
    cpu_seconds: float

    def quantile(self, share: float) -> float:
        ordered = sorted(self.milliseconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def per_second(self) -> float:
        return len(self.verdicts) / self.cpu_seconds


def measure(grader: Grader, cases: list[Case]) -> Run:
    """Verdicts, wall-clock milliseconds of each call and the CPU time of all; one call before, to warm up."""
    grader(r"\boxed{\sqrt{8}}", r"2\sqrt{2}")
    answers.clear_cache()
    judge.clear_cache()
    verdicts, milliseconds = [], []
    cpu = time.process_time()
    for case in cases:
        start = time.perf_counter()
        verdicts.append(grader(case.prediction, case.gold))
        milliseconds.append(1000 * (time.perf_counter() - start))
    return Run(verdicts, milliseconds, time.process_time() - cpu)


def row(
    what: str, mine: float, peer: float | None, peer_name: str | None, unit: str, note: str = ""
) -> dict[str, Any]:
    ratio = round(mine / peer, 4) if peer else None
    rounded = [None if value is None else round(value, 4) for value in (mine, peer)]
    return {"what": what, "ours": rounded[0], "peer": rounded[1], "peer_name": peer_name, "ratio": ratio,
            "unit": unit, "note": note}  # fmt: skip


def compare(
    name: str, cases: list[Case], peers: dict[str, Grader]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of one sample and every case on which a grader differs from the label."""
    mine = measure(ours, cases)
    rows: list[dict[str, Any]] = []
    differing: list[dict[str, Any]] = []
    runs = {"ours": mine}
    for peer_name, grader in peers.items():
        runs[peer_name] = run = measure(grader, cases)
        rows.append(row(f"{name}: answers per CPU second", mine.per_second, run.per_second, peer_name, "1/s"))
        for label, share in (("p50", 0.5), ("p99", 0.99), ("p100", 1.0)):
            rows.append(row(f"{name}: {label}", mine.quantile(share), run.quantile(share), peer_name, "ms"))
        for label, right in (("right answers refused", True), ("wrong answers accepted", False)):
            errors = [
                sum(v != c.right and c.right == right for v, c in zip(r.verdicts, cases, strict=True))
                for r in (mine, run)
            ]
            count = sum(case.right == right for case in cases)
            rows.append(row(f"{name}: {label}", errors[0], errors[1], peer_name, f"of {count}", _OWN_LABELS))
        agreed = statistics.mean(a == b for a, b in zip(mine.verdicts, run.verdicts, strict=True))
        rows.append(row(f"{name}: verdicts that agree", 100 * agreed, None, peer_name, "%"))
    for index, case in enumerate(cases):
        verdicts = {key: run.verdicts[index] for key, run in runs.items()}
        if any(verdict != case.right for verdict in verdicts.values()):
            box = judge.find(case.prediction, "strict")
            differing.append({"sample": name, "gold": case.gold, "answer": box.text if box else None,
                              "change": case.change, "right": case.right, **verdicts})  # fmt: skip
    return rows, differing


def gold_rows(folder: Path, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every gold against itself, random pairs of golds, all rewritings and near misses of all golds."""
    records = load(folder, "math_train") + load(folder, "math500")
    filled = [r["answer"] for r in records if r["answer"]]
    boxed = [ours(rf"\boxed{{{a}}}", a) for a in filled]
    rows = [row("MATH gold against itself: refused", boxed.count(False), None, None, f"of {len(filled)}")]
    generator = random.Random(seed)
    pairs = [pair for pair in (generator.sample(filled, 2) for _ in range(20_000)) if pair[0] != pair[1]]
    accepted = [
        {"gold": g, "answer": a, "justified": g_is_justified(g, a)}
        for g, a in pairs
        if ours(rf"\boxed{{{a}}}", g)
    ]
    rows.append(row("MATH gold against another, accepted", len(accepted), None, None, f"of {len(pairs)}",
                    "all listed under other_golds_accepted; different spellings of one value"))  # fmt: skip
    counts = {"rewritten": [0, 0], "near": [0, 0]}
    for gold in sorted(set(filled)):
        for kind, changes, right in (
            ("rewritten", reformatted(gold), True),
            ("near", near_misses(gold), False),
        ):
            for _, text in changes:
                counts[kind][0] += 1
                counts[kind][1] += ours(rf"\boxed{{{text}}}", gold) != right
    rows.append(
        row("rewritten golds refused", counts["rewritten"][1], None, None, f"of {counts['rewritten'][0]}")
    )
    rows.append(row("near misses accepted", counts["near"][1], None, None, f"of {counts['near'][0]}"))
    return rows, accepted


def g_is_justified(gold: str, answer: str) -> str:
    """Why two different spellings were accepted: the rule that the verdict names."""
    return verify(rf"\boxed{{{answer}}}", gold).rule


def import_milliseconds(module: str) -> float:
    """Best of five fresh interpreters, less the bare interpreter."""

    def best(code: str) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.perf_counter() - start)
        return 1000 * min(times)

    return best(f"import {module}") - best("pass")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=1000, help="texts per sample")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if "RATCHET_DATA" not in os.environ:
        raise SystemExit(
            "set RATCHET_DATA to the folder with gsm8k_train, math_train and math500 (.jsonl.gz)"
        )
    folder = Path(os.environ["RATCHET_DATA"])
    peers = {"math-verify": math_verify_grader(), "plain sympy": sympy_grader()}
    rows: list[dict[str, Any]] = []
    differing: list[dict[str, Any]] = []
    for name, cases in (
        ("GSM8K", gsm8k_cases(folder, arguments.count, arguments.seed)),
        ("MATH", math_cases(folder, arguments.count, arguments.seed)),
    ):
        found, different = compare(name, cases, peers)
        rows += found
        differing += different
    found, accepted = gold_rows(folder, arguments.seed)
    rows += found
    rows.append(
        row("import", import_milliseconds("rewards"), import_milliseconds("math_verify"), "math-verify", "ms")
    )
    packages = ("sympy", "mpmath", "math-verify", "latex2sympy2-extended", "gmpy2")
    write_results(
        RESULTS, "verifier", rows, packages, f"{cpu()}, one used", disagreements=differing, other_golds_accepted=accepted
    )
    show(rows, differing, accepted)


def show(rows: list[dict[str, Any]], differing: list[dict[str, Any]], accepted: list[dict[str, Any]]) -> None:
    print(f"{'what':44} {'ours':>12} {'peer':>12} {'ratio':>9}  unit, peer")
    for r in rows:
        cells = ["" if r[key] is None else f"{r[key]:.6g}" for key in ("ours", "peer", "ratio")]
        print(
            f"{r['what']:44} {cells[0]:>12} {cells[1]:>12} {cells[2]:>9}  {r['unit']} {r['peer_name'] or ''}"
        )
    print(f"\n{len(differing)} texts on which a grader errs (label, ours, math-verify, plain sympy):")
    for d in differing:
        marks = "".join("01"[bool(d[key])] for key in ("right", "ours", "math-verify", "plain sympy"))
        print(f"{marks}  {d['sample']}: {d['change']}: {d['gold']!r} <- {d['answer']!r}")
    print(f"\n{len(accepted)} pairs of different golds accepted:")
    for a in accepted:
        print(f"{a['gold']!r} = {a['answer']!r} ({a['justified']})")


if __name__ == "__main__":
    main()
