from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.load import load_recipe
from configs.rows import Problem, ProblemScore
from configs.schema import Recipe
from data_gen.problems import load_problems
from pipelines.memorisation import compare, comparisons, memorisation, report
from pipelines.models import ResolvedModel
from pipelines.plan import Plan, build, resolve
from pipelines.probe import VARIANTS, probe_recipe
from pipelines.runfolder import RunFolder
from pipelines.statistics import wilson
from pipelines.store import Store, write_rows
from tests.conftest import TinyRun
from tests.pipelines.helpers import ratchet

MODEL = ResolvedModel("m", Path("/nowhere"), "f" * 32)


def answers(*right: int) -> dict[str, bool]:
    return {str(i): bool(r) for i, r in enumerate(right)}


# --- the figures ----------------------------------------------------------------------------------


def test_the_score_by_hand():
    """Ten puzzles, eight solved, two of these in the perturbed version too: 0.8 (1 - 2/8) = 0.6."""
    before = answers(1, 1, 1, 1, 1, 1, 1, 1, 0, 0)
    after = answers(1, 1, 0, 0, 0, 0, 0, 0, 1, 0)
    figures = compare(before, after)
    assert (figures["solved"], figures["consistent"], figures["n"]) == (8, 2, 10)
    assert figures["accuracy"] == 0.8
    assert figures["consistency_ratio"] == 0.25
    assert figures["score"] == pytest.approx(0.8 * (1 - 0.25))
    assert figures["perturbed_accuracy"] == 0.3
    assert figures["accuracy_interval"] == wilson(8, 10)
    assert figures["perturbed_accuracy_interval"] == wilson(3, 10)
    assert figures["consistency_ratio_interval"] == wilson(2, 8)


@pytest.mark.parametrize(
    ("before", "after", "ratio", "score"),
    [
        (answers(1, 1, 1, 1), answers(0, 0, 0, 0), 0.0, 1.0),  # all by heart
        (answers(1, 1, 1, 1), answers(1, 1, 1, 1), 1.0, 0.0),  # all by reasoning
        (answers(0, 0), answers(1, 0), None, 0.0),  # nothing solved: no ratio, no score
    ],
)
def test_the_ends_of_the_scale(before, after, ratio, score):
    figures = compare(before, after)
    assert figures["consistency_ratio"] == ratio
    assert figures["score"] == score
    assert figures["score_interval"] == wilson(round(len(before) * score), len(before))


def test_the_pairing_is_by_original_and_not_by_place():
    before, after = answers(1, 0), dict(reversed(answers(1, 0).items()))
    assert compare(before, after)["consistent"] == 1


def test_the_interval_of_the_score_holds_what_it_promises():
    """Of many samples of a population with score 0.3, about 95 % have it in their interval; narrow ones at that."""
    rng = random.Random(7)
    held = widths = 0.0
    rounds, n = 300, 80
    for _ in range(rounds):
        draws = [rng.random() for _ in range(n)]  # below 0.3: original only; to 0.6: both; above: none
        figures = compare({str(i): d < 0.6 for i, d in enumerate(draws)},
                          {str(i): 0.3 <= d < 0.6 for i, d in enumerate(draws)})  # fmt: skip
        low, high = figures["score_interval"]
        held += low <= 0.3 <= high
        widths += high - low
    assert 0.90 <= held / rounds <= 0.99
    assert widths / rounds == pytest.approx(2 * 1.96 * (0.3 * 0.7 / n) ** 0.5, rel=0.1)


# --- the recipe of a probe ------------------------------------------------------------------------


@pytest.fixture
def knights_run(tmp_path: Path) -> Callable[..., str]:
    """A function: overrides in, the folder of a run on Knights and Knaves out (begun, not trained)."""
    count = itertools.count()

    def make(*overrides: str) -> str:
        folder = tmp_path / f"knights{next(count)}"
        RunFolder.create(folder, load_recipe("knights_demo", overrides))
        return str(folder)

    return make


def sources(recipe: Recipe) -> dict[str, dict[str, object]]:
    return {b.name: b.source.settings() for b in recipe.evaluation.benchmarks}


def test_without_a_run_the_flags_say_what_was_seen():
    recipe = probe_recipe("some/model", people="2,3", seed=4, limit=7, variants="order,leaf")
    shown = sources(recipe)
    assert list(shown) == ["seen", "seen-order", "seen-leaf", "new", "new-order", "new-leaf"]
    assert shown["seen"] == {
        "source": "knights", "split": "train", "limit": 7, "offset": 0, "seed": 4, "people": [2, 3],
    }  # fmt: skip
    assert shown["new-leaf"] == {**shown["seen"], "split": "test", "variant": "leaf"}
    assert recipe.iterations.count == 0
    assert recipe.name == "probe-model"
    assert len(probe_recipe("some/model").evaluation.benchmarks) == 2 * (1 + len(VARIANTS))


def test_the_training_puzzles_of_a_run_are_the_seen_ones(knights_run: Callable[..., str]):
    run = knights_run("data.prompt.system=Think.", "data.train.limit=50", "data.train.seed=9", "data.train.offset=3")
    seen = {"source": "knights", "split": "train", "limit": 50, "offset": 3, "seed": 9, "people": [2]}
    for recipe in (probe_recipe(run), probe_recipe("some/model", trained=run), probe_recipe(f"{run}@1")):
        assert sources(recipe)["seen"] == seen
        assert sources(recipe)["new"] == {**seen, "split": "test", "offset": 0}
        assert recipe.data.prompt.system == "Think."
    assert probe_recipe("some/model", trained=run).model.name == "some/model"
    assert probe_recipe(run).model.name == probe_recipe(f"{run}@1").model.name == f"{run}@1"
    assert probe_recipe(f"{run}@0").model.name == "bundled:smollm2-135m-instruct"
    assert sources(probe_recipe(run, limit=20))["seen"] == {**seen, "limit": 20}


PHASES = (
    "phases=[{name: facts, data: {train: {source: knights, limit: 20, seed: 5, people: [3]}}}, "
    "{name: rft, data: {train: {source: knights, limit: 30, seed: 6, people: [2]}, fresh_per_iteration: true}, "
    "iterations: {count: 2}}, {name: sums, data: {train: {source: procedural, limit: 9}}}]"
)


@pytest.mark.parametrize(
    ("wanted", "seed", "limit", "number"),
    [("1", 5, 20, 1), ("facts", 5, 20, 1), ("rft1", 6, 15, 2), ("3", 6, 30, 3), ("sums", 6, 30, 4), (None, 6, 30, 4)],
)
def test_of_several_phases_the_last_one_on_puzzles_counts(
    knights_run: Callable[..., str], wanted: str | None, seed: int, limit: int, number: int
):
    run = knights_run("data.train={source: procedural, limit: 9}", PHASES)
    recipe = probe_recipe(f"{run}@{wanted}" if wanted else run)
    seen = sources(recipe)["seen"]
    assert (seen["seed"], seen["limit"]) == (seed, limit)
    assert recipe.model.name == f"{run}@{number}"
    assert (recipe.phases, recipe.iterations.count) == ([], 0)
    with pytest.raises(ConfigError, match="of facts, rft1, rft2, sums"):
        probe_recipe(f"{run}@rft3")
    late = knights_run("data.train={source: procedural, limit: 9}", "phases=[{name: sums}, {name: facts, data: {train: "
                       "{source: knights, limit: 20}}}]")  # fmt: skip
    with pytest.raises(ConfigError, match="was trained on procedural, not on knights, up to iteration 1"):
        probe_recipe("m", trained=f"{late}@sums")


@pytest.mark.parametrize(
    ("scheme", "iteration", "offset", "limit"),
    [("iterative_rft", 1, 5, 10), ("iterative_rft", 2, 5, 20), ("rest_em", 2, 15, 10), ("iterative_rft", 0, 5, 30)],
)
def test_with_fresh_problems_only_those_of_past_iterations_were_seen(
    knights_run: Callable[..., str], scheme: str, iteration: int, offset: int, limit: int
):
    fresh = ("data.fresh_per_iteration=true", "iterations.count=3", "data.train.limit=30", "data.train.offset=5")
    shown = sources(probe_recipe(knights_run(*fresh, f"iterations.scheme={scheme}"), iteration=iteration))["seen"]
    assert (shown["offset"], shown["limit"]) == (offset, limit)


def test_what_cannot_be_probed_is_refused(knights_run: Callable[..., str], tiny_run: TinyRun, tmp_path: Path):
    run, other = knights_run(), str(tiny_run.folder)
    for arguments, message in (
        ({"model": run, "people": "2"}, "those of .* are known"),
        ({"model": run, "seed": 2}, "those of .* are known"),
        ({"model": "m", "trained": str(tmp_path)}, "is not a run folder"),
        ({"model": "m", "trained": other}, "was trained on jsonl, not on knights"),
        ({"model": knights_run("data.train.variant=names")}, "trained on variants"),
        ({"model": knights_run("data.validation=20")}, "holds some of its puzzles out .data.validation=20."),
        ({"model": "m", "trained": f"{run}@2"}, "has iterations 1 to 1, not 2"),
        ({"model": f"{run}@1", "iteration": 1}, "give one number"), ({"model": f"{run}@²"}, "give one number"),
        ({"model": "m", "iteration": 1}, "--iteration needs a run folder"),
        ({"model": "m", "variants": "leaf,leaves"}, "unknown `leaves`; there are: leaf, statement"),
        ({"model": "m", "people": "two"}, "--people: expected numbers"),
        ({"model": "m", "people": "9"}, "evaluation.benchmarks.0.source.people.0"),
        ({"model": "m", "overrides": ["sampling.temprature=1"]}, "did you mean"),
    ):
        given: dict[str, Any] = arguments
        with pytest.raises(ConfigError, match=message):
            probe_recipe(**given)


def test_a_run_on_other_problems_is_probed_with_puzzles_it_has_not_seen(tiny_run: TinyRun):
    recipe = probe_recipe(str(tiny_run.folder), people="2", limit=3)
    assert sources(recipe)["seen"]["seed"] == 0
    assert recipe.sampling.max_tokens == 32  # the run's own setting


def test_versions_are_found_by_what_they_are_and_not_by_name(knights_run: Callable[..., str]):
    pairs = comparisons(probe_recipe(knights_run(), variants="leaf,names"))
    assert pairs == [("seen", "seen-leaf", "leaf"), ("seen", "seen-names", "names"),
                     ("new", "new-leaf", "leaf"), ("new", "new-names", "names")]  # fmt: skip
    source = "{source: knights, limit: 4, split: test, seed: 1"
    benchmarks = f"[{{name: a, source: {source}, variant: leaf}}}}, {{name: b, source: {source}}}}}, " \
                 f"{{name: c, source: {source}, width: 3, variant: leaf}}}}]"  # fmt: skip
    assert comparisons(load_recipe("demo", [f"evaluation.benchmarks={benchmarks}"])) == [("b", "a", "leaf")]
    assert comparisons(load_recipe("demo")) == []


# --- the report -----------------------------------------------------------------------------------


def answered(plan: Plan, store: Store, right: Callable[[str, int], bool]) -> None:
    """Finished problems and score stages, in which problem i of a benchmark is right as `right(benchmark, i)` says."""
    for stage in plan.stages:
        artefact = store.artefact(stage.kind, stage.key)
        if stage.kind == "problems":
            rows = load_problems(**{k: v for k, v in stage.config.items() if v is not None})
            write_rows(artefact.part(0), rows, Problem)
            store.finish(artefact, {"metrics": {}})
    for stage in (s for s in plan.stages if s.kind == "score"):
        artefact, name = store.artefact(stage.kind, stage.key), stage.label.split("/")[1]
        benchmark = next(b for b in plan.recipe.evaluation.benchmarks if b.name == name)
        problems = load_problems(**benchmark.source.settings())
        rows = [
            ProblemScore(id=f"{p.id}/score", parents=[], stage="score", problem=p.id, question="", answer="", samples=1,
                         correct=int(right(name, i)), extracted=None, outcome="", text="")
            for i, p in enumerate(problems)
        ]
        write_rows(artefact.part(0), rows[::-1], ProblemScore)
        store.finish(artefact, {"metrics": {}})


def probed(tmp_path: Path, right: Callable[[str, int], bool]) -> tuple[Plan, Store]:
    plan = build(resolve(probe_recipe("m", limit=10, people="3", variants="leaf,roles")), MODEL)
    store = Store(tmp_path / "store")
    answered(plan, store, right)
    return plan, store


def test_the_report_of_a_model_that_knows_the_training_puzzles_by_heart(tmp_path: Path):
    solved = {"seen": 9, "seen-leaf": 2, "seen-roles": 9, "new": 4, "new-leaf": 4, "new-roles": 0}
    plan, store = probed(tmp_path, lambda name, i: i < solved[name])
    (tmp_path / "run").mkdir()
    lines = report(plan, store, tmp_path / "run")
    written = json.loads((tmp_path / "run" / "memorisation.json").read_text())
    figures = {(r["puzzles"], r["variant"]): (r["accuracy"], r["consistency_ratio"], r["score"]) for r in written["rows"]}
    assert figures == {
        ("seen", "leaf"): (0.9, 2 / 9, 0.7), ("seen", "roles"): (0.9, 1.0, 0.0),
        ("new", "leaf"): (0.4, 1.0, 0.0), ("new", "roles"): (0.4, 0.0, 0.4),
    }  # fmt: skip
    assert written["rows"] == json.loads(json.dumps(memorisation(plan, store)))
    assert written["puzzles"]["seen-leaf"]["variant"] == "leaf"
    page = (tmp_path / "run" / "memorisation.md").read_text()
    assert "| initial | seen | 10 | 90.0% [59.6%, 98.2%] | leaf | 20.0% [" in page
    row = next(line for line in lines if " seen " in line and " leaf " in line)
    assert "22.2% [" in row and "0.700 [" in row
    assert lines[-1] == f"written: {tmp_path}/run/memorisation.json and .md"


def test_a_model_that_solves_nothing_has_no_ratio(tmp_path: Path):
    plan, store = probed(tmp_path, lambda name, i: False)
    (tmp_path / "run").mkdir()
    assert sum("none solved" in line for line in report(plan, store, tmp_path / "run")) == 4


def test_a_run_without_versions_writes_nothing(tiny_run: TinyRun, tmp_path: Path):
    plan = build(resolve(RunFolder.existing(tiny_run.folder).recipe()), MODEL)
    assert report(plan, Store(tmp_path / "store"), tmp_path) == []
    assert not list(tmp_path.glob("memorisation*")) and not list(tiny_run.folder.glob("memorisation*"))


def test_models_that_are_not_measured_on_the_versions_have_no_score(knights_run: Callable[..., str], tmp_path: Path):
    """Benchmarks with `when: end` are for the initial and the last model."""
    source = "source: {source: knights, split: test, limit: 4, people: [3]"
    benchmarks = f"evaluation.benchmarks=[{{name: new, {source}}}}}, {{name: version, when: end, {source}, variant: leaf}}}}]"
    recipe = RunFolder.existing(Path(knights_run(benchmarks, "iterations.count=3"))).recipe()
    plan, store = build(resolve(recipe), MODEL), Store(tmp_path / "store")
    answered(plan, store, lambda name, i: name == "new" and i < 3)
    assert [(r["model"], r["accuracy"], r["score"]) for r in memorisation(plan, store)] == [
        ("initial", 0.75, 0.75), ("iteration3", 0.75, 0.75),
    ]  # fmt: skip


# --- as a user runs it ----------------------------------------------------------------------------


def test_train_probe_and_resume(tiny_model: Path, tmp_path: Path):
    """A run on puzzles, the probe of what it trained, and the probe again after its report is gone."""
    home = tmp_path / "home"
    small = (
        f"model.name={tiny_model}", "model.dtype=float32", "data.train.limit=4", "training.epochs=1", "training.adapter=full",
        "sampling.max_tokens=2", "evaluation.max_tokens=6", "executor.threads=1", "evaluation.benchmarks.0.source.limit=3",
    )
    ratchet("run", "knights_demo", *small, "--run-dir", "run", home=home, cwd=tmp_path)
    start = ("--iteration", "0", "--variants", "leaf", "--limit", "3")
    assert "initial  seen " in ratchet("probe", "run", *start, "--run-dir", "start", home=home, cwd=tmp_path).stdout
    shown = ratchet("probe", "run", "--variants", "leaf,names", "--limit", "3", "--run-dir", "probe", home=home, cwd=tmp_path)
    assert "memorisation score" in shown.stdout and "run@1  seen " in shown.stdout
    first = json.loads((tmp_path / "probe" / "memorisation.json").read_text())
    assert [(r["puzzles"], r["variant"], r["n"]) for r in first["rows"]] == [
        ("seen", "leaf", 3), ("seen", "names", 3), ("new", "leaf", 3), ("new", "names", 3),
    ]  # fmt: skip
    (tmp_path / "probe" / "memorisation.json").unlink()
    again = ratchet("resume", "probe", home=home, cwd=tmp_path)
    assert again.stdout.count("(cached)") == 24
    assert json.loads((tmp_path / "probe" / "memorisation.json").read_text()) == first
    refused = ratchet("probe", "run", "--people", "2", home=home, cwd=tmp_path, check=False)
    assert refused.returncode == 2 and "those of run are known" in refused.stderr
