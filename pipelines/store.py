"""The artefact store: content-addressed folders that are complete when their manifest exists.

    <store>/<kind>/<key>/part-00000.parquet ...  or  model/...
    <store>/<kind>/<key>/manifest.json            written last
    <store>/<kind>/<key>/work/                    journals, checkpoints: gone once the artefact is complete

Folders are shared by all runs. Whoever computes an artefact holds a lock on it, so that two runs which want
the same one do not compute it twice.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import msgspec

from configs.errors import InputError
from configs.rows import Row, arrow_schema
from pipelines.files import TORN, disk_error, exclusively, fsync, fsync_tree, read_json, sha256_of, write_json, writing

MANIFEST = "manifest.json"


class Artefact(msgspec.Struct, frozen=True):
    """A finished or unfinished artefact: where it is and what made it."""

    kind: str
    key: str
    path: Path

    @property
    def done(self) -> bool:
        """Complete: the manifest has been written."""
        return (self.path / MANIFEST).is_file()

    @property
    def work(self) -> Path:
        """Folder for journals and checkpoints while the artefact is being made."""
        return self.path / "work"

    @property
    def model(self) -> Path:
        """The model files of a training artefact."""
        return self.path / "model"

    def manifest(self) -> dict[str, Any]:
        """The manifest of a complete artefact."""
        return read_json(self.path / MANIFEST)

    def part(self, shard: int) -> Path:
        """The file of one shard of rows."""
        return self.path / f"part-{shard:05d}.parquet"


def planned(plan: Mapping[str, Any], stage: Mapping[str, Any]) -> Artefact:
    """The artefact of a stage of the plan that a run has recorded, finished or not."""
    return Artefact(stage["kind"], stage["key"], Path(plan["store"]) / stage["kind"] / stage["key"])


class Store:
    """Artefacts under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
            probe = root / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as e:
            raise disk_error(e, root) from e

    def artefact(self, kind: str, key: str) -> Artefact:
        """The place of an artefact, whether it exists or not."""
        return Artefact(kind, key, self.root / kind / key)

    def lock(self, artefact: Artefact) -> AbstractContextManager[None]:
        """Hold the artefact for writing; waits while another process makes it."""
        return exclusively(artefact.path.parent / f".{artefact.key}.lock")

    def finish(self, artefact: Artefact, content: dict[str, Any]) -> None:
        """Write the manifest over whatever files the artefact holds, then drop the work folder.

        Temporary files of writers that were killed go first: nobody writes any more when all shards are done.
        """
        self._drop_temporary(artefact)
        files = {}
        for path in sorted(p for p in artefact.path.rglob("*") if p.is_file()):
            name = path.relative_to(artefact.path).as_posix()
            if not name.startswith(("work/", ".")) and name != MANIFEST:
                files[name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        write_json(artefact.path / MANIFEST, {"kind": artefact.kind, "key": artefact.key, "files": files, **content})
        shutil.rmtree(artefact.work, ignore_errors=True)

    def tidy(self, artefact: Artefact) -> None:
        """Drop what is left of a complete artefact's making, after a kill between the manifest and the clean-up."""
        if artefact.work.exists() or any(artefact.path.glob(".*.tmp")):
            with self.lock(artefact):
                self._drop_temporary(artefact)
                shutil.rmtree(artefact.work, ignore_errors=True)

    def _drop_temporary(self, artefact: Artefact) -> None:
        for leftover in artefact.path.glob(".*.tmp"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    def manifests(self, kind: str) -> list[dict[str, Any]]:
        """Manifests of all complete artefacts of a kind."""
        return [read_json(p) for p in sorted((self.root / kind).glob(f"*/{MANIFEST}"))]


def write_rows(path: Path, rows: Sequence[Row], row: type[Row]) -> None:
    """Write rows of one type to a Parquet file, atomically; equal rows give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: [getattr(r, name) for r in rows] for name in row.__struct_fields__}
    table = pa.table(columns, schema=arrow_schema(row))
    with writing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_rows(artefact: Artefact, row: type[Row], shards: Sequence[int] | None = None) -> list[Any]:
    """Rows of a complete artefact in shard order, checked against the manifest's sha256."""
    import pyarrow.parquet as pq

    files = artefact.manifest()["files"]
    names = sorted(n for n in files if n.startswith("part-"))
    rows: list[Any] = []
    for name in names if shards is None else [names[s] for s in shards]:
        path = artefact.path / name
        if not path.is_file() or sha256_of(path) != files[name]["sha256"]:
            raise InputError(
                f"{path} is missing or differs from its manifest: delete the folder {artefact.path} and run again"
            )
        rows += [msgspec.convert(r, row) for r in pq.read_table(path).to_pylist()]
    return rows


class Journal:
    """Rows of an unfinished shard, one JSON line for each group that finished together.

    A line is the unit: it is written and fsynced whole, and a torn last line is cut off when reopened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.groups: list[Any] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                self._recover()
            self._file = path.open("ab")
        except OSError as e:
            raise disk_error(e, path) from e

    def _recover(self) -> None:
        good = 0
        with self.path.open("rb") as f:
            for line in f:
                if not line.endswith(b"\n"):
                    break
                try:
                    self.groups.append(msgspec.json.decode(line))
                except TORN:
                    break
                good += len(line)
        with self.path.open("ab") as f:
            f.truncate(good)

    def append(self, group: Any) -> None:
        """Add one group and wait until it is on the disk."""
        try:
            self._file.write(msgspec.json.encode(group) + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as e:
            raise disk_error(e, self.path) from e
        self.groups.append(group)

    def close(self) -> None:
        self._file.close()


class Progress:
    """A worker's word on how far it is: a small file that is replaced now and then and read by the runner."""

    def __init__(self, path: Path, interval: float = 0.5) -> None:
        self.path, self.interval, self._last = path, interval, 0.0
        with suppress(OSError):  # of a full disk, whoever writes the rows will tell
            path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, values: dict[str, float]) -> None:
        now = time.monotonic()
        if now - self._last < self.interval:
            return
        self._last = now
        temporary = self.path.with_suffix(".tmp")
        with suppress(OSError):
            temporary.write_bytes(msgspec.json.encode({"pid": os.getpid(), **values}))
            os.replace(temporary, self.path)


def publish_model(artefact: Artefact, temporary: Path) -> None:
    """Give finished model files their name by one rename."""
    fsync_tree(temporary)
    shutil.rmtree(artefact.model, ignore_errors=True)
    os.rename(temporary, artefact.model)
    fsync(artefact.path)
