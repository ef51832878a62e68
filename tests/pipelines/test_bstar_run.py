"""Three iterations of B-STaR on the tiny model: what they leave, and that a kill in the third changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from configs.rows import Example, Sample, Score
from pipelines.runfolder import RunFolder
from pipelines.store import read_rows
from rewards.shaping import combined_reward
from tests.conftest import TinyRun
from tests.pipelines.bstar_world import artefact_of, bstar_recipe, choice
from tests.pipelines.helpers import COMMAND, assert_same, contents, environment, ratchet


@pytest.fixture(scope="module")
def run(tiny_model: Path, tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a scorer; its folder (its home beside it)."""
    root = tmp_path_factory.mktemp("bstar")
    recipe = bstar_recipe(root / "bstar.yaml", tiny_model, tiny_run, "balance.scorer=confidence")
    ratchet("run", str(recipe), "--run-dir", "run", home=root / "home", cwd=root)
    return root / "run"


def test_each_iteration_samples_at_the_temperature_that_its_sweep_chose(run: Path):
    for i in (1, 2, 3):
        found = choice(run, f"iteration{i}/sweep3/balance")
        samples: list[Sample] = read_rows(artefact_of(run, f"iteration{i}/sample"), Sample)
        assert {s.temperature for s in samples} == {found["point"]["temperature"]}
        assert artefact_of(run, f"iteration{i}/sample").manifest()["config"]["temperature"] is None
        assert choice(run, f"iteration{i}/select")["point"]["threshold"] == found["point"]["threshold"]
        assert found["used"] <= found["grid"] * 0.5


def test_a_dropped_temperature_is_drawn_no_more(run: Path):
    before = choice(run, "iteration1/sweep1/balance")
    assert before["dropped"], "four temperatures and half of the grid's samples"
    later: list[Sample] = read_rows(artefact_of(run, "iteration1/sweep2"), Sample)
    assert {s.temperature for s in later} == set(before["alive"])
    first: list[Sample] = read_rows(artefact_of(run, "iteration1/sweep1"), Sample)
    assert {s.temperature for s in first} == {0.1, 0.5, 1.0, 1.5}
    assert not {s.problem for s in first} & {s.problem for s in later}, "every round has problems of its own"
    assert len({s.id for s in first}) == len(first)


def test_all_temperatures_draw_with_the_same_seeds(run: Path):
    seeds: dict[float, list[int]] = {}
    samples: list[Sample] = read_rows(artefact_of(run, "iteration1/sweep1"), Sample)
    for s in sorted(samples, key=lambda s: (s.problem, s.id)):
        seeds.setdefault(s.temperature, []).append(s.seed)
    assert len({tuple(v) for v in seeds.values()}) == 1
    assert len(set(seeds[0.1])) == len(seeds[0.1])


def test_the_surface_is_kept_and_drawn(run: Path):
    folder = artefact_of(run, "iteration2/sweep3/balance").path
    surface = json.loads((folder / "surface.json").read_text())
    assert [t["temperature"] for t in surface["temperatures"]] == [0.1, 0.5, 1.0, 1.5]
    shape = [[len(row) for row in t["score"]] for t in surface["temperatures"]]
    assert shape == [[6] * 3] * 4, "thresholds by caps"
    best = max(t["score"][i][5] for t in surface["temperatures"] if t["queries"] == 12 for i in range(3))
    assert best == pytest.approx(surface["point"]["score"], abs=1e-6)
    picture = (folder / "surface.svg").read_text()
    assert picture.startswith("<svg") and picture.count("<rect") == 1 + 4 * 3


def test_the_examples_are_those_above_the_threshold(run: Path):
    for i in (1, 2, 3):
        point = choice(run, f"iteration{i}/select")["point"]
        examples: list[Example] = read_rows(artefact_of(run, f"iteration{i}/select"), Example)
        scores = {s.sample: s.value for s in read_rows(artefact_of(run, f"iteration{i}/score"), Score)}
        verdicts = {v["sample"]: v for v in _rows(run, f"iteration{i}/verify")}
        rewards = {s: float(v["outcome"] == "correct") + scores[s] for s, v in verdicts.items()}
        assert len(examples) == point["selected"] > 0
        assert all(rewards[e.parents[0]] > point["threshold"] for e in examples)


def test_every_iteration_leaves_metrics_and_samples_of_what_was_kept_and_dropped(run: Path):
    metrics = RunFolder(run).read_metrics()
    for i in (1, 2, 3):
        m = metrics[f"iteration{i}/exploration"]
        wanted = "accuracy pass@4 pass@4-2 reward@4-2 score@4-2 unique_correct selected wrong_share"
        assert set(wanted.split()) <= set(m)
        assert metrics[f"iteration{i}/words/sampled/exploration"]["samples"] == 8 * 4
        folder = artefact_of(run, f"iteration{i}/exploration").path
        kept, dropped = (json.loads((folder / f"{n}.json").read_text()) for n in ("kept", "dropped"))
        assert 0 < len(kept) <= 5 and 0 < len(dropped) <= 5
        examples: list[Example] = read_rows(artefact_of(run, f"iteration{i}/select"), Example)
        chosen = {e.parents[0] for e in examples}
        assert {k["sample"] for k in kept} <= chosen and not {d["sample"] for d in dropped} & chosen
        content = json.loads((folder / "exploration.json").read_text())
        assert content["overall"]["pass@4"]["low"] <= content["overall"]["pass@4"]["mean"]


def test_the_training_goes_on_where_the_last_iteration_left_it(run: Path):
    rates = []
    for i in (1, 2, 3):
        folder = artefact_of(run, f"iteration{i}/train").path
        assert [p.name for p in (folder / "state").iterdir()] == [f"checkpoint-{4 * i}"]
        rates += [json.loads(line)["learning_rate"] for line in (folder / "train.jsonl").read_text().splitlines()]
    assert len(rates) == 12 and rates[0] == 0.5e-3, "warm-up over 2 of 12 steps"
    assert rates[1:] == sorted(rates[1:], reverse=True) and rates[1] == 1e-3, "one cosine over all iterations"


def test_a_process_reward_model_of_the_run_scores_sweep_and_selection(
    tiny_model: Path, tiny_run: TinyRun, tmp_path: Path
) -> None:
    """The reward is 1[correct] + the lowest raw step score / 5, in the sweep's choice and in what is selected."""
    recipe = bstar_recipe(
        tmp_path / "scored.yaml", tiny_model, tiny_run, "balance.scorer=reward_model", "balance.score_scale=5",
        "reward_model={kind: process, validation_fraction: 0.0, epochs: 1}", "rollouts={n: 2, best_of: 2}",
        "sampling.temperature=0.1", "iterations.count=2",
    )  # fmt: skip
    ratchet("run", str(recipe), "--run-dir", "run", home=tmp_path / "home", cwd=tmp_path)
    run = tmp_path / "run"
    model = artefact_of(run, "iteration1/reward_train").key
    for i in (1, 2):
        point = choice(run, f"iteration{i}/select")["point"]
        assert point["threshold"] == choice(run, f"iteration{i}/sweep3/balance")["point"]["threshold"]
        rows: list[Score] = read_rows(artefact_of(run, f"iteration{i}/reward_score"), Score)
        assert rows and {r.reward_model for r in rows} == {model} and all(r.steps for r in rows)
        right = {v["sample"]: v["outcome"] == "correct" for v in _rows(run, f"iteration{i}/verify")}
        examples: list[Example] = read_rows(artefact_of(run, f"iteration{i}/select"), Example)
        rewards = {r.sample: combined_reward(right[r.sample], r.steps, clamp=True) for r in rows}
        assert len(examples) == point["selected"] > 0
        assert all(rewards[e.parents[0]] > point["threshold"] for e in examples)
        assert {"score@4-2", "reward@4-2"} <= set(RunFolder(run).read_metrics()[f"iteration{i}/exploration"])
    assert "score@4-2" in RunFolder(run).read_metrics()["initial/words/sampled/exploration"]


@pytest.mark.slow
def test_a_kill_in_the_third_iteration_changes_nothing(run: Path, tmp_path: Path):
    """Killed in its sweep, its selection or its training, and resumed: same choices, same data, same weights."""
    expected = contents(run.parent / "home")
    for number, stage in enumerate(("iteration3/sweep2", "iteration3/train")):
        home, folder = tmp_path / f"home{number}", tmp_path / f"run{number}"
        started = [*COMMAND, "run", str(run.parent / "bstar.yaml"), "--run-dir", str(folder)]
        process = subprocess.Popen(
            started, env=environment(home), cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )
        while process.poll() is None and not _started(folder, stage):
            time.sleep(0.01)
        time.sleep(0.1)
        assert process.poll() is None, "killed while it worked"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        ratchet("resume", str(folder), home=home, cwd=tmp_path)
        assert_same(expected, contents(home))


def _started(folder: Path, stage: str) -> bool:
    log = folder / "events.jsonl"
    return log.exists() and f'"started", "stage": "{stage}"' in log.read_text()


def _rows(run: Path, label: str) -> list[dict[str, object]]:
    import pyarrow.parquet as pq

    return [r for p in sorted(artefact_of(run, label).path.glob("part-*.parquet")) for r in pq.read_table(p).to_pylist()]
