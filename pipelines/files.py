"""Files that are whole or absent: write to a temporary name, fsync, rename."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from configs.errors import InputError, RatchetError
from pipelines.home import home

TORN = (msgspec.DecodeError, UnicodeDecodeError)  # what msgspec says of half a file, or of other bytes in its place


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on any error it is removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        fsync_tree(temporary)
        os.replace(temporary, path)
        fsync(path.parent)
    except OSError as e:
        raise disk_error(e, path) from e
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):  # absent, or its folder is what cannot be written
                temporary.unlink()


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Hold a lock file; waits for its holder. The lock ends with the process, however that ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
    except OSError as e:
        raise disk_error(e, path) from e
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def disk_error(error: OSError, path: Path) -> RatchetError:
    """A message for a failed write: full disk and missing permission named as such."""
    ours = path.resolve().is_relative_to(home())
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        way_out = "set RATCHET_HOME to a folder on another disk, then resume" if ours else "write to another disk"
        return RatchetError(f"no space left while writing {path}: free some space, or {way_out}; nothing half-written was kept")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        way_out = "set RATCHET_HOME to a folder" if ours else "choose a folder"
        return InputError(f"cannot write {path}: {error.strerror}; {way_out} that you may write to")
    return RatchetError(f"cannot write {path}: {error}")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with writing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`; a damaged file is an InputError naming it."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise InputError(f"{path}: cannot be read as JSON: {e}") from e


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder (not its files), to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(path: Path) -> None:
    """Flush a file, or a folder with all that is in it. Nobody else may be writing there."""
    if path.is_dir():
        for child in path.iterdir():
            fsync_tree(child)
    fsync(path)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
