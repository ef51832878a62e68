"""Checkpoints: whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainers.checkpoint import Pace, SaveError, load_checkpoint, save_checkpoint


def _state(fused: bool = False, device: str = "cpu") -> tuple[dict[str, torch.nn.Parameter], torch.optim.Optimizer]:
    torch.manual_seed(0)
    tensors = {"a.weight": torch.randn(3, 2), "weight": torch.randn(4)}
    parameters = {name: torch.nn.Parameter(t.to(device)) for name, t in tensors.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1, fused=fused)
    return parameters, optimizer


def _step(parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    sum((p**2).sum() * torch.rand(()) for p in parameters.values()).backward()  # type: ignore[union-attr]
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize(
    ("fused", "device"), [(False, "cpu"), (True, "cpu"), pytest.param(True, "cuda", marks=pytest.mark.gpu)]
)
def test_restored_training_goes_on_identically(tmp_path: Path, fused: bool, device: str) -> None:
    parameters, optimizer = _state(fused, device)
    for _ in range(3):
        _step(parameters, optimizer)
    save_checkpoint(tmp_path, 3, parameters, optimizer, {"history": [1]})
    for _ in range(2):
        _step(parameters, optimizer)
    restored, other = _state(fused, device)
    assert load_checkpoint(tmp_path, restored, other) == {"step": 3, "history": [1]}
    for _ in range(2):
        _step(restored, other)
    for name in parameters:
        assert torch.equal(parameters[name], restored[name])


def test_a_half_written_checkpoint_is_ignored_and_removed(tmp_path: Path) -> None:
    parameters, optimizer = _state()
    _step(parameters, optimizer)
    save_checkpoint(tmp_path, 1, parameters, optimizer, {})
    half = tmp_path / ".checkpoint-2.tmp"
    half.mkdir()
    (half / "state.safetensors").write_bytes(b"half")
    restored, other = _state()
    state = load_checkpoint(tmp_path, restored, other)
    assert state is not None and state["step"] == 1
    assert not half.exists()


def test_only_the_latest_is_kept(tmp_path: Path) -> None:
    parameters, optimizer = _state()
    for step in (1, 2, 10):
        _step(parameters, optimizer)
        save_checkpoint(tmp_path, step, parameters, optimizer, {})
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-10"]


def test_a_failing_write_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters, optimizer = _state()
    _step(parameters, optimizer)
    save_checkpoint(tmp_path, 1, parameters, optimizer, {})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainers.checkpoint.save_file", full)
    with pytest.raises(SaveError, match="No space") as caught:
        save_checkpoint(tmp_path, 2, parameters, optimizer, {})
    assert caught.value.errno == 28
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-1"]
    restored, other = _state()
    state = load_checkpoint(tmp_path, restored, other)
    assert state is not None and state["step"] == 1


def test_nothing_there_is_none(tmp_path: Path) -> None:
    parameters, optimizer = _state()
    assert load_checkpoint(tmp_path, parameters, optimizer) is None


def test_checkpoints_are_a_minute_apart_and_rarer_where_saving_takes_long() -> None:
    now = [0.0]
    pace = Pace("auto", clock=lambda: now[0])
    assert not pace.due(1)
    now[0] = 60.0
    assert pace.due(2)
    with pace.saving():
        now[0] += 10.0
    now[0] += 199.0
    assert not pace.due(3), "saving took ten seconds"
    now[0] += 1.0
    assert pace.due(4)
    assert [Pace(3).due(n) for n in range(1, 7)] == [False, False, True, False, False, True]
