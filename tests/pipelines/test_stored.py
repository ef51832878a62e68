"""`ratchet score`: figures against brute force over subsets, golden files, bad lines."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from configs.errors import InputError
from pipelines.cli import app
from pipelines.stored import score_file
from rewards.shaping import sigmoid


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def rows_of(problem: str, gold: str, answers: Sequence[str], rewards: Sequence[float] | None = None) -> list[dict[str, Any]]:
    none = "I do not know how to begin with this one, sorry."
    texts = [f"so it is \\boxed{{{a}}}" if a else none for a in answers]
    rows: list[dict[str, Any]] = [{"problem_id": problem, "answer": gold, "response": t} for t in texts]
    return [r | {"reward": w} for r, w in zip(rows, rewards, strict=True)] if rewards else rows


def brute_force(rows: Sequence[dict[str, Any]], k: int, weight: Callable[[float], float]) -> dict[str, float]:
    """Every subset of every problem, answers compared as numbers, nothing shared with the code under test."""
    totals = dict.fromkeys(("pass", "maj", "rm", "weighted"), 0.0)
    problems = sorted({r["problem_id"] for r in rows})
    for problem in problems:
        mine = [r for r in rows if r["problem_id"] == problem]
        given = [float(r["response"].split("{")[1][:-1]) if "{" in r["response"] else None for r in mine]
        gold = float(mine[0]["answer"])
        subsets = list(itertools.combinations(range(len(mine)), k))
        for subset in subsets:
            totals["pass"] += any(given[i] == gold for i in subset) / len(subsets)
            best = max(mine[i]["reward"] for i in subset)
            tied = [i for i in subset if mine[i]["reward"] == best]
            totals["rm"] += sum(given[i] == gold for i in tied) / len(tied) / len(subsets)
            for name, of in (("maj", lambda r: 1.0), ("weighted", weight)):
                votes: dict[float, float] = {}
                for i in subset:
                    if (a := given[i]) is not None:
                        votes[a] = votes.get(a, 0.0) + of(mine[i]["reward"])
                winners = [a for a, v in votes.items() if abs(v - max(votes.values())) < 1e-9]
                totals[name] += (gold in winners) / max(1, len(winners)) / len(subsets)
    return {name: total / len(problems) for name, total in totals.items()}


@pytest.mark.parametrize("seed", range(4))
def test_figures_equal_brute_force_over_subsets(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    rows = []
    for p in range(6):
        answers = [rng.choice(["4", "4.0", "7", "1/2", "9", ""]) for _ in range(8)]
        answers = [a.replace("1/2", "0.5") for a in answers]
        rows += rows_of(f"p{p}", rng.choice(["4", "7"]), answers, [rng.choice([-3.0, -1.0, 0.5, 2.0, 6.0]) for _ in answers])
    rng.shuffle(rows)
    found = score_file(write(tmp_path / "s.jsonl", rows))
    assert [r["k"] for r in found["at"]] == [1, 2, 4, 8]
    for record in found["at"]:
        expected = brute_force(rows, record["k"], lambda r: sigmoid(0.5 * r))
        for name, value in expected.items():
            assert record[name]["mean"] == pytest.approx(value), (name, record["k"])
            assert record[name]["low"] <= record[name]["mean"] <= record[name]["high"]
        assert record["rm_gain"]["mean"] == pytest.approx(expected["rm"] - expected["maj"])


def golden(problems: Sequence[tuple[int, bool, bool]]) -> list[dict[str, Any]]:
    """Problems with 8 samples: (number of right ones, whether the right answer has the majority, whether the best score
    is a right one). Wrong answers agree exactly where they shall win."""
    rows = []
    for number, (right, majority, best) in enumerate(problems):
        wrong = 8 - right
        answers = ["5"] * right + [str(100 + i) if majority else "6" for i in range(wrong)]
        rewards = [0.1 * i for i in range(8)]
        if right and wrong:
            rewards[0 if best else 7] = 6.1
        rows += rows_of(f"p{number}", "5", answers, rewards)
    return rows


def test_a_golden_file_of_a_hundred_problems(tmp_path: Path) -> None:
    """86 always right, 4 never; of ten mixed ones maj@8 wins seven and RM@8 eight: pass@8 96, maj@8 93, RM@8 94."""
    mixed = [(5, True, True)] * 6 + [(5, True, False)] + [(3, False, True)] * 2 + [(3, False, False)]
    found = score_file(write(tmp_path / "s.jsonl", golden([(8, True, True)] * 86 + [(0, False, False)] * 4 + mixed)))
    last = found["at"][-1]
    assert {n: round(100 * last[n]["mean"], 6) for n in ("pass", "maj", "rm")} == {"pass": 96.0, "maj": 93.0, "rm": 94.0}
    assert found["at"][0]["pass"]["mean"] == pytest.approx((86 + (7 * 5 + 3 * 3) / 8) / 100)


def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", [*rows_of("a", "4", ["4", "5", "4", ""]), *rows_of("b", "1/2", ["0.5", "2"])])
    shown = CliRunner().invoke(app, ["score", "--input", str(path)])
    assert shown.exit_code == 0 and "6 samples of 2 problems: correct 3, no_answer 1, wrong 2" in shown.output
    told = json.loads(CliRunner().invoke(app, ["score", "--input", str(path), "--json"]).output)
    assert [(r["k"], r["problems"], r["rm"]) for r in told["at"]] == [(1, 2, None), (2, 2, None), (4, 1, None)]
    assert told["at"][0]["pass"]["mean"] == pytest.approx(0.5) and told["at"][2]["maj"]["mean"] == 1.0


def test_modes_equality_and_weights(tmp_path: Path) -> None:
    rows = [{"problem_id": 1, "answer": 4, "response": r, "reward": w} for r, w in
            (("The answer is 4", 0.2), ("\\boxed{4.0}", 0.2), ("\\boxed{5}", 0.3))]
    path = write(tmp_path / "s.jsonl", rows)

    def at(**options: Any) -> dict[str, Any]:
        return score_file(path, **options)["at"][-1]

    assert at()["maj"]["mean"] == at(weights="raw")["weighted"]["mean"] == 1.0
    assert at(equal="text")["maj"]["mean"] == pytest.approx(2 / 3)
    assert at(equal="text", weights="raw")["weighted"]["mean"] == 0.0
    assert at(mode="strict")["maj"]["mean"] == pytest.approx(0.5)
    write(path, [*rows, {**rows[0], "reward": -1.0}])
    with pytest.raises(InputError, match=r"s\.jsonl:4: reward -1\.0 is negative"):
        at(weights="raw")


def test_samples_that_cannot_be_judged_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", [*rows_of("a", "", ["4", "5"]), *rows_of("b", "7", ["7", "7"])])
    found = score_file(path)
    assert found["left_out"] == 2 and found["outcomes"] == {"bad_gold": 2, "correct": 2} and found["problems"] == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "s.jsonl:2: not valid JSON"),
        ("[1]", "s.jsonl:2: expected an object"),
        ('{"problem_id": "a", "answer": "4"}', "s.jsonl:2: missing response"),
        ('{"problem_id": "a", "answer": "4", "response": 4}', "s.jsonl:2: response must be text, not int"),
        ('{"problem_id": true, "answer": "4", "response": ""}', "s.jsonl:2: problem_id must be text, not bool"),
        ('{"problem_id": "a", "answer": "4", "response": "", "reward": "1"}', "s.jsonl:2: reward must be a finite number"),
        ('{"problem_id": "a", "answer": "4", "response": "", "reward": NaN}', "s.jsonl:2: reward must be a finite number"),
        ('{"problem_id": "a", "answer": "4", "response": "4"}', "s.jsonl:2: no reward here, but one in .*s.jsonl:1"),
        ('{"problem_id": "a", "answer": "5", "response": "", "reward": 1}', "s.jsonl:2: problem a has answer '5' here and '4'"),
        ("\udcff", "s.jsonl:2: not UTF-8"),
    ],
)
def test_bad_lines_are_errors_with_their_place(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "s.jsonl"
    good = '{"problem_id": "a", "answer": "4", "response": "4", "reward": 1}\n'
    path.write_bytes((good + line + "\n").encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=said):
        score_file(path)


def test_no_file_and_no_samples(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        score_file(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="no samples"):
        score_file(tmp_path / "empty.jsonl")
    assert CliRunner().invoke(app, ["score", "--input", str(tmp_path / "empty.jsonl"), "--mode", "x"]).exit_code == 2


def test_compressed_files_give_the_same_figures(tmp_path: Path) -> None:
    plain = write(tmp_path / "s.jsonl", rows_of("p", "3", ["3", "4", "3"], [0.5, 1.0, 2.0]))
    packed = tmp_path / "s.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert score_file(packed)["at"] == score_file(plain)["at"]
    packed.write_bytes(packed.read_bytes()[:-12])
    with pytest.raises(InputError, match=r"s\.jsonl\.gz: damaged or not gzip"):
        score_file(packed)
