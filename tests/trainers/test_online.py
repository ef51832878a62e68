"""Online training: the parts are the whole, bit by bit; and the schedules that go through all of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import RatchetError
from configs.schema import InfiniteSection, TrainingSection
from trainers.loop import Online, Record, batch_plan, train
from trainers.schedule import Schedule, learning_rate
from trainers.sft import SupervisedFineTuning

from .test_sft import EXAMPLES


def settings(**more: object) -> TrainingSection:
    plain = {"adapter": "full", "batch_size": 4, "checkpoint_every": 3, "learning_rate": 1e-3}
    return TrainingSection.model_validate(plain | more)


def part(
    model: Path, folder: Path, s: TrainingSection, online: Online | None, start: Path | None = None, adapter: Path | None = None
) -> list[Record]:
    """One stage of training on EXAMPLES (14 of them: 4 steps an epoch); its weights go to folder/model."""
    method = SupervisedFineTuning(EXAMPLES, s, 5, online.epochs if online else 0)
    return train(
        method, s, base=start or model, dtype="float32", start=adapter, seed=5, work=folder / "work", output=folder / "model",
        report=lambda _: None, online=online,
    )


def weights(folder: Path) -> bytes:
    return next((folder / "model").glob("*model.safetensors")).read_bytes()


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "infinite"])
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_three_online_stages_are_one_training(tiny_model: Path, tmp_path: Path, schedule: str, adapter: str):
    more = {
        "schedule": schedule, "adapter": adapter, "lora": {"r": 4, "dropout": 0.1}, "warmup_ratio": 0.2, "weight_decay": 0.1,
    }
    whole = settings(steps=12, **more)
    history = part(tiny_model, tmp_path / "whole", whole, None)
    s, found = settings(steps=4, **more), []
    before: Path | None = None
    for i in range(3):
        here = tmp_path / f"part{i}"
        online = Online.following(12, here / "state", before and before / "state")
        assert (online.steps, online.epochs) == (4 * i, i)
        trained = before and before / "model"
        full = adapter == "full"
        found += part(tiny_model, here, s, online, trained if full else None, None if full else trained)
        before = here
    assert weights(tmp_path / "whole") == weights(tmp_path / "part2")
    assert [{**r, "step": 0} for r in found] == [{**r, "step": 0} for r in history]


class _Killed(Exception):
    pass


@pytest.mark.parametrize("kill_at", [2, 6, 9])
@pytest.mark.parametrize("anneal", ["last", "each"])
def test_a_killed_online_stage_goes_on_to_the_same_weights_and_state(
    tiny_model: Path, tmp_path: Path, kill_at: int, anneal: str
):
    s = settings(steps=10, schedule="infinite", infinite={"anneal": anneal, "anneal_ratio": 0.4})
    part(tiny_model, tmp_path / "first", s, Online.following(20, tmp_path / "first" / "state", None))
    start = tmp_path / "first"

    def second(folder: Path, kill: int | None) -> None:
        online = Online.following(20, folder / "state", start / "state")
        method = SupervisedFineTuning(EXAMPLES, s, 5, online.epochs)

        def report(values: dict[str, float]) -> None:
            if values["done"] == kill:
                raise _Killed

        train(method, s, base=start / "model", dtype="float32", start=None, seed=5, work=folder / "work",
              output=folder / "model", report=report, online=online)  # fmt: skip

    second(tmp_path / "calm", None)
    with pytest.raises(_Killed):
        second(tmp_path / "killed", kill_at)
    second(tmp_path / "killed", None)
    for name in ("model/model.safetensors", "state/checkpoint-*/state.json", "state/checkpoint-*/state.safetensors"):
        calm, killed = (next((tmp_path / who).glob(name)) for who in ("calm", "killed"))
        assert calm.read_bytes() == killed.read_bytes(), name


def test_without_the_state_before_it_says_so(tmp_path: Path):
    with pytest.raises(RatchetError, match="no optimiser state to go on from"):
        Online.following(10, tmp_path / "after", tmp_path / "before")


def test_cosine_goes_over_the_whole_plan():
    s = settings(steps=5, warmup_ratio=0.2)
    parts = [Schedule(s, 5, 5 * i, 20).rate(step) for i in range(4) for step in range(5)]
    assert parts == [learning_rate(i, 20, 1e-3, "cosine", 0.2) for i in range(20)]
    assert Schedule(s, 5).rate(4) == learning_rate(4, 5, 1e-3, "cosine", 0.2), "alone: a schedule of its own"


def test_the_infinite_schedule_warms_up_cools_down_stays_and_anneals():
    infinite = {"cooldown_ratio": 0.2, "constant": 0.5, "anneal_ratio": 0.25, "minimum": 0.05, "anneal": "last"}
    s = settings(steps=20, schedule="infinite", warmup_ratio=0.1, infinite=infinite, learning_rate=1.0)
    rates = [Schedule(s, 20).rate(i) for i in range(20)]
    assert rates[:3] == [0.5, 1.0, 1.0], "two steps of warm-up"
    assert rates[2:7] == sorted(rates[2:7], reverse=True) and rates[6] == pytest.approx(0.5)
    assert rates[6:16] == [pytest.approx(0.5)] * 10
    assert rates[15:] == [pytest.approx(0.5 * 0.1 ** (i / 5)) for i in range(5)], "constant (minimum / constant)^(i / n)"


def test_each_iteration_anneals_and_its_successor_goes_on_from_before():
    infinite = InfiniteSection(anneal="each", anneal_ratio=0.2, cooldown_ratio=0.0, constant=0.5, minimum=0.1).model_dump()
    s = settings(steps=10, schedule="infinite", warmup_ratio=0.0, infinite=infinite, learning_rate=1.0)
    first = Schedule(s, 10, 0, 30)
    assert first.trunk == 8
    assert [first.rate(i) for i in range(10)] == [0.5] * 9 + [pytest.approx(0.5 * (0.1 / 0.5) ** 0.5)]
    assert Schedule(s, 10, 8, 30).rate(0) == 0.5


@given(
    st.sampled_from(["cosine", "linear", "constant", "infinite"]), st.sampled_from(["last", "each"]), st.integers(1, 30),
    st.integers(1, 4), st.floats(0, 0.5), st.floats(0, 0.9), st.floats(0, 1),
)
def test_every_rate_is_positive_and_at_most_the_peak(
    kind: str, anneal: str, steps: int, stages: int, warmup: float, ratio: float, cooldown: float
):
    infinite = {"anneal": anneal, "anneal_ratio": ratio, "cooldown_ratio": cooldown}
    s = settings(steps=steps, schedule=kind, warmup_ratio=warmup, infinite=infinite, learning_rate=1.0)
    before = 0
    for _ in range(stages):
        schedule = Schedule(s, steps, before, steps * stages)
        assert 1 <= schedule.trunk <= steps
        rates = [schedule.rate(i) for i in range(steps)]
        assert all(0 < r <= 1.0 + 1e-12 and math.isfinite(r) for r in rates)
        before += schedule.trunk


def test_steps_take_as_many_epochs_as_they_need():
    plan = batch_plan(5, 99, 2, seed=1, steps=7, first_epoch=3)
    assert [epoch for epoch, _ in plan] == [3, 3, 3, 4, 4, 4, 5]
    assert plan[3:6] == batch_plan(5, 1, 2, seed=1, first_epoch=4)
    assert sorted(i for _, items in plan[:3] for i in items) == [0, 1, 2, 3, 4]
