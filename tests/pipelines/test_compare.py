from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from configs.errors import InputError
from configs.load import load_recipe
from configs.rows import ProblemScore
from pipelines import cli as command_line
from pipelines.compare import compare, lines, measured, paired
from pipelines.models import ResolvedModel
from pipelines.plan import build, resolve
from pipelines.runfolder import RunFolder
from pipelines.statistics import mcnemar, paired_bootstrap
from pipelines.store import Store, write_rows


def rows(right: Sequence[int], samples: int = 1, first: int = 0, **fields: str) -> list[ProblemScore]:
    """Scores of problems `first`, `first` + 1, ..., with so many right answers each."""
    return [
        ProblemScore(
            id=f"{i}/score", parents=[], stage="score", problem=f"p{i}", samples=samples, correct=correct, extracted=None,
            outcome="", text="", **{"question": f"{i}?", "answer": "5", **fields},
        )
        for i, correct in enumerate(right, first)
    ]


def a_run(
    root: Path, scores: Sequence[Sequence[ProblemScore]], *overrides: str, benchmark: str = "sums", mode: str = "lenient"
) -> Path:
    """A run folder as `ratchet run` leaves it: initial model, iteration 1, ... with these scores in its store."""
    benchmarks = f"evaluation.benchmarks=[{{name: {benchmark}, source: {{source: procedural, split: test, limit: 9}}}}]"
    fixed = (f"iterations.count={len(scores) - 1}", "model.dtype=float32", "sampling.engine=transformers", benchmarks)
    recipe = resolve(load_recipe("demo", [*fixed, *overrides]))
    plan, store = build(recipe, ResolvedModel("m", root, "f" * 32)), Store(root / "store")
    for stage, mine in zip((s for s in plan.stages if s.kind == "score"), scores, strict=True):
        artefact = store.artefact(stage.kind, stage.key)
        write_rows(artefact.part(0), mine, ProblemScore)
        store.finish(artefact, {"config": {**stage.config, "mode": mode}, "metrics": {}})
    folder = RunFolder.create(root / "run", recipe)
    folder.write_plan(plan, store)
    return folder.path


BEFORE, AFTER = [1, 0, 0, 0, 0, 0, 1, 0, 0, 1], [0, 1, 1, 1, 1, 1, 1, 0, 1, 1]


def test_one_answer_a_problem_is_tested_exactly():
    found = paired(rows(BEFORE), rows(AFTER))
    assert found is not None
    assert (found.problems, found.first, found.second) == (10, 0.3, 0.8)
    assert found.difference == pytest.approx(0.5)
    assert found.only_first == ["p0"]
    assert found.only_second == ["p1", "p2", "p3", "p4", "p5", "p8"]
    assert found.p == mcnemar(1, 6) == pytest.approx(0.125)
    assert found.test == "McNemar, exact"
    assert found.low < 0.5 < found.high


def test_several_answers_a_problem_are_tested_by_bootstrap():
    found = paired(rows([0, 1, 2, 3] * 5, samples=4), rows([1, 2, 3, 3] * 5, samples=4))
    assert found is not None
    expected = paired_bootstrap([0, 0.25, 0.5, 0.75] * 5, [0.25, 0.5, 0.75, 0.75] * 5, seed=0)
    assert found.p == found.p_bootstrap == expected < 0.01
    assert len(found.only_second) == 15
    assert found.test == "paired bootstrap"
    mixed = paired(rows([1] * 8), rows([1] * 8, samples=4))
    assert mixed is not None and mixed.test == "paired bootstrap"


def test_only_the_same_problems_are_compared():
    found = paired(rows([1] * 6), rows([0] * 6, first=4))
    assert found is not None and found.only_first == ["p4", "p5"] and found.problems == 2
    assert paired(rows([1] * 6), rows([1] * 6, question="another?")) is None
    assert paired(rows([1] * 6), rows([1] * 6, answer="6")) is None


def test_models_of_one_run_and_of_two(tmp_path: Path):
    one = a_run(tmp_path / "one", [rows(BEFORE), rows(BEFORE), rows(AFTER)])
    two = a_run(tmp_path / "two", [rows(AFTER)])
    assert measured(str(one)).name == f"{one}@2"
    assert measured(str(two)).name == str(two)
    (row,) = compare(measured(f"{one}@0"), measured(str(one)))["comparisons"]
    assert (row["benchmark"], row["decoding"], row["difference"]) == ("sums", "greedy", pytest.approx(0.5))
    (row,) = compare(measured(f"{one}@1"), measured(str(two)))["comparisons"]
    assert row["difference"] == pytest.approx(0.5) and not row["settings_differ"]
    (row,) = compare(measured(f"{one}@2"), measured(str(two)))["comparisons"]
    assert row["difference"] == 0.0 and row["p"] == 1.0


def test_what_is_not_alike_is_said(tmp_path: Path):
    one = a_run(tmp_path / "one", [rows(BEFORE)])
    two = a_run(tmp_path / "two", [rows(AFTER[:8])], "evaluation.prompt=plain", "evaluation.max_tokens=77", mode="strict")
    shown = "\n".join(lines(compare(measured(str(one)), measured(str(two)))))
    assert "sums greedy: mode differs: lenient against strict" in shown
    assert "sampling.max_tokens differs: 96 against 77" in shown
    assert "prompt.style differs: chat against plain" in shown
    assert "compared on what both have; left out 2 of A and 0 of B" in shown


def test_columns_are_as_wide_as_the_longest_label(tmp_path: Path):
    benchmark = "word-problems-of-six-steps"
    one = a_run(tmp_path / "one", [rows(BEFORE), rows(AFTER)], benchmark=benchmark)
    head, row = lines(compare(measured(f"{one}@0"), measured(str(one))))[3:5]
    assert head.index("decoding") == row.index("greedy") == len(benchmark) + 1
    assert head.index("problems") + len("problems") == row.index(" 10") + len(" 10")


def test_the_words_follow_the_test(tmp_path: Path):
    one = a_run(tmp_path / "one", [rows([0] * 20), rows([1] * 6 + [0] * 14), rows([1] * 5 + [0] * 15)])

    def said(a: int, b: int) -> str:
        return lines(compare(measured(f"{one}@{a}"), measured(f"{one}@{b}")))[-1]

    assert said(0, 1) == "sums greedy: B is better (p = 0.031)"
    assert said(1, 0) == "sums greedy: A is better (p = 0.031)"
    assert said(0, 2) == "sums greedy: no difference shown (p = 0.062)"


@pytest.mark.parametrize(("second", "message"), [
    ("{one}@7", "has evaluated iterations 0, 1, not 7"), ("nowhere", "is not a run folder"),
    ("{one}@²", "has evaluated iterations 0, 1, not ²"), ("nowhere@1", "is not a run folder"),
    ("{other}", r"no benchmark with the same decoding in both \(.*sums greedy.*words greedy"),
    ("{unlike}", "sums: .* have no problem in common"), ("{broken}", "is not finished: ratchet resume"),
    ("{unstarted}", "has not been started: ratchet resume"), ("{bare}", "evaluates nothing: ratchet eval"),
])  # fmt: skip
def test_what_cannot_be_compared(tmp_path: Path, second: str, message: str):
    places = {
        "one": a_run(tmp_path / "one", [rows(BEFORE), rows(AFTER)]),
        "other": a_run(tmp_path / "other", [rows(BEFORE)], benchmark="words"),
        "unlike": a_run(tmp_path / "unlike", [rows(BEFORE, question="?")]),
        "broken": a_run(tmp_path / "broken", [rows(BEFORE)]),
        "bare": a_run(tmp_path / "bare", [], "iterations.count=1", "evaluation.benchmarks=[]"),
        "unstarted": RunFolder.create(tmp_path / "unstarted", load_recipe("demo")).path,
    }
    shutil.rmtree(tmp_path / "broken" / "store")
    with pytest.raises(InputError, match=message):
        compare(measured(str(places["one"])), measured(second.format(**places)))


def test_a_benchmark_by_name(tmp_path: Path):
    one = a_run(tmp_path / "one", [rows(BEFORE), rows(AFTER)])
    assert len(compare(measured(str(one)), measured(str(one)), "sums")["comparisons"]) == 1
    with pytest.raises(InputError, match="no benchmark gsm8k in both"):
        compare(measured(str(one)), measured(str(one)), "gsm8k")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    one = a_run(tmp_path / "one", [rows(BEFORE), rows(AFTER)])

    def ratchet(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ratchet", *arguments])
        with pytest.raises(SystemExit) as exit_:
            command_line.main()
        return (exit_.value.code or 0, *capsys.readouterr())  # type: ignore[return-value]

    code, out, _ = ratchet("compare", f"{one}@0", str(one))
    assert code == 0 and out.startswith(f"A: {one}@0\nB: {one}@1\n")
    header, row = out.splitlines()[3:5]
    assert header.split()[:5] == ["benchmark", "decoding", "problems", "A", "B"]
    assert row.split()[:6] == ["sums", "greedy", "10", "30.0%", "80.0%", "+50.0"]
    code, out, _ = ratchet("compare", f"{one}@0", str(one), "--json")
    assert code == 0 and json.loads(out)["comparisons"][0]["only_first"] == ["p0"]
    code, _, error = ratchet("compare", f"{one}@0", str(tmp_path))
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1
