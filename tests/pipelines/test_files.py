from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import InputError, RatchetError
from pipelines.files import disk_error, exclusively, read_json, sha256_of, write_json, writing


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_written_file_is_whole_and_alone(tmp_path: Path):
    with writing(tmp_path / "deep" / "a.txt") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "deep" / "a.txt").exists(), "nothing has the name before it is complete"
    assert content(tmp_path) == {"deep/a.txt": b"new"}


def test_a_folder_gets_its_name_at_once(tmp_path: Path):
    with writing(tmp_path / "model") as temporary:
        temporary.mkdir()
        (temporary / "config.json").write_text("{}")
    assert content(tmp_path) == {"model/config.json": b"{}"}


@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), MemoryError()])
def test_after_an_exception_the_old_file_is_intact_and_nothing_else_there(
    tmp_path: Path, error: BaseException, kind: str
):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(type(error)), writing(path) as temporary:
        if kind == "folder":
            temporary.mkdir()
            (temporary / "x").write_text("half")
        elif kind == "file":
            temporary.write_text("half")
        raise error
    assert content(tmp_path) == {"a": b"old"}


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (errno.ENOSPC, RatchetError, "no space left while writing"),
        (errno.EDQUOT, RatchetError, "no space left while writing"),
        (errno.EACCES, InputError, "choose a folder that you may write to"),
        (errno.EROFS, InputError, "choose a folder that you may write to"),
        (errno.EIO, RatchetError, "cannot write"),
    ],
)
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, code: int, kind: type[RatchetError], said: str
):
    path = tmp_path / "a"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, where, fail)
        with pytest.raises(kind) as caught:
            write_json(path, {"x": 1})
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert content(tmp_path) == {"a": b"old"}


def test_a_disk_that_is_really_full_leaves_the_old_file(tmp_path: Path):
    """The limit on file size makes write() itself fail, for JSON and for Parquet."""
    code = """
import resource, sys
from pathlib import Path
from configs.errors import RatchetError
from configs.rows import VerdictRow
from pipelines.files import write_json
from pipelines.store import Journal, write_rows
folder = Path(sys.argv[1])
write_json(folder / "a.json", "old")
rows = [VerdictRow(id=f"{i*i}", parents=[], stage="s", sample=f"{i**5}", problem="", outcome="", extracted=None,
                   detail=str(i**9)) for i in range(3000)]
journal = Journal(folder / "j.jsonl")
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for act in (lambda: write_json(folder / "a.json", "x" * 9000), lambda: write_rows(folder / "b", rows, VerdictRow),
            lambda: [journal.append("y" * 1000) for _ in range(9)]):
    try:
        act()
    except RatchetError as e:
        print(type(e).__name__, e)
again = Journal(folder / "j.jsonl")
print(len(again.groups), len(journal.groups))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [
        f"RatchetError no space left while writing {tmp_path / name}" for name in ("a.json", "b", "j.jsonl")
    ]
    assert lines[3] == "4 4", "four whole lines fit; the torn one is cut off"
    assert sorted(content(tmp_path)) == ["a.json", "j.jsonl"]
    assert read_json(tmp_path / "a.json") == "old"


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file/sub/a\.json"):
        write_json(tmp_path / "file" / "sub" / "a.json", 1)
    with pytest.raises(InputError, match="cannot write"), exclusively(tmp_path / "file" / "sub" / ".lock"):
        pass
    assert content(tmp_path) == {"file": b""}


@pytest.mark.parametrize("text", ["{", "", "\0"])
def test_damaged_json_is_an_input_error_that_names_the_file(tmp_path: Path, text: str):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json: cannot be read as JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(InputError, match=r"none\.json"):
        read_json(tmp_path / "none.json")


def test_json_is_the_same_for_equal_values(tmp_path: Path):
    write_json(tmp_path / "a", {"x": "é", "b": [1]})
    write_json(tmp_path / "b", {"b": [1], "x": "é"})
    assert sha256_of(tmp_path / "a") == sha256_of(tmp_path / "b")
    assert read_json(tmp_path / "a") == {"x": "é", "b": [1]}


def test_sha256(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_errors_differ_in_exit_code_and_in_the_way_out(home: Path, tmp_path: Path):
    """RATCHET_HOME is the way out for what lies in it, not for a file that the user has named."""
    for path, ours in ((home / "store", True), (tmp_path / "out.jsonl", False)):
        full = disk_error(OSError(errno.ENOSPC, "No space left on device"), path)
        denied = disk_error(OSError(errno.EACCES, "Permission denied"), path)
        assert (full.exit_code, denied.exit_code) == (1, 2)
        assert [("RATCHET_HOME" in str(e)) for e in (full, denied)] == [ours, ours]
