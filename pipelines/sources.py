"""A recipe's problem sources as stages: settled for this machine, and keyed by what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from configs.evaluation_section import SourceSection
from configs.keys import content_key
from configs.merge import merge
from data_gen.dataset_source import is_local, pinned
from pipelines.files import sha256_of
from pipelines.stage import Stage


def settle(source: dict[str, Any]) -> None:
    """Make local paths absolute, so that a resume from another folder finds the same files, and name the commit of
    a set on the hub, so that a later run reads the same rows. `source`: a dumped section, changed in place."""
    path = source["path"]
    if path is None:
        return
    if source["source"] != "datasets" or is_local(str(Path(path).expanduser())):
        source["path"] = str(Path(path).expanduser().absolute())
    else:
        source["revision"] = pinned(path, source["revision"])


def settle_all(train: dict[str, Any], phases: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> None:
    """Settle the training problems of a recipe, what its phases change in them, and other sources."""
    sections = [p.get("data") or {} for p in phases]
    changed = [(own, merge(train, own)) for section in sections if (own := section.get("train"))]
    extra: list[dict[str, Any]] = []
    for section in sections:
        if isinstance(section.get("extra"), list):  # whole sources, where `train` is what changes in one
            section["extra"] = [SourceSection.model_validate(source).model_dump() for source in section["extra"]]
            extra += section["extra"]
    for source in (train, *(whole for _, whole in changed), *extra, *others):
        settle(source)
    for own, whole in changed:  # a phase with a set of its own must not take over the commit of the recipe's
        own |= {k: whole[k] for k in ("path", "revision") if k in own or whole[k] != train[k]}


def problems_stage(label: str, source: SourceSection) -> Stage:
    """The stage that loads a source. Local data is keyed by content: a changed file is another artefact."""
    tables = source.source == "datasets"
    # keys that came with a source are left out of the others, whose artefacts stay what they were
    config: dict[str, Any] = source.model_dump(exclude={"path", *source.unread})
    if source.path is None:
        return Stage("problems", label, config)
    if tables and not is_local(source.path):
        return Stage("problems", label, {**config, "path": source.path})
    path = Path(source.path).expanduser().resolve()
    if not (path.is_file() or (tables and path.is_dir())):
        raise ConfigError(f"{label}: {path} does not exist")
    # the name too: it is part of the ids of rows that bring none
    content = _folder_content(path) if path.is_dir() else sha256_of(path)
    return Stage("problems", label, {**config, "content": content_key(path.name, content)}, paths={"path": str(path)})


def _folder_content(folder: Path) -> list[list[str]]:
    """Name and sha256 of every file that is not hidden."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    named = [(p.relative_to(folder), p) for p in files]
    return [[n.as_posix(), sha256_of(p)] for n, p in named if not any(part.startswith(".") for part in n.parts)]
