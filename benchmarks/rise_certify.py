"""How many accepted edits are truly wrong: certification against a filter of telling phrases, and yields by error type.

`python -m benchmarks.rise_certify` edits right solutions with the bundled model (self editor, worked examples, greedy)
and with the programmatic editor: procedural problems, whose true steps are known, and GSM8K's human solutions (from
$RATCHET_DATA). Truth is a calculator of its own below, not the code under test. The phrase filter stands for the
published code of RISE, which accepts every edit that holds no telling phrase. Writes benchmarks/results/rise_certify.json.
"""

from __future__ import annotations

import argparse
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from benchmarks.record import cpu, write_results
from configs.rows import Edit, Problem, Sample
from configs.schema import ModelSection, PromptSection
from data_gen.attempts import Attempt, edit_request, plan_attempts, programmatic_rows, self_edit
from data_gen.certify import KEPT, discloses
from data_gen.edit_prompts import prompt_section
from data_gen.edits import ERRORS
from data_gen.engine import EngineConfig, Request, open_engine
from data_gen.problems import load_problems, strip_calculator_marks
from data_gen.procedural import generate
from data_gen.prompts import PromptEncoder
from pipelines.models import resolve_model
from pipelines.statistics import wilson

RESULTS = Path(__file__).parent / "results" / "rise_certify.json"
_BOUND = 0.5
_SHOWN = 10
_PEER = "phrase filter"
_EQUATION = re.compile(r"([\d.,$%()/*x+\- ]*\d[\d.,$%()/*x+\- ]*)=\s*\$?([\d,]+(?:\.\d+)?)(?![\d/*x+-]| [+*/x-] ?\d)")


@dataclass(frozen=True)
class Judged:
    """An edit, whether each filter accepts it, and the truth: wrong, right, or None where the calculator cannot tell."""

    edit: Edit
    ours: bool
    phrase: bool
    wrong: bool | None


def calculate(expression: str) -> Fraction | None:
    """The value of digits, + - * / x, brackets and percent signs, by precedence; None if it is anything else."""
    tokens = re.findall(r"\d+(?:\.\d+)?|[-+*/x()%]", expression.replace(",", "").replace("$", ""))
    values: list[Fraction] = []
    pending: list[str] = []

    def apply() -> None:
        sign, b, a = pending.pop(), values.pop(), values.pop()
        values.append({"+": a + b, "-": a - b, "*": a * b, "x": a * b}[sign] if sign != "/" else a / b)

    rank = {"+": 1, "-": 1, "*": 2, "/": 2, "x": 2}
    try:
        for token in tokens:
            if token[0].isdigit():
                values.append(Fraction(token))
            elif token == "%":
                values.append(values.pop() / 100)
            elif token == "(":
                pending.append(token)
            elif token == ")":
                while pending[-1] != "(":
                    apply()
                pending.pop()
            else:
                while pending and pending[-1] != "(" and rank[pending[-1]] >= rank[token]:
                    apply()
                pending.append(token)
        while pending:
            apply()
    except (IndexError, ZeroDivisionError, KeyError):
        return None
    return values[0] if len(values) == 1 else None


def statements(text: str) -> list[tuple[str, Fraction | None, Fraction]]:
    """(expression, its value, the result beside it) of every `expression = number` in the text, units left out."""
    for sign, plain in (("\u2212", "-"), ("\u2013", "-"), ("\u00d7", "*"), ("\u00f7", "/")):
        text = text.replace(sign, plain)
    text = re.sub(r"(?<=[\d%])(?: [A-Za-z]{2,}){1,3}(?= ?[-+*/=])", "", text)
    text = re.sub(r"(\d)\((\d+)\)", r"\1*\2", text)
    text = re.sub(r"(?<![\d.])\.(\d)", r"0.\1", text)
    found = [(m.group(1).strip(), m.group(2)) for m in _EQUATION.finditer(text)]
    return [(e, calculate(e), Fraction(r.replace(",", ""))) for e, r in found if not re.fullmatch(r"[\d.,$]+", e)]


def truly_wrong(edit: Edit, answer: str) -> bool | None:
    """Whether the edited step is wrong, given that the original is right.

    Unchanged text is right. A statement that is false by a hundredth or more makes the step wrong; statements that are
    all true make it wrong if the results differ from the original's, right if not. An answer line is wrong if it is not
    the answer. Anything else: None.
    """
    if edit.edited.split() == edit.original.split():
        return False
    before, after = statements(edit.original), statements(edit.edited)
    if any(v is not None and abs(v - r) >= Fraction(1, 100) for _, v, r in after):
        return True
    line = re.search(r"####\s*([\d,.-]+)\s*$", edit.edited)
    if line and not after:
        return Fraction(line.group(1).replace(",", "").rstrip(".")) != Fraction(answer.replace(",", ""))
    if after and all(v is not None for _, v, _ in after):
        return {r for _, _, r in before} != {r for _, _, r in after}
    return None


def attempts_on(tokenizer: Any, problems: Sequence[Problem], limit: int) -> list[Attempt]:
    """Attempts on the problems' own solutions."""
    found = []
    for p in problems:
        text = strip_calculator_marks(p.solution or "")
        ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        sample = Sample(
            id=f"{p.id}#0", parents=[p.id], stage="sample", problem=p.id, prompt_ids=[], token_ids=ids, text="", logprobs=[],
            logprob=0.0, finish_reason="stop", temperature=0.0, top_p=1.0, seed=0, model="human",
        )
        found += plan_attempts(tokenizer, p, sample, ids, errors=ERRORS, limit=limit, certify="arithmetic", seed=0)[0]
    return found


def self_edits(base: Path, attempts: Sequence[Attempt], form: str, temperature: float) -> list[Edit]:
    """What the model makes of the attempts."""
    encoder = PromptEncoder(base, prompt_section(form, PromptSection()))
    config = EngineConfig(
        kind="transformers", model=str(base), dtype="bfloat16", batch_size=64, max_model_len=2048, gpu_memory=0.5
    )
    requests = [
        Request(id=a.id, prompt_ids=encoder.encode(edit_request(a, form)), seeds=[a.seed], temperature=temperature, top_p=1.0,
                max_tokens=32 * -(-(a.span.end - a.span.start + 16) // 32))
        for a in attempts
    ]  # fmt: skip
    engine = open_engine(config)
    texts = {c.request: c.text for group in engine.generate(requests) for c in group}
    engine.close()
    return [self_edit(encoder.tokenizer, a, texts[a.id], _BOUND, "arithmetic") for a in attempts]


def judge(edits: Sequence[Edit], problems: Sequence[Problem]) -> list[Judged]:
    """Both filters' words and the truth on edits that have a text."""
    answers = {p.id: p.answer for p in problems}
    return [
        Judged(e, e.outcome == KEPT, not discloses(e.original, e.edited), truly_wrong(e, answers[e.problem]))
        for e in edits if e.edited
    ]  # fmt: skip


def precision(cases: Sequence[Judged], accepted: Sequence[bool]) -> dict[str, Any]:
    """Share of accepted edits that are wrong, among those where the calculator can tell, with a Wilson interval.

    The edits of one solution are counted as if they were of several: where they are alike, the interval is too narrow.
    """
    told = [c.wrong for c, yes in zip(cases, accepted, strict=True) if yes and c.wrong is not None]
    if not told:
        return {"value": None, "low": None, "high": None, "n": 0, "untold": sum(accepted)}
    low, high = wilson(sum(told), len(told))
    return {"value": sum(told) / len(told), "low": low, "high": high, "n": len(told), "untold": sum(accepted) - len(told)}


def rows_of(name: str, edits: Sequence[Edit], problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Precision of both filters, what ours lets through, and yields by error type, for one editor and source."""
    cases = judge(edits, problems)
    ours, peer = precision(cases, [c.ours for c in cases]), precision(cases, [c.phrase for c in cases])
    missed = sum(c.wrong is True for c in cases)
    found = sum(c.wrong is True and c.ours for c in cases)
    rows = [
        {
            "what": f"{name}: accepted edits that are wrong", "ours": ours["value"], "peer": peer["value"], "peer_name": _PEER,
            "ratio": ours["value"] / peer["value"] if ours["value"] and peer["value"] else None, "unit": "share",
            "low": ours["low"], "high": ours["high"], "n": ours["n"], "peer_low": peer["low"], "peer_high": peer["high"],
            "peer_n": peer["n"],
            "note": f"undecided by the calculator: {ours['untold']} of ours, {peer['untold']} of the peer's",
        },
        {
            "what": f"{name}: wrong edits that are accepted", "ours": found / missed if missed else None, "peer": None,
            "peer_name": None, "ratio": None, "unit": "share", "n": missed,
            "note": "the others are wrong by the calculator, but too far, changed in form, or not shown wrong by arithmetic",
        },
    ]  # fmt: skip
    for error in ERRORS:
        mine = [e for e in edits if e.error == error]
        outcomes = Counter(e.outcome for e in mine)
        if mine:
            low, high = wilson(outcomes[KEPT], len(mine))
            rows.append({
                "what": f"{name}: {error} kept", "ours": outcomes[KEPT] / len(mine), "peer": None, "peer_name": None,
                "ratio": None, "unit": "share", "low": low, "high": high, "n": len(mine),
                "note": ", ".join(f"{k} {v}" for k, v in sorted(outcomes.items())),
            })  # fmt: skip
    return rows


def wrongly_kept(edits: Sequence[Edit], problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Kept edits that the calculator does not call wrong: each is listed in the results."""
    return [
        {"original": c.edit.original, "edited": c.edit.edited, "certificate": c.edit.certificate, "wrong": c.wrong}
        for c in judge(edits, problems) if c.ours and c.wrong is not True
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--problems", type=int, default=150, help="of each source")
    parser.add_argument("--self-attempts", type=int, default=2, help="self edits of each procedural solution")
    arguments = parser.parse_args()
    base = resolve_model(ModelSection()).path
    encoder = PromptEncoder(base, PromptSection())
    procedural = generate(arguments.problems, "train", 11, (1, 2, 3), 40)
    rows: list[dict[str, Any]] = []
    doubtful: dict[str, Any] = {}
    attempts = attempts_on(encoder.tokenizer, procedural, arguments.self_attempts)
    runs = [
        ("self editor (examples, greedy), procedural", self_edits(base, attempts, "few_shot", 0.0), procedural),
        ("self editor (examples, T 0.7), procedural", self_edits(base, attempts, "few_shot", 0.7), procedural),
        ("self editor (instruction, greedy), procedural", self_edits(base, attempts, "instruction", 0.0), procedural),
        ("programmatic editor, procedural", _programmatic(encoder, procedural), procedural),
    ]
    if "RATCHET_DATA" in os.environ:
        gsm8k = load_problems("gsm8k", "train", limit=arguments.problems)
        runs.append(("programmatic editor, GSM8K", _programmatic(encoder, gsm8k), gsm8k))
    for name, edits, problems in runs:
        rows += rows_of(name, edits, problems)
        doubtful[name] = wrongly_kept(edits, problems)
    packages = ("torch", "transformers")
    write_results(RESULTS, "rise_certify", rows, packages, cpu(), kept_but_not_called_wrong=doubtful)
    show(rows, doubtful)


def _programmatic(encoder: PromptEncoder, problems: Sequence[Problem]) -> list[Edit]:
    attempts = attempts_on(encoder.tokenizer, problems, 8)
    return [e for a in attempts for e in programmatic_rows(encoder.tokenizer, a, _BOUND, "arithmetic")]


def show(rows: Sequence[dict[str, Any]], doubtful: dict[str, Any]) -> None:
    print(f"{'what':72} {'ours':>7} {'95 %':>16} {'n':>5} {'peer':>7} {'95 %':>16} {'n':>5}")
    for r in rows:
        print(f"{r['what']:72} {_share(r['ours']):>7} {_interval(r, ''):>16} {r['n']:>5} {_share(r['peer']):>7} "
              f"{_interval(r, 'peer_'):>16} {r.get('peer_n', ''):>5}  {r['note']}")  # fmt: skip
    for name, cases in doubtful.items():
        for c in cases[:_SHOWN]:
            print(f"{name}, of {len(cases)}: {c}")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _interval(row: dict[str, Any], prefix: str) -> str:
    low, high = row.get(f"{prefix}low"), row.get(f"{prefix}high")
    return "" if low is None or high is None else f"{low:.1%}-{high:.1%}"


if __name__ == "__main__":
    main()
