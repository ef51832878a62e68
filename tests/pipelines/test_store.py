from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import InputError
from pipelines.files import read_json, sha256_of
from pipelines.store import Journal, Progress, Store, publish_model

GROUPS = [[{"request": "p/1", "text": "4\n"}, {"request": "p/1", "text": ""}], [{"request": "ü", "text": "x" * 40}], []]


def test_an_artefact_is_done_when_its_manifest_is_there(tmp_path: Path):
    store = Store(tmp_path)
    artefact = store.artefact("sample", "k1")
    assert not artefact.done
    artefact.work.mkdir(parents=True)
    artefact.part(0).write_text("rows")
    assert not artefact.done
    store.finish(artefact, {"rows": 3})
    assert artefact.done
    assert artefact.manifest()["rows"] == 3
    assert not artefact.work.exists()


def test_the_manifest_covers_what_belongs_to_the_artefact(tmp_path: Path):
    store = Store(tmp_path)
    artefact = store.artefact("train", "k")
    for name in ("part-00000.parquet", "model/a.safetensors", "train.jsonl", "work/journal", ".model.tmp/half"):
        (artefact.path / name).parent.mkdir(parents=True, exist_ok=True)
        (artefact.path / name).write_text(name)
    store.finish(artefact, {})
    files = artefact.manifest()["files"]
    assert sorted(files) == ["model/a.safetensors", "part-00000.parquet", "train.jsonl"]
    part = artefact.part(0)
    assert files[part.name] == {"sha256": sha256_of(part), "bytes": part.stat().st_size}


def test_what_killed_writers_left_goes_when_the_artefact_is_finished(tmp_path: Path):
    store = Store(tmp_path)
    artefact = store.artefact("sample", "k")
    artefact.work.mkdir(parents=True)
    artefact.part(0).write_text("rows")
    (artefact.path / ".part-00000.parquet.4711.tmp").write_text("ro")
    store.finish(artefact, {})
    assert sorted(p.name for p in artefact.path.iterdir()) == ["manifest.json", "part-00000.parquet"]


def test_what_a_kill_after_the_manifest_left_goes_at_the_next_use(tmp_path: Path):
    store = Store(tmp_path)
    artefact = store.artefact("sample", "k")
    artefact.part(0).parent.mkdir(parents=True)
    artefact.part(0).write_text("rows")
    store.finish(artefact, {})
    artefact.work.mkdir()
    (artefact.work / "shard-00000.json").write_text("{}")
    (artefact.path / ".manifest.json.4711.tmp").write_text("{")
    store.tidy(artefact)
    assert sorted(p.name for p in artefact.path.iterdir()) == ["manifest.json", "part-00000.parquet"]


def test_only_complete_artefacts_are_listed(tmp_path: Path):
    store = Store(tmp_path)
    for key in ("b", "a"):
        store.finish(store.artefact("sample", key), {})
    store.artefact("sample", "c").work.mkdir(parents=True)
    assert [m["key"] for m in store.manifests("sample")] == ["a", "b"]
    assert store.manifests("train") == []


def test_a_store_that_cannot_be_written_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file/store: .*set RATCHET_HOME"):
        Store(tmp_path / "file" / "store")
    assert [p.name for p in tmp_path.rglob("*")] == ["file"]


def test_a_damaged_manifest_is_named(tmp_path: Path):
    artefact = Store(tmp_path).artefact("sample", "k")
    artefact.path.mkdir(parents=True)
    (artefact.path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"k/manifest\.json"):
        artefact.manifest()


def test_the_lock_keeps_a_second_process_waiting(tmp_path: Path):
    code = """
import sys
from pathlib import Path
from pipelines.store import Store
store = Store(Path(sys.argv[1]))
print("waiting", flush=True)
with store.lock(store.artefact("sample", "k")):
    print("held", flush=True)
"""
    store = Store(tmp_path)
    artefact = store.artefact("sample", "k")
    with store.lock(artefact):
        with store.lock(store.artefact("sample", "other")):
            pass  # another artefact is free
        other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "waiting\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.3)
    assert other.communicate(timeout=10)[0] == "held\n"


def written(path: Path, groups: list[Any]) -> bytes:
    journal = Journal(path)
    for group in groups:
        journal.append(group)
    journal.close()
    return path.read_bytes()


def test_a_journal_cut_anywhere_keeps_the_whole_groups_and_goes_on(tmp_path: Path):
    path = tmp_path / "work" / "j.jsonl"
    whole = written(path, GROUPS)
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == len(GROUPS)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        journal = Journal(path)
        kept = sum(end <= cut for end in ends)
        assert journal.groups == GROUPS[:kept]
        for group in GROUPS[kept:]:
            journal.append(group)
        journal.close()
        assert path.read_bytes() == whole


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]))), max_size=4), garbage=st.binary())
def test_a_journal_with_a_torn_tail_of_any_bytes_keeps_the_groups(tmp_path: Path, groups: list[Any], garbage: bytes):
    path = tmp_path / "j.jsonl"
    path.unlink(missing_ok=True)
    whole = written(path, groups)
    path.write_bytes(whole + b"{" + garbage.replace(b"\n", b""))
    journal = Journal(path)
    journal.close()
    assert journal.groups == groups
    assert path.read_bytes() == whole


def test_after_a_damaged_line_nothing_is_believed(tmp_path: Path):
    path = tmp_path / "j.jsonl"
    for damaged in (b"{torn", b'["\xff"]'):
        path.write_bytes(b'["a"]\n' + damaged + b'\n["b"]\n')
        assert Journal(path).groups == [["a"]]
        assert path.read_bytes() == b'["a"]\n'


def test_progress_is_replaced_whole_and_not_too_often(tmp_path: Path):
    path = tmp_path / "work" / "progress-00000.json"
    report = Progress(path, interval=100.0)
    report({"done": 1})
    report({"done": 2})
    assert msgspec.json.decode(path.read_bytes())["done"] == 1
    Progress(path, interval=0.0)({"done": 3})
    assert read_json(path)["done"] == 3
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_progress_never_stops_the_work(tmp_path: Path):
    (tmp_path / "file").write_text("")
    Progress(tmp_path / "file" / "progress.json", interval=0.0)({"done": 1})


def test_a_model_is_published_over_an_older_one(tmp_path: Path):
    artefact = Store(tmp_path).artefact("train", "k")
    for text in ("first", "second"):
        temporary = artefact.path / ".model.tmp"
        temporary.mkdir(parents=True)
        (temporary / f"{text}.safetensors").write_text(text)
        publish_model(artefact, temporary)
    assert [p.name for p in artefact.path.iterdir()] == ["model"]
    assert [p.name for p in artefact.model.iterdir()] == ["second.safetensors"]
