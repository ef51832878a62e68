"""A trained model as a folder of its own: an adapter in PEFT's format, or merged into its base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from configs.errors import InputError, RatchetError
from pipelines.export.base import Base, base_of
from pipelines.export.card import Card, loading
from pipelines.export.source import Source
from pipelines.files import disk_error, writing


def export_weights(source: Source, what: str, to: Path, base_model: str | None) -> list[str]:
    """Write `model` or `adapter` to a folder, whole or not at all; lines that say what was written and how to load it."""
    if to.suffix in (".jsonl", ".parquet"):
        raise InputError(f"--to {to}: --what {what} writes a folder; a file takes rows: --what sft, pairs, samples, ...")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"{to} exists: remove it or choose another --to")
    trained = source.trained_by()
    adapter = trained.manifest()["config"]["training"]["adapter"]
    if what == "adapter" and adapter == "full":
        raise InputError(f"{source.name} has no adapter: its training changed all weights; give --what model")
    base = base_of(source, base_model)
    folder = to.resolve()  # `.` has no name that something could be written beside
    here = folder == Path.cwd()
    with writing(folder) as temporary:
        merged = None
        if what == "adapter":
            temporary.mkdir()
            _copy_adapter(trained.model, temporary, base)
        elif adapter == "full":
            shutil.copytree(trained.model, temporary)
            merged = "full"
        else:
            merged = _merged(source.model.path, trained.model, temporary)
        Card(source, base, merged).write(temporary)
    size = sum(f.stat().st_size for f in folder.iterdir())
    kind = {None: "adapter", "full": "model"}.get(merged, f"merged model, {merged}")
    below = base.hub if base.hub and base.exact else str(source.model.path)
    code, command = loading(below, merged, str(to), source.recipe)
    replaced = ["  the folder that you are in was replaced: `cd .` shows what it holds"] if here else []
    return [f"{source.name} -> {to} ({kind}, {size / 1e6:,.1f} MB, with a model card)", *replaced, "", *code, "", command]


def _merged(base: Path, adapter: Path, folder: Path) -> str:
    from trainers.checkpoint import SaveError
    from trainers.merge import save_merged

    try:
        return save_merged(base, adapter, folder)
    except SaveError as e:
        raise disk_error(e, folder) from e
    except ValueError as e:  # PEFT's word for weights that are not finite
        raise RatchetError(f"{adapter} cannot be merged: {e}") from e


def _copy_adapter(adapter: Path, folder: Path, base: Base) -> None:
    """The adapter as it was trained; its config names the base where the run's weights are the hub's own."""
    shutil.copyfile(adapter / "adapter_model.safetensors", folder / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base.hub if base.exact else None
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
