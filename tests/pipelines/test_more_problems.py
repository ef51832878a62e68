"""Further sources of training problems, numeric variants and inverses: the stages that they are, and real runs of these."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from configs.errors import ConfigError
from configs.load import load_recipe
from configs.rows import Example, Problem, Row
from data_gen.variants import holds
from pipelines.cli import app
from pipelines.models import ResolvedModel
from pipelines.plan import Plan, build, resolve
from pipelines.runfolder import RunFolder
from pipelines.store import Store, read_rows

MODEL = ResolvedModel("m", Path("/nowhere"), "f" * 32)
HUMAN = ("selection.max_per_problem=0", "selection.include_human=true", "iterations.count=1")
EXTRA = "data.extra=[{source: procedural, limit: 5, seed: 4}, {source: procedural, limit: 6, seed: 5, levels: [2]}]"
PENS = "Ann number {i} in a long row of children has {a} red pens in her bag and buys {b} blue ones. How many pens has she now?"


def plan_of(*overrides: str) -> Plan:
    return build(resolve(load_recipe("demo", [*HUMAN, "data.fresh_per_iteration=false", *overrides])), MODEL)


def inputs(plan: Plan, label: str) -> dict[str, str]:
    found = next(s for s in plan.stages if s.label == label)
    return {name: s.label for name, s in found.inputs.items()}


def labels(plan: Plan) -> list[str]:
    return [s.label for s in plan.stages if s.label.startswith("problems/")]


def write_pens(path: Path, rows: list[tuple[int, int, int]]) -> Path:
    records = [
        {"id": f"pens{i}", "question": PENS.format(i=f"{'x' * i}", a=a, b=b), "answer": str(a + b),
         "solution": f"She has {a} + {b} = <<{a}+{b}={a + b}>>{a + b} pens.\n#### {a + b}"}
        for i, a, b in rows
    ]  # fmt: skip
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def run(recipe: Path, folder: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["run", str(recipe), "--run-dir", str(folder), *HUMAN, *options])


def rows_of(folder: Path, home: Path, label: str, row: type[Row]) -> list:
    stage = next(s for s in RunFolder(folder).plan()["stages"] if s["label"] == label)
    return read_rows(Store(home / "store").artefact(stage["kind"], stage["key"]), row)


def test_without_the_keys_nothing_is_planned():
    keys = [s.key for s in plan_of().stages]
    assert keys == [s.key for s in plan_of("data.variants=0", "data.inverses=0", "data.extra=[]").stages]
    assert labels(plan_of()) == ["problems/word-problems", "problems/train", "problems/clean"]


def test_extra_problems_are_decontaminated_and_variants_are_made_of_what_is_left():
    plan = plan_of("data.variants=2", EXTRA)
    assert labels(plan) == [
        "problems/word-problems", "problems/train", "problems/extra0", "problems/extra1", "problems/joined", "problems/clean",
        "problems/variants",
    ]  # fmt: skip
    assert inputs(plan, "problems/joined") == {f"{n}": f"problems/{n}" for n in ("train", "extra0", "extra1")}
    assert inputs(plan, "problems/clean") == {"train": "problems/joined", "eval0": "problems/word-problems"}
    assert inputs(plan, "problems/variants") == {"train": "problems/clean", "eval0": "problems/word-problems"}
    assert inputs(plan, "iteration1/select") == {"problems": "problems/variants"}


def test_validation_problems_are_neither_varied_nor_come_back_with_an_extra_source():
    held = plan_of("data.variants=2", EXTRA, "data.validation=9")
    for label in ("problems/clean", "problems/variants"):
        assert inputs(held, label)["validation"] == "problems/validation"
    assert inputs(held, "problems/validation") == {"train": "problems/train"}


def test_without_decontamination_variants_are_made_of_all():
    plan = plan_of("data.variants=2", EXTRA, "data.decontaminate=false")
    assert inputs(plan, "problems/variants") == {"train": "problems/joined"}
    assert inputs(plan_of("data.variants=2", "data.decontaminate=false"), "problems/variants") == {"train": "problems/train"}


def test_a_phase_may_have_them_and_another_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_pens(tmp_path / "own.jsonl", [(1, 13, 8)])
    monkeypatch.chdir(tmp_path)
    own = "{source: jsonl, path: own.jsonl}"
    plan = plan_of(
        "data.extra=[{source: procedural, limit: 5, seed: 4}]",
        f"phases=[{{name: a, data: {{variants: 3}}}}, {{name: b, data: {{extra: []}}}}, {{name: c, data: {{extra: [{own}]}}}}]",
    )
    found = {name: inputs(plan, f"{name}/select")["problems"] for name in "abc"}
    assert found == {"a": "problems/a-variants", "b": "problems/b-clean", "c": "problems/c-clean"}
    assert inputs(plan, "problems/a-variants")["train"] == "problems/clean"
    assert inputs(plan, "problems/b-clean")["train"] == "problems/train"
    assert inputs(plan, "problems/c-joined") == {"train": "problems/train", "extra0": "problems/c-extra0"}
    (settled,) = plan.recipe.phases[2].settings["data"]["extra"]
    assert settled["path"] == str(tmp_path / "own.jsonl"), "a resume may come from another folder"
    assert resolve(plan.recipe) == plan.recipe


def test_a_later_phase_has_variants_of_its_own():
    plan = plan_of("phases=[{name: a, data: {variants: 3}}, {name: b, data: {variants: 3, variants_from: 3}}]")
    a, b = (next(s for s in plan.stages if s.label == f"problems/{phase}-variants") for phase in "ab")
    assert (a.config["count"], "first" in a.config, b.config["first"]) == (3, False, 3)


def test_inverses_are_made_beside_variants_whose_artefact_stays():
    with_variants, both = plan_of("data.variants=2", EXTRA), plan_of("data.variants=2", "data.inverses=3", EXTRA)
    assert labels(both) == [*labels(with_variants), "problems/inverses"]
    keys = {s.label: s.key for s in both.stages}
    assert all(keys[s.label] == s.key for s in with_variants.stages if s.label.startswith("problems/"))
    assert inputs(both, "problems/inverses") == {"train": "problems/variants", "eval0": "problems/word-problems"}
    assert inputs(both, "iteration1/select") == {"problems": "problems/inverses"}
    alone = plan_of("data.inverses=3", "data.validation=9")
    assert inputs(alone, "problems/inverses") == {
        "train": "problems/clean", "eval0": "problems/word-problems", "validation": "problems/validation",
    }  # fmt: skip
    assert inputs(plan_of("data.inverses=3", "data.decontaminate=false"), "problems/inverses") == {"train": "problems/train"}


def test_a_phase_may_have_inverses_and_another_not():
    phases = "{name: a, data: {inverses: 2}}, {name: b, data: {inverses: 0}}, {name: c}, {name: d, data: {variants: 1}}"
    plan = plan_of("data.inverses=3", f"phases=[{phases}]")
    found = {name: inputs(plan, f"{name}/select")["problems"] for name in "abcd"}
    assert found == {"a": "problems/a-inverses", "b": "problems/clean", "c": "problems/inverses", "d": "problems/d-inverses"}
    assert inputs(plan, "problems/d-inverses")["train"] == "problems/d-variants"
    phases = "{name: a}, {name: b, data: {inverses: 0}}, {name: c, data: {variants: 0, inverses: 0}}"
    plan = plan_of("data.inverses=2", "data.variants=2", "data.solutions=equations", f"phases=[{phases}]")
    labels = [s.label for s in plan.stages]
    assert len(set(labels)) == len(labels), "each stage has a name of its own"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.variants=-1"], "data.variants"),
        (["data.inverses=-1"], "data.inverses"),
        (["data.inverses=2", "data.fresh_per_iteration=true"], "`fresh_per_iteration` takes slices of `train` alone"),
        (["data.variants_from=2"], "`variants_from` leaves out the first ones of `variants`"),
        (["data.variants=2", "data.fresh_per_iteration=true"], "`fresh_per_iteration` takes slices of `train` alone"),
        ([EXTRA, "data.fresh_per_iteration=true"], "`fresh_per_iteration` takes slices of `train` alone"),
        (["data.extra=[{source: validation}]", "data.validation=3"], "training must not see it"),
        (["data.extra=[{source: procedural}]"], "set `limit`"),
    ],
)
def test_what_does_not_go_together_is_refused(options: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        plan_of(*options)


def test_a_run_learns_from_variants_and_extra_problems(tiny_recipe: Callable[..., Path], home: Path, tmp_path: Path):
    own = write_pens(tmp_path / "own.jsonl", [(1, 13, 8), (2, 40, 25), (3, 9, 64)])
    evaluation = write_pens(tmp_path / "test.jsonl", [(3, 9, 65)])
    benchmark = f"evaluation.benchmarks=[{{name: pens, source: {{source: jsonl, path: {evaluation}}}}}]"
    recipe = tiny_recipe(f"data.train={{source: jsonl, path: {own}}}", benchmark, "data.variants=2", EXTRA)
    result = run(recipe, tmp_path / "run")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "4 variants of 2 of 13 problems" in result.output
    clean: list[Problem] = rows_of(tmp_path / "run", home, "problems/clean", Problem)
    assert [p.id for p in clean][:2] == ["pens1", "pens2"] and len(clean) == 13, "pens3 is in the evaluation set"
    problems: list[Problem] = rows_of(tmp_path / "run", home, "problems/variants", Problem)
    assert [p.id for p in problems][:6] == [f"pens{i}{v}" for i in (1, 2) for v in ("", "/variant/0", "/variant/1")]
    assert [p for p in problems if not p.parents] == clean
    assert all(holds(p) for p in problems[:6])
    examples: list[Example] = rows_of(tmp_path / "run", home, "iteration1/select", Example)
    assert {e.problem for e in examples} == {p.id for p in problems}, "all come with a solution"
    assert not any("<<" in e.text for e in examples)
    out = tmp_path / "out.jsonl"
    exported = CliRunner().invoke(app, ["export", str(tmp_path / "run"), "--what", "problems", "--to", str(out)])
    assert exported.exit_code == 0, (exported.output, exported.exception)
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [p.id for p in problems]


def test_a_run_learns_from_inverses_beside_variants(tiny_recipe: Callable[..., Path], home: Path, tmp_path: Path):
    own = write_pens(tmp_path / "own.jsonl", [(2, 13, 8), (3, 40, 25)])
    source = f"data.train={{source: jsonl, path: {own}}}"
    settings = (source, "data.variants=1", "data.inverses=2", "data.solutions=equations")
    result = run(tiny_recipe(*settings), tmp_path / "run")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "2 variants of 2 of 2 problems" in result.output and "4 inverses of 2 of 2 problems" in result.output
    problems: list[Problem] = rows_of(tmp_path / "run", home, "problems/inverses", Problem)
    assert [p.id for p in problems] == [
        f"pens{i}{made}" for i in (2, 3) for made in ("", "/inverse/0", "/inverse/1", "/variant/0")
    ]  # fmt: skip
    assert all(holds(p) for p in problems)
    assert {p.answer for p in problems if p.stage == "inverses"} == {"13", "8", "40", "25"}
    assert all("x" in p.question.split() for p in problems if p.stage == "inverses")
    examples: list[Example] = rows_of(tmp_path / "run", home, "iteration1/select", Example)
    learned = {e.problem: e.text for e in examples}
    assert set(learned) == {p.id for p in problems}
    assert {learned["pens3/inverse/0"], learned["pens3/inverse/1"]} == {"65 - 25 = 40\n#### 40", "65 - 40 = 25\n#### 25"}


def test_inverses_like_an_evaluation_problem_are_dropped(tiny_recipe: Callable[..., Path], home: Path, tmp_path: Path):
    own = write_pens(tmp_path / "own.jsonl", [(2, 13, 8), (3, 40, 25)])
    asked = PENS.format(i="xx", a="x", b=8) + " If the answer to this question is 21, what is the value of x?"
    (tmp_path / "test.jsonl").write_text(json.dumps({"id": "asked", "question": asked, "answer": "13"}) + "\n")
    benchmark = f"evaluation.benchmarks=[{{name: pens, source: {{source: jsonl, path: {tmp_path / 'test.jsonl'}}}}}]"
    settings = (f"data.train={{source: jsonl, path: {own}}}", benchmark, "data.inverses=2", "data.lcs_ratio=0.99")
    assert run(tiny_recipe(*settings), tmp_path / "run").exit_code == 0
    (folder,) = [p.parent for p in home.glob("store/inverses/*/manifest.json")]
    metrics = json.loads((folder / "manifest.json").read_text())["metrics"]
    assert metrics == {"problems": 2, "inverted": 2, "inverses": 3, "dropped": 1}
    (dropped,) = json.loads((folder / "dropped-00000.json").read_text())
    assert dropped["evaluation"] == "asked" and dropped["problem"].startswith("pens2/inverse/")
    rows: list[Problem] = rows_of(tmp_path / "run", home, "problems/inverses", Problem)
    assert len(rows) == 5 and asked not in {p.question for p in rows}


def test_a_run_learns_equations(tiny_recipe: Callable[..., Path], home: Path, tmp_path: Path):
    own = write_pens(tmp_path / "own.jsonl", [(1, 13, 8), (2, 40, 25)])
    source = f"data.train={{source: jsonl, path: {own}}}"
    result = run(tiny_recipe(source, "data.variants=1", EXTRA, "data.solutions=equations"), tmp_path / "run")
    assert result.exit_code == 0, (result.output, result.exception)
    problems: list[Problem] = rows_of(tmp_path / "run", home, "problems/equations", Problem)
    assert f"{len(problems)} solutions of {len(problems)} problems as equations" in result.output
    examples: list[Example] = rows_of(tmp_path / "run", home, "iteration1/select", Example)
    assert {e.problem for e in examples} == {p.id for p in problems}
    assert all(re.fullmatch(r"(\d+ [-+*/] \d+ = \d+\n)+#### \d+", e.text) for e in examples)


def test_variants_like_an_evaluation_problem_are_dropped(tiny_recipe: Callable[..., Path], home: Path, tmp_path: Path):
    """With a high threshold the original is unlike the evaluation problem, and its variant with the same number is not."""
    question = "Each of the many quiet children in the very long row before our house has {n} pens. How many have 2 of them?"
    solution = "They have 2 * {n} = <<2*{n}={m}>>{m} pens.\n#### {m}"

    def write(name: str, n: int) -> Path:
        record = {"id": name, "question": question.format(n=n), "answer": str(2 * n), "solution": solution.format(n=n, m=2 * n)}
        (tmp_path / name).write_text(json.dumps(record) + "\n")
        return tmp_path / name

    train, test = write("train.jsonl", 3), write("test.jsonl", 4)
    benchmark = f"evaluation.benchmarks=[{{name: pens, source: {{source: jsonl, path: {test}}}}}]"
    recipe = tiny_recipe(f"data.train={{source: jsonl, path: {train}}}", benchmark, "data.variants=9", "data.lcs_ratio=0.99")
    assert run(recipe, tmp_path / "run").exit_code == 0
    (manifest,) = [json.loads(p.read_text()) for p in home.glob("store/variants/*/manifest.json")]
    assert manifest["metrics"]["dropped"] == 1
    rows: list[Problem] = rows_of(tmp_path / "run", home, "problems/variants", Problem)
    assert len(rows) == manifest["rows"] == 1 + manifest["metrics"]["variants"] > 1
    assert question.format(n=4) not in {p.question for p in rows}


def test_ids_that_collide_are_an_error_with_the_key(tiny_recipe: Callable[..., Path], home: Path, tmp_path: Path):
    own = write_pens(tmp_path / "own.jsonl", [(1, 13, 8), (2, 40, 25)])
    other = write_pens(tmp_path / "other.jsonl", [(2, 6, 5)])
    extra = f"data.extra=[{{source: procedural, limit: 2}}, {{source: jsonl, path: {other}}}]"
    recipe = tiny_recipe(f"data.train={{source: jsonl, path: {own}}}", "evaluation.benchmarks=[]", extra)
    result = run(recipe, tmp_path / "run")
    assert result.exit_code == 1
    assert "data.extra.1: its problem pens2 has the id of one of data.train" in str(result.exception)
    own.write_text(own.read_text().replace('"pens2"', '"pens1/variant/0"'))
    recipe = tiny_recipe(f"data.train={{source: jsonl, path: {own}}}", "evaluation.benchmarks=[]", "data.variants=1")
    result = run(recipe, tmp_path / "again")
    assert result.exit_code == 1 and "has a variant's id, pens1/variant/0" in str(result.exception)
    own = write_pens(tmp_path / "more.jsonl", [(2, 13, 8), (3, 40, 25)])
    own.write_text(own.read_text().replace('"pens3"', '"pens2/inverse/0"'))
    recipe = tiny_recipe(f"data.train={{source: jsonl, path: {own}}}", "evaluation.benchmarks=[]", "data.inverses=1")
    result = run(recipe, tmp_path / "inverses")
    assert result.exit_code == 1 and "has an inverse's id, pens2/inverse/0" in str(result.exception)
