"""Rollouts, step values and per-step pairs: real tokenizer and tiny model, real store."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from configs.errors import ConfigError, RatchetError
from configs.load import apply_override, load_recipe
from configs.rows import Example, Pair, Rollout, Step
from data_gen.steps import decode
from pipelines import work
from pipelines.engines import close_engine
from pipelines.models import ResolvedModel
from pipelines.plan import build, resolve
from pipelines.stage import Stage, task_of
from rewards import verify
from tests.conftest import TinyRun
from tests.pipelines.helpers import environment, ratchet
from tests.pipelines.step_world import ANSWER, StepWorld, solved


@pytest.fixture
def world(tmp_path: Path, tiny_model: Path) -> Iterator[StepWorld]:
    yield StepWorld(tmp_path / "store", tiny_model)
    close_engine()


def steps_by_sample(rows: list[Step]) -> dict[str, list[Step]]:
    found: dict[str, list[Step]] = {}
    for s in rows:
        found.setdefault(s.sample, []).append(s)
    return found


def test_values_follow_from_rollouts_and_states_are_drawn_once(world: StepWorld) -> None:
    rollouts, steps = world.value_stages(n=8, best_of=5)
    artefact, metrics = world.run(rollouts)
    drawn: list[Rollout] = world.rows(artefact, Rollout)
    assert metrics["drawn"] == metrics["without_duplicates"] == len(drawn) == 8 * metrics["states"] < metrics["naive"]
    assert len({r.id for r in drawn}) == len({r.seed for r in drawn}) == len(drawn)
    artefact, metrics = world.run(steps)
    rows: list[Step] = world.rows(artefact, Step)
    assert len({s.id for s in rows}) == len(rows) and metrics["wrong"] == 12 and metrics["right"] == 4
    samples = {s.id: s for s in world.rows(world.store.artefact("sample", world.inputs["samples"].key), _sample())}
    for name, mine in steps_by_sample(rows).items():
        ids = samples[name].token_ids
        assert mine[0].start == 0 and all(a.end == b.start for a, b in itertools.pairwise(mine))
        before = ""
        for s in mine:
            before += decode(world.encoder.tokenizer, ids[s.start : s.end])
            outcomes = [r.outcome for r in drawn if r.prefix == s.prefix]
            assert outcomes == [
                verify(before + r.text, ANSWER, mode="lenient").outcome if r.finish_reason == "stop" else "no_answer"
                for r in drawn if r.prefix == s.prefix
            ]  # fmt: skip
            assert (s.successes, s.rollouts) == (outcomes.count("correct"), len(outcomes))
            assert s.value == (float(s.correct) if s.final else outcomes.count("correct") / 8)
        assert [s.final for s in mine] == [False] * (len(mine) - 1) + [True] and before == samples[name].text
        assert sum(s.pit for s in mine) == (0 if mine[0].correct else 1)
    assert (artefact.path / "curves.json").is_file() and "curves.json" in artefact.manifest()["files"]
    # two of five samples are right: the value of the prompt, which the first advantage starts from
    first = next(s for s in rows if s.index == 0)
    assert first.best_of is not None and first.advantage == pytest.approx(first.best_of - 1.0)


def test_the_search_finds_the_same_pits_with_fewer_rollouts(world: StepWorld) -> None:
    found = []
    for allocation in ("fixed", "sequential"):
        rollouts, steps = world.value_stages(n=8, best_of=5, allocation=allocation, positives=0, recheck=1.0)
        metrics = world.run(rollouts)[1]
        artefact, stepped = world.run(steps)
        rows: list[Step] = world.rows(artefact, Step)
        found.append((metrics["drawn"], {s.id for s in rows if s.pit}))
        assert stepped["checked"] == sum(s.pit and not s.final for s in rows) > 0
        assert all(s.check_rollouts == 32 for s in rows if s.pit and not s.final) and stepped["false_pit_rate"] <= 1.0
    (all_, fixed), (some, searched) = found
    assert fixed == searched and some <= 0.6 * all_


def test_pairs_have_the_contexts_and_end_tokens_of_their_variant(world: StepWorld) -> None:
    rollouts, steps = world.value_stages(n=8, best_of=5)
    world.run(rollouts)
    valued = steps_by_sample(world.rows(world.run(steps)[0], Step))
    end = world.encoder.tokenizer.eos_token_id
    artefact, metrics = world.run(world.step_pairs(rollouts, steps, "both"))
    pairs: list[Pair] = world.rows(artefact, Pair)
    assert set(metrics["kinds"]) == {"pit", "step"} and metrics["pairs"] == len(pairs) == len({p.id for p in pairs})
    for p in pairs:
        sample = p.id.rpartition("/")[0]
        mine = valued[sample]
        pit = next(s for s in mine if s.pit)
        prompt = world.encoder.encode(f"{p.problem.split(':')[1]} eggs?")
        d = p.first_difference
        assert p.chosen_ids[:d] == p.rejected_ids[:d] and p.chosen_ids[d] != p.rejected_ids[d]
        assert p.chosen_ids[-1] == end and p.chosen_eos and p.rejected_eos == (p.rejected_ids[-1] == end) == pit.final
        before = mine[: pit.index] if p.kind == "step" else []
        shared = decode(world.encoder.tokenizer, p.context_ids[len(prompt) :])
        assert p.context_ids[: len(prompt)] == prompt and shared == "".join(s.text for s in before)
        assert verify(shared + p.chosen, ANSWER, mode="lenient").correct
        assert p.rejected == "".join(s.text for s in mine[len(before) : pit.index + 1])
        assert decode(world.encoder.tokenizer, p.rejected_ids) == p.rejected
    whole = world.rows(world.run(world.step_pairs(rollouts, steps, "full"))[0], Pair)
    assert len(whole) == 12 and all(p.kind == "full" and p.chosen_eos and p.rejected_eos for p in whole)
    # every variant takes the same right sample for a wrong one
    right = {p.id.rpartition("/")[0]: p.chosen for p in whole}
    assert all(right[p.id.rpartition("/")[0]] == p.chosen for p in pairs if p.kind == "pit")
    with pytest.raises(RatchetError, match=r"pairs\.min_pairs"):
        world.run(world.step_pairs(rollouts, steps, max_length=10))


def test_right_samples_are_learned_with_the_advantages_of_their_steps(world: StepWorld) -> None:
    rollouts, steps = world.value_stages(n=8, best_of=5, negatives=0)
    world.run(rollouts)
    valued = steps_by_sample(world.rows(world.run(steps)[0], Step))
    config = {
        "max_per_problem": 4, "prefer": "random", "include_human": False, "min_examples": 1, "advantage_weights": 0.5,
        "prompt": rollouts.config["prompt"], "model": "m", "seed": 3,
    }  # fmt: skip
    stage = Stage("select", "select", config, world.inputs | {"steps": steps}, {"base": str(world.base)})
    examples: list[Example] = world.rows(world.run(stage)[0], Example)
    assert {e.parents[0] for e in examples} == set(valued) and len(examples) == 4
    for e in examples:
        assert e.token_weights is not None and len(e.token_weights) == len(e.token_ids)
        for s in valued[e.parents[0]]:
            assert s.advantage is not None and e.token_weights[s.start] == pytest.approx(math.exp(s.advantage / 0.5))


def test_what_was_cut_off_or_has_no_answer_is_used_only_where_asked_for(tmp_path: Path, tiny_model: Path) -> None:
    (problem, texts), *_ = solved(1)
    cut, lucky = ("1 + 1 = 2\nSo she has", "length"), ("All done\n#### 9", "length")
    world = StepWorld(tmp_path / "s", tiny_model, [(problem, [texts[0], cut, lucky, ("none\nat all", "stop")])])
    try:
        counts = []
        for section in ({}, {"truncated_negatives": True}, {"unparsable_negatives": True}):
            rollouts, steps = world.value_stages(n=2, best_of=1, **section)
            world.run(rollouts)
            metrics = world.run(steps)[1]
            counts.append(metrics["wrong"])
            assert metrics["right"] == 1
            if section.get("truncated_negatives"):
                (pair,) = world.rows(world.run(world.step_pairs(rollouts, steps, "full"))[0], Pair)
                assert not pair.rejected_eos and pair.rejected == cut[0]
        assert counts == [0, 1, 1]  # the answer that was there before the cut makes no sample right, nor wrong
    finally:
        close_engine()


def test_a_later_iteration_draws_nothing_that_is_there(world: StepWorld) -> None:
    first, _ = world.value_stages(n=4, negatives=1)
    before: list[Rollout] = world.rows(world.run(first)[0], Rollout)
    again, _ = world.value_stages(n=4, negatives=1, earlier=[first])
    artefact, metrics = world.run(again)
    assert metrics["drawn"] == 0 and metrics["reused"] == len(before) and world.rows(artefact, Rollout) == before
    more, _ = world.value_stages(n=8, best_of=5, negatives=2, earlier=[first])
    artefact, metrics = world.run(more)
    rows: list[Rollout] = world.rows(artefact, Rollout)
    assert {r.id: r for r in before}.items() <= {r.id: r for r in rows}.items()
    assert metrics["drawn"] == len(rows) - len(before) and len(rows) == 8 * metrics["states"]


def test_prompts_are_rolled_out_where_samples_come_from_another_policy(world: StepWorld) -> None:
    with_roots = world.run(world.value_stages(n=4)[0])[1]
    rollouts, steps = world.value_stages(n=4, roots=False)
    metrics = world.run(rollouts)[1]
    assert metrics["states"] == with_roots["states"] + 4, "the prompts of four problems"
    assert world.run(steps)[1]["mean_curve_wrong"][0]["value"] != 0.4


def test_rows_depend_neither_on_the_order_of_shards_nor_on_a_torn_journal(tmp_path: Path, tiny_model: Path) -> None:
    found = []
    try:
        for name, order in (("a", (0, 1)), ("b", (1, 0))):
            world = StepWorld(tmp_path / name, tiny_model)
            task = task_of(world.value_stages(n=6, best_of=1, allocation="sequential", recheck=0.5)[0], world.store)
            work.forget()
            for shard in order:
                work.run_shard(task, shard)
            found.append([task.artefact.part(s).read_bytes() for s in (0, 1)])
        assert found[0] == found[1]
        journal = task.artefact.work / "journal-00000.jsonl"
        lines = journal.read_bytes().splitlines(keepends=True)
        for kept in (1, len(lines) // 2, len(lines) - 1):  # killed while writing a group of some round
            journal.write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
            task.artefact.part(0).unlink()
            work.marker(task, 0).unlink()
            work.forget()
            work.run_shard(task, 0)
            assert task.artefact.part(0).read_bytes() == found[0][0]
            assert journal.read_bytes().splitlines(keepends=True) == lines
    finally:
        close_engine()


def test_a_kill_loses_no_finished_rollout(tmp_path: Path, tiny_model: Path) -> None:
    """SIGKILL while the stage draws: what is journalled is not drawn again, and the rows are those of a calm run."""
    calm = StepWorld(tmp_path / "calm", tiny_model)
    stage = calm.value_stages(n=12, best_of=5)[0]
    try:
        artefact, _ = calm.run(stage)
        expected = [artefact.part(s).read_bytes() for s in (0, 1)]
        root = tmp_path / "killed"
        command = [sys.executable, "-m", "tests.pipelines.step_world", str(root), str(tiny_model)]
        process = subprocess.Popen(command, env=environment(tmp_path / "home"), start_new_session=True)
        journal = root / "rollouts" / stage.key / "work" / "journal-00000.jsonl"
        while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        whole = journal.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]
        task = task_of(stage, StepWorld.reopened(root, tiny_model).store)
        work.forget()
        for shard in (0, 1):
            work.run_shard(task, shard)
        assert journal.read_bytes().startswith(kept)
        assert [task.artefact.part(s).read_bytes() for s in (0, 1)] == expected
        assert work.shard_results(task, 2)[0].timing["resumed"] > 0
    finally:
        close_engine()


PER_STEP = (
    "training={method: dpo, epochs: 2, batch_size: 4}", "pairs={kind: per_step}", "sampling.temperature=0.6",
    "rewards.mode=lenient",
)  # fmt: skip


def test_a_recipe_runs_from_samples_to_trained_weights(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Most of the tiny model's solutions are one line, so that the pit is often the whole solution; resume is for free."""
    data = yaml.safe_load(tiny_run.recipe.read_text())
    for override in (*PER_STEP, "rollouts={n: 4, best_of: 2, allocation: sequential, recheck: 0.5}"):
        apply_override(data, override)
    (tmp_path / "pits.yaml").write_text(yaml.safe_dump(data))
    home = tmp_path / "home"
    output = ratchet("run", "pits.yaml", "--run-dir", "run", home=home, cwd=tmp_path).stdout
    assert "iteration1/rollouts" in output and "iteration1/steps" in output and "pairs (" in output
    assert "margin" in output and "accuracy" in output
    again = ratchet("resume", "run", home=home, cwd=tmp_path).stdout
    assert again.count("(cached)") == len([line for line in output.splitlines() if line.startswith("[") and "(" in line])


def test_the_plan_of_per_step_pairs() -> None:
    two = (*PER_STEP, "iterations.count=2", "model.dtype=float32", "sampling.engine=transformers", "sampling.shots=[]")

    def stages(*overrides: str) -> dict[str, Stage]:
        plan = build(resolve(load_recipe("rft_gsm8k", [*two, *overrides])), ResolvedModel("m", Path("/nowhere"), "f" * 32))
        return {s.label: s for s in plan.stages}

    plan = stages()
    first, second = plan["iteration1/rollouts"], plan["iteration2/rollouts"]
    assert first.config["root_from_samples"] and not second.config["root_from_samples"]
    assert "model" not in second.inputs and second.inputs["earlier0"] is first  # the initial model, in both
    assert set(plan["iteration1/pairs"].inputs) == {"problems", "samples", "verdicts", "rollouts", "steps"}
    latest = stages("rollouts.policy=latest")["iteration2/rollouts"]
    assert latest.config["root_from_samples"] and latest.inputs["model"].label == "iteration1/train"
    assert not [name for name in latest.inputs if name.startswith("earlier")]
    fresh = stages("data.fresh_per_iteration=true", "data.train.limit=100")["iteration2/rollouts"]
    assert not [name for name in fresh.inputs if name.startswith("earlier")]
    assert "iteration1/rollouts" not in stages("pairs.per_step.variant=full")
    # another variant of the pairs does not roll out again
    assert stages("pairs.per_step.variant=both")["iteration1/rollouts"].key == first.key
    weighted = stages("training.method=sft", "pairs.kind=none", "selection.advantage_weights=0.5")
    assert weighted["iteration1/select"].inputs["steps"].inputs["rollouts"].config["rollouts"]["negatives"] == 0
    with pytest.raises(ConfigError, match="advantage_weights"):
        stages("selection.advantage_weights=0.5")
    with pytest.raises(ConfigError, match="cannot be estimated"):
        stages("rollouts.n=4")


def _sample() -> type:
    from configs.rows import Sample

    return Sample
