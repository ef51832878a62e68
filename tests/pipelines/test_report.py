"""Reports of real tiny runs and of hand-made ones: true figures, valid and harmless HTML, nothing that is not there."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import InputError
from configs.rows import Example, Pair, Problem, ProblemScore, Sample, Step, VerdictRow
from pipelines.live import Live, write_live
from pipelines.report import write_report
from pipelines.report.cost import by_work
from pipelines.report.record import RunRecord
from pipelines.report.samples import choose
from pipelines.runfolder import RunFolder
from pipelines.statistics import paired_difference
from tests.conftest import TinyRun
from tests.pipelines.bstar_world import bstar_recipe, choice
from tests.pipelines.helpers import ratchet
from tests.pipelines.report_world import HTML, SVG, HandMadeRun, cells, outside, parsed, section, texts

HOSTILE = "</pre></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`&lt;b>\x00\u202e\x1b[2J{{7*7}}]]>"


@pytest.fixture(scope="module")
def html(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of the tiny run."""
    return write_report([tiny_run.folder], tmp_path_factory.mktemp("report") / "r.html").read_text()


@pytest.fixture(scope="module")
def tree(html: str) -> Any:
    return parsed(html)


def stage_rows(run: TinyRun, label: str) -> list[dict[str, Any]]:
    """Rows of a stage, read independently."""
    stage = next(s for s in RunFolder(run.folder).plan()["stages"] if s["label"] == label)
    return [r for p in sorted((run.store / stage["kind"] / stage["key"]).glob("part-*")) for r in pq.read_table(p).to_pylist()]


def active(tree: Any) -> list[str]:
    """Elements with handlers or styles of their own."""
    return [e.tag for e in tree.iter() if isinstance(e.tag, str) and any(a.startswith("on") or a == "style" for a in e.attrib)]


def test_the_page_is_valid_and_asks_for_nothing(html: str, tree: Any) -> None:
    assert outside(tree) == []
    assert "http:" not in html.replace("http-equiv", "") and "https:" not in html
    assert len(html) < 1_000_000
    scripts = [texts(s) for s in tree.iter(f"{HTML}script")]
    (style,) = (texts(s) for s in tree.iter(f"{HTML}style"))
    policy = next(m.get("content") for m in tree.iter(f"{HTML}meta") if m.get("http-equiv") == "Content-Security-Policy")
    for text in (*scripts, style):  # the browser runs what has this hash, and only that
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    assert len(scripts) == 1 and "default-src 'none'" in policy and "unsafe" not in policy
    assert active(tree) == []


def test_every_entry_of_the_contents_leads_somewhere_and_figures_have_titles(tree: Any) -> None:
    ids = Counter(e.get("id") for e in tree.iter() if e.get("id"))
    assert max(ids.values()) == 1
    links = [a.get("href").removeprefix("#") for a in tree.iter(f"{HTML}a")]
    assert len(links) > 5 and set(links) <= set(ids)
    assert {"accuracy", "data", "training", "cost", "samples", "settings"} <= set(ids)
    assert not {"exploration", "values", "rewards"} & set(ids), "sections without data are left out"
    charts = [s for s in tree.iter(f"{SVG}svg") if s.get("aria-hidden") is None]
    assert charts and all(c.get("role") == "img" and c.get("aria-label") for c in charts)


def test_accuracies_and_gains_are_those_of_the_rows(tiny_run: TinyRun, tree: Any) -> None:
    metrics = RunFolder(tiny_run.folder).read_metrics()
    rows = {r[0]: r for r in cells(section(tree, "accuracy")) if r}
    for label, name in (("initial/words/greedy", "initial"), ("iteration1/words/greedy", "iteration 1")):
        m = metrics[label]
        assert rows[name][1] == f"{m['accuracy']:.1%}" and rows[name][2] == f"[{m['low']:.1%}, {m['high']:.1%}]"
        assert rows[name][4] == str(m["problems"])
    found = {w: stage_rows(tiny_run, f"{w}/words/greedy") for w in ("initial", "iteration1")}
    before, after = ([r["correct"] / r["samples"] for r in found[w]] for w in ("initial", "iteration1"))
    mean, low, high = paired_difference(before, after, seed=0)
    expected = f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]".replace("-", "−")
    assert rows["iteration 1"][3] == expected
    tile = next(texts(d) for d in tree.iter(f"{HTML}div") if d.get("class") == "tile")
    assert f"{metrics['initial/words/greedy']['accuracy']:.1%} → {metrics['iteration1/words/greedy']['accuracy']:.1%}" in tile


def test_the_curve_is_that_of_the_training(tiny_run: TinyRun, tree: Any) -> None:
    stage = next(s for s in RunFolder(tiny_run.folder).plan()["stages"] if s["kind"] == "train")
    log = tiny_run.store / "train" / stage["key"] / "train.jsonl"
    losses = [json.loads(line)["loss"] for line in log.read_text().splitlines()]
    chart = next(s for s in section(tree, "training").iter(f"{SVG}svg") if s.get("aria-label") == "Loss")
    line = next(p for p in chart.iter(f"{SVG}path") if p.get("class") == "line s0")
    ys = [float(p.partition(",")[2]) for p in line.get("d")[1:].split("L")]
    assert len(ys) == len(losses)
    order = sorted(range(len(ys)), key=lambda i: losses[i])
    assert all(ys[a] >= ys[b] for a, b in itertools.pairwise(order)), "a larger loss is drawn higher up"


def test_times_are_set_beside_the_estimates(tiny_run: TinyRun, tree: Any) -> None:
    estimate = RunFolder(tiny_run.folder).estimate()
    rows = {r[0]: r for r in cells(section(tree, "cost")) if len(r) == 10}
    assert len(rows) == 14
    for s in estimate["stages"]:
        assert s["seconds"] == 0.0 or rows[s["label"]][3] != "–"
        assert rows[s["label"]][7] == (f"{s['memory_bytes'] / 1e6:.0f} MB" if s["memory_bytes"] else "–")
    assert all(re.fullmatch(r"\d+ MB|\d+\.\d\d GB", r[8]) for label, r in rows.items() if label != "stage")
    memory = {r[0]: r for r in cells(section(tree, "cost")) if len(r) == 4}
    assert memory["training"][1] == rows["iteration1/train"][7] != "–" != memory["sampling"][1]
    assert f"thought {estimate['memory']['stage']} to need most" in texts(section(tree, "cost"))


def test_the_browser_shows_samples_with_verdict_and_lineage(tiny_run: TinyRun, tree: Any) -> None:
    samples = {r["id"]: r for r in stage_rows(tiny_run, "iteration1/sample")}
    verdicts = {r["sample"]: r for r in stage_rows(tiny_run, "iteration1/verify")}
    learned = {r["parents"][0] for r in stage_rows(tiny_run, "iteration1/select") if r["kind"] == "model"}
    group = next(g for g in section(tree, "samples").iter(f"{HTML}details")
                 if g.get("class") == "group" and texts(g).startswith("iteration1/sample"))  # fmt: skip
    shown = [d for d in group.iter(f"{HTML}details") if d.get("class") == "sample"]
    assert len(shown) == 40
    seen = set()
    for item in shown:
        facts = {texts(t): texts(d) for t, d in zip(item.iter(f"{HTML}dt"), item.iter(f"{HTML}dd"), strict=True)}
        sample = facts["sample"].partition("  (")[0]
        seen.add(sample)
        assert "iteration1/sample" in facts["sample"] and facts["problem"].startswith(samples[sample]["problem"])
        outcome = verdicts[sample]["outcome"]
        assert item.get("data-verdict") == {"correct": "right", "wrong": "wrong"}.get(outcome, "other")
        assert facts["answer given"] == (verdicts[sample]["extracted"] or "–")
        assert ("learned from, as example" in facts) == (item.get("data-used") == "yes") == (sample in learned)
        assert facts["drawn by"].startswith("the model that the run began with")
        solution = texts(next(item.iter(f"{HTML}ol")))
        assert re.sub(r"\s|‹....›", "", solution) == re.sub(r"[\s\x00-\x1f\x7f-\x9f]", "", samples[sample]["text"])
    assert len(seen) == 40
    outcomes = Counter(v["outcome"] == "correct" for v in verdicts.values())
    right = sum(verdicts[s]["outcome"] == "correct" for s in seen)
    assert right == max(min(20, outcomes[True]), 40 - outcomes[False]), "half of them right, as far as there are"


def test_settings_and_versions(tiny_run: TinyRun, tree: Any) -> None:
    rows = cells(section(tree, "settings"))
    assert ["sampling.n", "8", "4"] in rows and ["training.adapter", "full", "lora"] in rows
    assert not any(r[0] == "rewards.timeout" and len(r) == 3 for r in rows), "as the default has it"
    assert ["rewards.timeout", "1.0"] in rows
    software = json.loads(next(tiny_run.store.glob("train/*/manifest.json")).read_text())["software"]
    assert ["torch", software["torch"]] in rows and ["python", software["python"]] in rows


OUTCOMES = st.sampled_from(["correct", "wrong", "no_answer"])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), OUTCOMES), max_size=50), st.integers(2, 40))
def test_the_choice_of_samples(drawn: list[tuple[int, str]], count: int) -> None:
    rows = [{"sample": f"s{i}", "problem": f"p{p}", "outcome": o} for i, (p, o) in enumerate(drawn)]
    ids = choose(rows, count)
    assert len(ids) == len(set(ids)) == min(count, len(rows)) and ids == choose(list(reversed(rows)), count)
    outcome = {r["sample"]: r["outcome"] == "correct" for r in rows}
    right, all_right = sum(outcome[i] for i in ids), sum(outcome.values())
    assert right >= min(all_right, count // 2) and len(ids) - right >= min(len(rows) - all_right, count - count // 2)
    problem = {r["sample"]: r["problem"] for r in rows}
    for kind in (True, False):  # no problem twice while there is another one
        mine = [problem[i] for i in ids if outcome[i] is kind]
        there = {r["problem"] for r in rows if outcome[r["sample"]] is kind}
        assert len(set(mine)) == min(len(mine), len(there))


def hostile_run(root: Path) -> Path:
    """A run whose every text is an attack, the name of its recipe included."""
    world = HandMadeRun(root, name=HOSTILE.replace("\x00", "").replace("\x1b", ""))
    question = Problem(id=f"p{HOSTILE}", parents=[], stage="problems", source=HOSTILE, split="train", answer=HOSTILE,
                       question=HOSTILE + "x" * 9000)  # fmt: skip
    problems = world.add("problems", "problems/train", rows=[question])
    sample = Sample(
        id=f"s{HOSTILE}", parents=[question.id], stage="sample", problem=question.id, prompt_ids=[1], token_ids=[2],
        text=f"{HOSTILE}\n{HOSTILE}", logprobs=[0.0], logprob=0.0, finish_reason=HOSTILE, temperature=1.0,
        top_p=1.0, seed=0, model=HOSTILE, adapter=HOSTILE,
    )  # fmt: skip
    samples = world.add("sample", "iteration1/sample", {"problems": problems}, rows=[sample],
                        metrics={"samples": 1, "tokens": 1, "truncated": 0, "mean_tokens": 1.0})  # fmt: skip
    verdict = VerdictRow(id="v", parents=[sample.id], stage="verify", sample=sample.id, problem=question.id, outcome=HOSTILE,
                         extracted=HOSTILE, detail=HOSTILE)  # fmt: skip
    verdicts = world.add("verify", f"iteration1/verify{HOSTILE.replace('/', '')}", {"problems": problems, "samples": samples},
                         rows=[verdict], metrics={"wrong": 1, "accuracy": 0.0})  # fmt: skip
    step = Step(id="st", parents=[sample.id], stage="steps", sample=sample.id, index=0, text=HOSTILE, start=0, end=1, value=0.5)
    point = {"value": 0.5, "low": 0.1, "high": 0.9, "best_of": None, "successes": 1, "rollouts": 2}
    curve = {"sample": f"{HOSTILE}\ud800", "problem": HOSTILE, "correct": False, "pit": 0, "spurious": [],
             "points": [{**point, "text": ""}, {**point, "text": HOSTILE}]}  # fmt: skip
    world.add("steps", "iteration1/steps", {"samples": samples, "verdicts": verdicts}, rows=[step], metrics={"samples": 1},
              files={"curves.json": [curve]}, software={HOSTILE: HOSTILE})  # fmt: skip
    score = ProblemScore(id="c", parents=[], stage="score", problem=question.id, question=HOSTILE, answer="1", samples=1,
                         correct=0, extracted=HOSTILE, outcome="wrong", text=HOSTILE)  # fmt: skip
    metrics = {"accuracy": 0.0, "low": 0.0, "high": 0.8, "problems": 1, "mode": HOSTILE, "sampling": {"engine": HOSTILE}}
    world.add("score", f"initial/{HOSTILE.replace('/', '')}/greedy", {"problems": problems, "samples": samples}, rows=[score],
              metrics=metrics)  # fmt: skip
    world.add("train", "iteration1/train", done=False)
    events = [{"event": "run started"}, {"event": "started", "stage": "iteration1/train", "key": f"{5:032x}"},
              {"event": "failed", "stage": "iteration1/train", "key": f"{5:032x}", "error": f"Error: {HOSTILE}"}]  # fmt: skip
    return world.write(events)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    folder = hostile_run(tmp_path)
    html = write_report([folder]).read_text(encoding="utf-8")
    tree = parsed(html)
    assert outside(tree) == []
    tags = Counter(e.tag.rpartition("}")[2] for e in tree.iter() if isinstance(e.tag, str))
    assert tags["script"] == 1 and not {"img", "b", "iframe", "object", "pre"} & set(tags)
    assert active(tree) == []
    shown = texts(section(tree, "samples"))
    assert shown.count("<script>alert(1)</script><img src=x onerror=alert(2)>") >= 5 and "{{7*7}}" in shown
    for sign in "\x00\x1b\u202e":
        assert sign not in html
    assert "characters left out" in shown, "a text without end is cut"
    assert "failed: Error: </pre></script>" in texts(tree)
    other = shutil.copytree(folder, tmp_path / "other", symlinks=True)
    compared = parsed(write_report([folder, other], tmp_path / "c.html").read_text(encoding="utf-8"))
    assert Counter(e.tag for e in compared.iter())[f"{HTML}script"] == 1 and outside(compared) == active(compared) == []


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    world = HandMadeRun(tmp_path, name="begun")
    folder = world.write()
    (folder / "plan.json").unlink()
    tree = parsed(write_report([folder]).read_text())
    assert [s.get("id") for s in tree.iter(f"{HTML}section")] == ["settings"]
    assert "Not started yet." in texts(tree)


def test_a_run_at_work_shows_the_curve_so_far_and_a_broken_one_how_to_go_on(tmp_path: Path) -> None:
    world = HandMadeRun(tmp_path, name="online", training={"method": "remax"}, sampling={"n": 4})
    key = world.add("train", "iteration1/train", done=False)
    folder = world.write([{"event": "run started"}, {"event": "started", "stage": "iteration1/train", "key": key}])
    curve = [{"step": float(i), "reward": 0.1 * i, "kl_initial": 0.01 * i, "entropy": 1.0 - 0.1 * i} for i in range(1, 6)]
    live = Live(host="elsewhere", pid=1, beat=0.0, stage="iteration1/train", key=key, fraction=0.5, seconds=77.0, left=80.0,
                curve=curve)  # fmt: skip
    write_live(folder, live)
    tree = parsed(write_report([folder]).read_text())
    names = [s.get("aria-label") for s in section(tree, "training").iter(f"{SVG}svg")]
    assert names == ["Reward", "Divergence from the initial model", "Entropy"]
    head = texts(next(tree.iter(f"{HTML}header")))
    assert "running" in head and "1 min 17 s" in head and "0 of 1 stages are done" in head
    live.ended = True
    write_live(folder, live)
    head = texts(next(parsed(write_report([folder]).read_text()).iter(f"{HTML}header")))
    assert "broken off in stage iteration1/train" in head and f"ratchet resume {folder}" in head


def test_an_old_run_and_one_whose_store_is_out_of_reach(tiny_run: TinyRun, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_run.folder, tmp_path / "old", symlinks=True))
    for name in ("live.json", "estimate.json"):
        (folder / name).unlink()
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "sampler:\n  beams: 3\n")  # a key of another version
    rows = cells(section(parsed(write_report([folder]).read_text()), "settings"))
    assert ["sampler.beams", "3", "–"] in rows
    shutil.rmtree(folder / "artefacts")
    plan = folder / "plan.json"
    plan.write_text(plan.read_text().replace(str(tiny_run.store), "/on/another/machine"))
    tree = parsed(write_report([folder]).read_text())
    assert "the artefacts of 13 finished stages are not within reach (/on/another/machine)" in texts(tree)
    accuracy = RunFolder(folder).read_metrics()["iteration1/words/greedy"]["accuracy"]
    assert f"{accuracy:.1%}" in texts(section(tree, "accuracy"))
    assert section(tree, "samples") is None and section(tree, "training") is None


def test_the_command_writes_and_says_where_and_refuses_clearly(tiny_run: TinyRun, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_run.folder, tmp_path / "run", symlinks=True))
    done = ratchet("report", "run", home=tiny_run.home, cwd=tmp_path)
    assert done.stdout == "run/report.html\n" and (folder / "report.html").is_file()
    again = ratchet("run", str(tiny_run.recipe), "--run-dir", "run", home=tiny_run.home, cwd=tmp_path)
    assert again.stdout.count("(cached)") == 13, "a report does not stand in the way of a resume"
    for arguments, expected in (
        (["none"], "none is not a run folder"), (["run", "run/"], "given twice"), (["run", "--output", "."], ". is a folder"),
        (["run", "--output", "run/recipe.yaml/x.html"], "cannot write run/recipe.yaml/x.html"),
    ):  # fmt: skip
        refused = ratchet("report", *arguments, home=tiny_run.home, cwd=tmp_path, check=False)
        assert refused.returncode == 2 and expected in refused.stderr and "Traceback" not in refused.stderr, refused.stderr
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_damaged_artefact_is_named(tiny_run: TinyRun, tmp_path: Path) -> None:
    store = shutil.copytree(tiny_run.store, tmp_path / "store")
    folder = Path(shutil.copytree(tiny_run.folder, tmp_path / "run", symlinks=True))
    shutil.rmtree(folder / "artefacts")
    plan = folder / "plan.json"
    plan.write_text(plan.read_text().replace(str(tiny_run.store), str(store)))
    broken = next((Path(store) / "verify").glob("*/part-00000.parquet"))
    broken.write_bytes(b"PAR1 no PAR1")
    with pytest.raises(InputError, match=rf"{broken}: cannot be read .* delete the folder"):
        write_report([folder])


@pytest.fixture(scope="module")
def other_run(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run with another learning rate, beginning with what its store holds."""
    root = tmp_path_factory.mktemp("other")
    shutil.copytree(tiny_run.home, root / "home")
    arguments = ("run", str(tiny_run.recipe), "training.learning_rate=0.003", "--run-dir", "second")
    ratchet(*arguments, home=root / "home", cwd=root)
    return root / "second"


def test_two_runs_side_by_side(tiny_run: TinyRun, other_run: Path, tmp_path: Path) -> None:
    tree = parsed(write_report([tiny_run.folder, other_run], tmp_path / "c.html").read_text())
    assert outside(tree) == []
    rows = cells(section(tree, "settings"))
    assert rows == [["key", "run", "second"], ["training.learning_rate", "0.0002", "0.003"]]
    second = TinyRun(tiny_run.recipe, other_run, other_run.parent / "home", "")
    a, b = ({r["problem"]: r["correct"] for r in stage_rows(r, "iteration1/words/greedy")} for r in (tiny_run, second))
    mean, low, high = paired_difference([a[p] for p in a], [b[p] for p in a], seed=0)
    better, worse = sum(b[p] > a[p] for p in a), sum(b[p] < a[p] for p in a)
    told = [f"{100 * mean:+.1f}", f"[{100 * low:+.1f}, {100 * high:+.1f}]", str(len(a)), str(better), str(worse)]
    expected = ["second", "words, greedy", *(t.replace("-", "−") for t in told)]
    assert expected in cells(section(tree, "differences"))
    accuracy = cells(section(tree, "accuracy"))
    for name, folder in (("run", tiny_run.folder), ("second", other_run)):
        m = RunFolder(folder).read_metrics()["iteration1/words/greedy"]
        assert [name, "iteration 1", f"{m['accuracy']:.1%}", f"[{m['low']:.1%}, {m['high']:.1%}]", "8"] in accuracy
    assert section(tree, "training") is not None and section(tree, "time") is not None


def test_runs_that_cannot_be_paired_say_so(tiny_run: TinyRun, tmp_path: Path) -> None:
    world = HandMadeRun(tmp_path, name="else")
    question = {"question": "q", "answer": "1", "samples": 1, "correct": 1, "extracted": "1", "outcome": "correct", "text": "1"}
    row = ProblemScore(id="c", parents=[], stage="score", problem="p", **question)
    metrics = {"accuracy": 1.0, "low": 0.2, "high": 1.0, "problems": 1, "mode": "strict", "sampling": {}}
    world.add("score", "initial/words/greedy", rows=[row], metrics=metrics)
    folder = world.write()
    tree = parsed(write_report([tiny_run.folder, folder], tmp_path / "c.html").read_text())
    assert "no evaluated problem in common" in texts(section(tree, "differences"))
    (tmp_path / "x").mkdir()
    twin = HandMadeRun(tmp_path / "x", name="else")
    twin.add("score", "initial/words/greedy", rows=[row], metrics={**metrics, "mode": "lenient"})
    told = parsed(write_report([folder, twin.write()]).read_text())
    assert "were not measured alike; mode differ" in texts(section(told, "differences"))
    assert (folder / "compare-run.html").is_file()


def balance_files(choice: float) -> dict[str, Any]:
    """A surface of two temperatures and four thresholds, the two in the middle equal, for caps of 1 and 2."""
    def column(temperature: float, best: float) -> dict[str, Any]:
        score = [[0.0, 0.1], [best, 0.0], [best, 0.0], [0.0, 0.0]]
        return {"temperature": temperature, "queries": 12, "cap": [2, 1, 1, 1], "score": score}

    point = {"temperature": choice, "threshold": 0.5, "score": 0.4, "selected": 7}
    columns = [column(1.1, 0.4), column(0.7, 0.3)]
    return {"surface.json": {"n_star": 6, "thresholds": [-1.0, 0.0, 0.5, 1.0], "caps": [1, 2], "point": point,
                             "temperatures": columns}}  # fmt: skip


def test_balance_surfaces_exploration_and_reward_models(tmp_path: Path) -> None:
    """As B-STaR and reward models leave them: each table has the numbers of its file."""
    world = HandMadeRun(tmp_path, name="all", iterations={"count": 2})
    world.add("balance", "iteration1/sweep1/balance", metrics={"queries": 6}, files=balance_files(0.7))
    world.add("balance", "iteration1/sweep2/balance", metrics={"queries": 12}, files=balance_files(1.1))
    overall = {"pass@1": {"mean": 0.25, "low": 0.125, "high": 0.5}, "diversity": {"mean": 0.75, "low": 0.5, "high": 1.0}}
    log = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]
    train = world.add("train", "iteration1/train", files={"train.jsonl": log}, metrics={"steps": 2})
    for iteration, model in ((1, {}), (2, {"model": train})):
        samples = world.add("sample", f"iteration{iteration}/sample", model, metrics={"samples": 4, "tokens": 40})
        world.add("exploration", f"iteration{iteration}/exploration", {"samples": samples},
                  metrics={"pass@1": 0.25, "diversity": 0.75, "selected": 5.0},
                  files={"exploration.json": {"overall": overall}})  # fmt: skip
    figure = {"mean": 0.5, "low": 0.25, "high": 0.75}
    at = [{"k": 1, "problems": 9, "pass": figure, "maj": figure, "rm": figure, "weighted": None, "rm_gain": None}]
    pairwise = {"reward_model": {**figure, "problems": 4}, "shortest": None, "logprob": {**figure, "problems": 4}}
    world.add("reward_eval", "iteration1/reward_eval", metrics={
        "at": at, "pairwise": pairwise, "problems": 9, "samples": 18, "right_score": 1.5, "wrong_score": -0.5, "auc": 0.7,
        "agreement": 0.8, "wrong_rise": 0.4, "alarm": "the scores of wrong answers rose by 0.400",
    })  # fmt: skip
    tree = parsed(write_report([world.write()]).read_text())
    balance = section(tree, "exploration")
    maps = [s for s in balance.iter(f"{SVG}svg") if (s.get("aria-label") or "").startswith("Balance score")]
    assert len(maps) == 1, "the last balance of the iteration"
    titles = [texts(t) for t in maps[0].iter(f"{SVG}title")]
    assert "temperature 0.7, threshold 0 to 0.5: 0.300" in titles and "temperature 1.1, threshold −1: 0.100" in titles
    assert ["0 to 0.5", "0.3", "0.4"] in cells(balance), "equal thresholds share a row, temperatures in order"
    chosen = next(r for r in maps[0].iter(f"{SVG}rect") if r.get("class") == "chosen")
    best = next(r for r in maps[0].iter(f"{SVG}rect") if texts(r) == "temperature 1.1, threshold 0 to 0.5: 0.400")
    assert (chosen.get("x"), chosen.get("y")) == (best.get("x"), best.get("y"))
    assert ["metric", "initial", "iteration 1"] in cells(balance)
    assert "12 problems" in texts(maps[0]), "what the temperature was measured on"
    assert ["pass@1", "0.250 [0.125, 0.500]", "0.250 [0.125, 0.500]"] in cells(balance)
    assert ["selected", "5", "5"] in cells(balance)
    rewards = section(tree, "rewards")
    assert ["1", "9", "50.0% [25.0%, 75.0%]", "50.0% [25.0%, 75.0%]", "50.0% [25.0%, 75.0%]"] in cells(rewards)
    assert ["reward model", "50.0%", "[25.0%, 75.0%]", "4"] in cells(rewards)
    assert texts(tree).count("the scores of wrong answers rose by 0.400") == 2, "on top and where it belongs"


def test_edits_pairs_and_step_values(tmp_path: Path) -> None:
    world = HandMadeRun(tmp_path, name="pairs", training={"method": "dpo"}, pairs={"kind": "rise"})
    problem = Problem(id="p", parents=[], stage="problems", source="own", split="train", question="1+1?", answer="2")
    problems = world.add("problems", "problems/train", rows=[problem])
    sample = Sample(id="p#0", parents=["p"], stage="sample", problem="p", prompt_ids=[1], token_ids=[2, 3], logprobs=[],
                    text="1+1=2\n#### 2", logprob=-1.5, finish_reason="stop", temperature=1.0, top_p=1.0, seed=0,
                    model="m")  # fmt: skip
    drawn = {"samples": 1, "tokens": 2}
    samples = world.add("sample", "iteration1/sample", {"problems": problems}, rows=[sample], metrics=drawn)
    verdict = VerdictRow(id="p#0/verdict", parents=["p#0"], stage="verify", sample="p#0", problem="p", outcome="correct",
                         extracted="2", detail="integer")  # fmt: skip
    world.add("verify", "iteration1/verify", {"problems": problems, "samples": samples}, rows=[verdict],
              metrics={"correct": 1, "accuracy": 1.0})  # fmt: skip
    reasons = {f"reason_{i}": 9 - i for i in range(7)} | {"no_candidate": 1}
    by_error = {"drop_term": {"kept": 3, **reasons}, "misread": {"kept": 1}}
    world.add("edit", "iteration1/edit", {"samples": samples}, metrics={"by_error": by_error, "edits": 5, "kept": 4})
    example = Example(id="p#0/example", parents=["p#0", "p#0/verdict"], stage="select", problem="p", prompt_ids=[1],
                      token_ids=[2], text="1+1=2", kind="model")  # fmt: skip
    world.add("select", "iteration1/select", {"samples": samples}, rows=[example], metrics={"examples": 1, "problems": 1})
    metrics = {"pairs": 3, "kinds": {"full": 1, "edited": 2}, "problems": 4, "problems_used": 2, "too_long": 0,
               "dropped": {"no_wrong": 1}, "mean_context_tokens": 9.5, "mean_chosen_tokens": 4.0,
               "mean_rejected_tokens": 5.0}  # fmt: skip
    pair = Pair(id="p#0/step", parents=["p#0", "p#0/s0", "p#0/s0/r1"], stage="step_pairs", problem="p", context_ids=[1],
                chosen_ids=[2], rejected_ids=[3], chosen="a", rejected="b", kind="step", error=None, first_difference=0,
                chosen_eos=True, rejected_eos=False)  # fmt: skip
    world.add("pairs", "iteration1/pairs", {"samples": samples}, rows=[pair], metrics=metrics)
    steps = [
        Step(id=f"p#0/s{i}", parents=["p#0"], stage="steps", sample="p#0", index=i, text=t, start=i, end=i + 1, value=v,
             low=0.5, high=1.0, rollouts=4)
        for i, (t, v) in enumerate((("1+1=2\n", 0.75), ("#### 2", 1.0)))
    ]  # fmt: skip
    world.add("steps", "iteration1/steps", {"samples": samples}, rows=steps, metrics={
        "samples": 1, "steps": 2, "pits": 0, "pit_place": 0.0, "mean_curve_right": [{"place": 0.0, "value": 0.5, "count": 1}],
        "mean_curve_wrong": [],
    })  # fmt: skip
    tree = parsed(write_report([world.write()]).read_text())
    data = cells(section(tree, "data"))
    assert ["drop term", "9", "8", "7", "6", "5", "3", "4", "3", "1"] in data
    assert ["misread", "0", "0", "0", "0", "0", "1", "0", "0", "0"] in data
    errors = next(s for s in section(tree, "data").iter(f"{SVG}svg") if "Injected errors" in (s.get("aria-label") or ""))
    assert "drop term, other: 4 of 46 (8.7%)" in [texts(r) for r in errors.iter(f"{SVG}rect")], "the two rarest reasons"
    assert ["iteration1/pairs", "3", "2", "1", "2", "4", "1", "0", "9.5", "4", "5"] in data
    yields = next(s for s in section(tree, "data").iter(f"{SVG}svg") if s.get("aria-label") == "Problems that gave pairs")
    assert [texts(r) for r in yields.iter(f"{SVG}rect")] == [
        "iteration1/pairs, gave pairs: 2 of 4 (50.0%)", "iteration1/pairs, no wrong: 1 of 4 (25.0%)",
        "iteration1/pairs, other: 1 of 4 (25.0%)",
    ]  # fmt: skip
    assert ["steps", "2"] in cells(section(tree, "values"))
    browser = section(tree, "samples")
    assert ["1+1=2", "75.0%", "[50%, 100%]", ""] in cells(browser), "steps with their values"
    assert "learned from, as examplep#0/example  (iteration1/select" in texts(browser)
    assert "rejected side of a step pairp#0/step" in texts(browser), "its first parent is the sample with the pit"


def test_where_a_model_of_another_run_is_the_start(tmp_path: Path) -> None:
    """Both score stages have the same label; what their samples were drawn from tells them apart."""
    world = HandMadeRun(tmp_path, name="again", model={"name": "/runs/first@1"})
    start = world.add("sample", "iteration1/words/greedy/sample", {"model": "of another run"}, metrics={"samples": 1})
    train = world.add("train", "iteration1/train", {"model": "of another run"}, metrics={"steps": 1})
    later = world.add("sample", "iteration1/words/greedy/sample", {"model": train}, metrics={"samples": 1})
    for samples, accuracy in ((start, 0.25), (later, 0.5)):
        world.add("score", "iteration1/words/greedy", {"samples": samples},
                  metrics={"accuracy": accuracy, "low": 0.1, "high": 0.9, "problems": 4})  # fmt: skip
    run = RunRecord(world.write())
    assert [run.place(s) for s in run.of_kind("score")] == [0, 1]
    rows = cells(section(parsed(write_report([run.path]).read_text()), "accuracy"))
    expected = [["model", "accuracy"], ["start (first@1)", "25.0%"], ["iteration 1", "50.0%"]]
    assert [r[:2] for r in rows if len(r) == 8] == expected


def test_failed_and_repeated_attempts_count_as_time(tmp_path: Path) -> None:
    world = HandMadeRun(tmp_path, name="bumpy")
    key = world.add("verify", "iteration1/verify", metrics={"correct": 1, "accuracy": 1.0})
    events = [
        {"event": "run started"}, {"event": "started", "stage": "iteration1/verify", "key": key, "attempt": 1},
        {"event": "failed", "stage": "iteration1/verify", "key": key, "error": "RatchetError: full"}, {"event": "run started"},
        {"event": "started", "stage": "iteration1/verify", "key": key, "attempt": 2, "shards": 4, "missing": 3},
        {"event": "finished", "stage": "iteration1/verify", "key": key, "seconds": 30.0}, {"event": "run finished"},
    ]  # fmt: skip
    estimate = {
        "stages": [{"key": key, "seconds": 45.0, "memory_bytes": 3e9}], "memory_available": 16e9,
        "memory": {"stage": "iteration1/verify", "bytes": 3e9, "parts": {"weights": 2e9, "KV cache": 1e9, "moments": 4.0}},
    }  # fmt: skip
    tree = parsed(write_report([world.write(events, estimate)]).read_text())
    rows = cells(section(tree, "cost"))
    times = ["1 min 30 s", "45 s", "2.00"]  # a minute, then 30 seconds
    assert ["iteration1/verify", "done", *times, "0", "–", "3.00 GB", "–", "2"] in rows
    assert ["scoring", "3.00 GB", "–", "–"] in rows
    most = "thought iteration1/verify to need most, 3.00 GB: weights 2.00 GB, KV cache 1.00 GB. "
    assert most in texts(section(tree, "cost"))
    happened = cells(section(tree, "settings"))
    assert ["2026-01-01 00:02:00", "failed", "iteration1/verify", "RatchetError: full"] in happened
    assert ["2026-01-01 00:04:00", "started", "iteration1/verify", "attempt 2: 3 of 4 shards were missing"] in happened


def test_work_that_took_no_time_at_all_stops_no_report(tmp_path: Path) -> None:
    paths = []
    for name, taken in (("quick", 0.0), ("slow", 3.0)):
        world = HandMadeRun(tmp_path / name, name=name)
        events: list[dict[str, Any]] = [{"event": "run started"}]
        for kind, label, spent in (("train", "iteration1/train", 9.0), ("verify", "iteration1/verify", taken)):
            key = world.add(kind, label)
            events += [{"event": "started", "key": key}, {"event": "finished", "key": key, "seconds": spent}]
        paths.append(world.write([*events, {"event": "run finished"}]))
    assert by_work(RunRecord(paths[0])) == {"training": 9.0}
    assert "Where the time went: training 9.0 s." in texts(parsed(write_report(paths[:1]).read_text()))
    rows = cells(section(parsed(write_report(paths, tmp_path / "both.html").read_text()), "time"))
    assert ["scoring", "–", "3.0 s"] in rows


def test_a_whole_recipe_of_pairs_is_reported(tiny_run: TinyRun, tmp_path: Path, tiny_recipe: Callable[..., Path]) -> None:
    """A real run of per-step pairs: rollouts, step values, pairs, preference training."""
    asked = ("training={method: dpo, adapter: full, epochs: 1, batch_size: 4}", "pairs={kind: per_step}",
                "rewards.mode=lenient", "rollouts={n: 4, best_of: 2}", "sampling.temperature=0.6")  # fmt: skip
    ratchet("run", str(tiny_run.recipe), *asked, "--run-dir", "run", home=tmp_path / "home", cwd=tmp_path)
    tree = parsed(write_report([tmp_path / "run"]).read_text())
    metrics = RunFolder(tmp_path / "run").read_metrics()
    pairs = next(r for r in cells(section(tree, "data")) if r[0] == "iteration1/pairs")
    assert pairs[1] == str(metrics["iteration1/pairs"]["pairs"])
    counts = {r[0]: r[1] for r in cells(section(tree, "values")) if len(r) == 2}
    assert counts["steps"] == f"{metrics['iteration1/steps']['steps']:,}"
    assert any(r[0].startswith("Preference accuracy") for r in cells(section(tree, "training")) if r)


def test_a_whole_run_of_bstar_is_reported(tiny_model: Path, tiny_run: TinyRun, tmp_path: Path) -> None:
    """A real run with sweeps, balances and a scorer: what was chosen is framed, and metrics are those of the stages."""
    more = ("iterations.count=1", "balance.scorer=confidence", "evaluation.samples=2")
    recipe = bstar_recipe(tmp_path / "bstar.yaml", tiny_model, tiny_run, *more)
    ratchet("run", str(recipe), "--run-dir", "run", home=tmp_path / "home", cwd=tmp_path)
    tree = parsed(write_report([tmp_path / "run"]).read_text())
    metrics = RunFolder(tmp_path / "run").read_metrics()
    point = choice(tmp_path / "run", "iteration1/sweep3/balance")["point"]
    shown = section(tree, "exploration")
    (surface,) = [s for s in shown.iter(f"{SVG}svg") if (s.get("aria-label") or "").startswith("Balance score")]
    framed = next(r for r in surface.iter(f"{SVG}rect") if r.get("class") == "chosen")
    place = framed.get("x"), framed.get("y")
    heats = [r for r in surface.iter(f"{SVG}rect") if r.get("class") != "chosen"]
    cell = next(texts(r) for r in heats if (r.get("x"), r.get("y")) == place)
    assert cell.startswith(f"temperature {point['temperature']:g}, ") and cell.endswith(f"{point['score']:.3f}")
    rows = [r for r in cells(shown) if r[0] == "pass@1"]
    for label, row in zip(("iteration1/exploration", "initial/words/sampled/exploration"), rows, strict=True):
        assert float(row[1].partition(" ")[0]) == pytest.approx(metrics[label]["pass@1"], abs=6e-4)
    scored = [texts(s) for s in section(tree, "samples").iter(f"{HTML}span") if s.get("class") == "score"]
    assert scored and all(s.startswith("score ") for s in scored)
