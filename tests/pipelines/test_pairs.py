"""The stages of pairs from samples to Pair rows: real tokenizer or tiny model, real store."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from configs.errors import RatchetError
from configs.rows import Edit, Pair, Problem
from data_gen.procedural import generate
from data_gen.steps import decode
from pipelines import work
from pipelines.engines import close_engine
from pipelines.stage import task_of
from tests.pipelines.rise_world import World

if TYPE_CHECKING:
    from pipelines.models import ResolvedModel

LINE = re.compile(r"(\d+) ([+*/-]) (\d+) = (\d+)")


def solved(count: int, levels: tuple[int, ...] = (2, 3)) -> list[tuple[Problem, list[tuple[str, str]]]]:
    """Problems with a right and a wrong sample each: the solution, and one with another answer."""
    problems = generate(count, "train", 5, levels, 20)
    return [(p, [(p.solution or "", "stop"), (re.sub(r"#### \d+", "#### 7777", p.solution or ""), "stop")]) for p in problems]


@pytest.fixture
def world(tmp_path: Path, bundled: ResolvedModel) -> World:
    return World(tmp_path / "store", bundled.path, solved(24), size=10)


def false_lines(text: str) -> int:
    found = LINE.findall(text)
    return sum({"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}.get(op, int(a) / max(1, int(b))) != int(c)
               for a, op, b, c in found)  # fmt: skip


def test_kept_edits_are_false_in_place_and_lead_back_to_their_samples(world: World) -> None:
    artefact, metrics = world.run(world.edit())
    edits: list[Edit] = world.rows(artefact, Edit)
    samples = {s.id: s for s in world.rows(world.store.artefact("sample", world.inputs["samples"].key), _sample())}
    assert len({e.id for e in edits}) == len(edits)
    for e in (e for e in edits if e.outcome == "kept"):
        sample = samples[e.sample]
        assert decode(world.encoder.tokenizer, sample.token_ids[e.start : e.end]) == e.original
        assert decode(world.encoder.tokenizer, e.token_ids) == e.edited != e.original
        assert false_lines(e.original) == 0 and false_lines(e.edited) == 1
        assert (e.certificate or "").startswith("arithmetic: ") and e.distance > 0 and e.editor == "programmatic"
    assert metrics["kept"] == metrics["by_editor"]["programmatic"]["kept"] == sum(e.outcome == "kept" for e in edits) > 40
    assert metrics["problems"] == 24 and metrics["steps"] > 60 and metrics["answer_lines"] == 24
    assert sum(sum(v.values()) for v in metrics["by_error"].values()) == metrics["edits"]


def _sample() -> type:
    from configs.rows import Sample

    return Sample


def test_pairs_have_the_composition_of_the_paper(world: World) -> None:
    edit = world.edit()
    world.run(edit)
    artefact, metrics = world.run(world.pairs(edit, edits=2))
    pairs: list[Pair] = world.rows(artefact, Pair)
    by_kind = {k: [p for p in pairs if p.kind == k] for k in ("full", "edited")}
    assert len(by_kind["full"]) == 24 and 36 <= len(by_kind["edited"]) <= 48
    assert max(Counter(p.problem for p in by_kind["edited"]).values()) == 2
    end = world.encoder.tokenizer.eos_token_id
    full = {p.problem: p for p in by_kind["full"]}
    for p in pairs:
        d = p.first_difference
        assert p.chosen_ids[:d] == p.rejected_ids[:d] and p.chosen_ids[d] != p.rejected_ids[d]
        assert p.chosen_eos == p.rejected_eos == (p.chosen_ids[-1] == end) == (p.rejected_ids[-1] == end)
    for p in by_kind["edited"]:
        # the step in its place in the chosen solution, after the plain prompt
        whole = full[p.problem]
        prompt = len(whole.context_ids)
        assert p.context_ids[:prompt] == whole.context_ids
        at = len(p.context_ids) - prompt
        assert p.context_ids[prompt:] == whole.chosen_ids[:at] and p.chosen_ids == whole.chosen_ids[at : at + len(p.chosen_ids)]
        assert p.error and whole.parents[0] == p.parents[0]
    assert all(p.chosen_eos and p.rejected.endswith("7777") for p in by_kind["full"])
    assert metrics["kinds"] == {"full": 24, "edited": len(by_kind["edited"])} and metrics["problems_used"] == 24
    assert metrics["edit_outcomes"]["kept"] >= len(by_kind["edited"]) and metrics["too_long"] == 0


def test_arms_and_lengths(world: World) -> None:
    edit = world.edit()
    world.run(edit)
    assert world.run(world.pairs(None, arm="full_only"))[1]["kinds"] == {"full": 24}
    assert set(world.run(world.pairs(edit, arm="edited_only"))[1]["kinds"]) == {"edited"}
    whole = world.run(world.pairs(edit))[0]
    longest = max(len(p.context_ids) + max(len(p.chosen_ids), len(p.rejected_ids)) for p in world.rows(whole, Pair))
    artefact, metrics = world.run(world.pairs(edit, max_length=longest - 1))
    assert metrics["too_long"] >= 1
    assert metrics["pairs"] + metrics["too_long"] == len(world.rows(whole, Pair))
    assert all(len(p.context_ids) + len(p.chosen_ids) < longest for p in world.rows(artefact, Pair))
    with pytest.raises(RatchetError, match=r"pairs\.min_pairs"):
        world.run(world.pairs(edit, max_length=10))


def test_problems_without_both_outcomes_are_dropped_with_the_reason(tmp_path: Path, bundled: ResolvedModel) -> None:
    problems = solved(4)
    right, wrong = problems[0][1][0], problems[1][1][1]
    world = World(tmp_path / "s", bundled.path, [(problems[0][0], [right]), (problems[1][0], [wrong]), *problems[2:]])
    edit = world.edit()
    assert world.run(edit)[1]["dropped/no_wrong"] == 1
    metrics = world.run(world.pairs(edit))[1]
    assert metrics["dropped"] == {"no_correct": 1, "no_wrong": 1} and metrics["problems_used"] == 2
    lone = world.edit(without_wrong=True)
    world.run(lone)
    metrics = world.run(world.pairs(lone, without_wrong=True))[1]
    assert metrics["dropped"] == {"no_correct": 1} and metrics["kinds"] == {"full": 2, "edited": 3}


def test_a_truncated_negative_has_no_end_token(tmp_path: Path, bundled: ResolvedModel) -> None:
    (problem, texts), *_ = solved(1)
    world = World(tmp_path / "s", bundled.path, [(problem, [texts[0], ("3 + 4 = 7\nSo she has", "length")])])
    with pytest.raises(RatchetError, match="no_wrong"):
        world.run(world.pairs(None, arm="full_only"))
    artefact, _ = world.run(world.pairs(None, arm="full_only", truncated_negatives=True))
    (pair,) = world.rows(artefact, Pair)
    assert pair.chosen_eos and not pair.rejected_eos


def test_rows_depend_on_the_seed_alone(tmp_path: Path, bundled: ResolvedModel) -> None:
    """Two stores, shards in another order: the same bytes."""
    found = []
    for name, order in (("a", (0, 1)), ("b", (1, 0))):
        world = World(tmp_path / name, bundled.path, solved(8), size=4)
        task = task_of(world.edit(), world.store)
        work.forget()
        for shard in order:
            work.run_shard(task, shard)
        found.append([task.artefact.part(s).read_bytes() for s in (0, 1)])
    assert found[0] == found[1]


def test_self_edits_and_rollouts_run_through_the_engine(tmp_path: Path, tiny_model: Path) -> None:
    """A random model edits nothing that is kept; `auto` falls back; undecided edits go to rollouts."""
    world = World(tmp_path / "store", tiny_model, solved(4), size=2)
    try:
        alone = world.edit(editor="self", attempts=2)
        artefact, metrics = world.run(alone)
        assert set(metrics["by_editor"]) == {"self"} and metrics["edits"] == 8
        auto = world.edit(editor="auto", attempts=3)
        artefact, metrics = world.run(auto)
        assert set(metrics["by_editor"]) == {"self", "programmatic"} and metrics["kept"] > 0
        rolled = world.edit(certify="rollouts", attempts=2)
        artefact, metrics = world.run(rolled)
        assert metrics["kept"] == 0 and metrics["outcomes"]["undecided"] > 0
        before = world.rows(artefact, Edit)
        artefact, metrics = world.run(world.rollouts(rolled, significance=0.5))
        after = world.rows(artefact, Edit)
        assert [e.id for e in before] == [e.id for e in after] and metrics["prefixes"] > 0
        decided = [(b, a) for b, a in zip(before, after, strict=True) if b.outcome == "undecided" and not b.last]
        assert decided and all(a.outcome in ("kept", "rollouts") for _, a in decided)
        assert [a for a in after if a.outcome not in ("kept", "rollouts", "undecided")] == [
            b for b in before if b.outcome != "undecided"
        ]
    finally:
        close_engine()


def test_a_resumed_shard_draws_nothing_twice(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path / "store", tiny_model, solved(4), size=4)
    try:
        task = task_of(world.edit(editor="self", attempts=2, batch_size=2), world.store)
        work.forget()
        work.run_shard(task, 0)
        whole = task.artefact.part(0).read_bytes()
        journal = next(task.artefact.work.glob("journal-*"))
        lines = journal.read_bytes().splitlines(keepends=True)
        assert len(lines) > 2
        journal.write_bytes(b"".join(lines[:2]) + lines[2][: len(lines[2]) // 2])  # killed while writing the third group
        task.artefact.part(0).unlink()
        work.marker(task, 0).unlink()
        work.forget()
        work.run_shard(task, 0)
        assert task.artefact.part(0).read_bytes() == whole
        assert work.shard_results(task, 1)[0].timing["resumed"] == 4
    finally:
        close_engine()


def test_rollouts_keep_what_they_show_wrong(tmp_path: Path, bundled: ResolvedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an engine that solves the problem from the original prefix and never from the edited one."""
    from data_gen.engine import Completion
    from pipelines import journalled

    world = World(tmp_path / "store", bundled.path, solved(3), size=3)
    rolled = world.edit(certify="rollouts", attempts=2)
    before = world.rows(world.run(rolled)[0], Edit)
    golds = {p.id: p.answer for p, _ in solved(3)}

    class Engine:
        def set_adapter(self, path: Path | None) -> None: ...

        def generate(self, requests, done=()):
            for r in requests:
                right = r.id.endswith("/original")
                answer = golds[r.id.split("#")[0]] if right else "9999"
                yield [Completion(request=r.id, index=i, seed=s, token_ids=[1], logprobs=[0.0], text=f"#### {answer}",
                                  finish_reason="stop") for i, s in enumerate(r.seeds)]  # fmt: skip

    monkeypatch.setattr(journalled, "engine_for", lambda config, threads: Engine())
    artefact, metrics = world.run(world.rollouts(rolled, rollouts=8, significance=0.05))
    rows = world.rows(artefact, Edit)
    kept = [e for e in rows if e.outcome == "kept"]
    assert len(kept) == sum(e.outcome == "undecided" and not e.last for e in before) > 0
    assert all(e.certificate == "rollouts: 0 of 8 against 8 of 8, p = 0.0001" for e in kept)
    assert metrics["kept"] == len(kept)
