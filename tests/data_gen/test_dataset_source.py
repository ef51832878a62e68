"""Problems from tables, through the real `datasets` library on real files."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from configs.errors import ConfigError, InputError
from data_gen.dataset_source import load_dataset_problems
from data_gen.problems import load_problems
from tests.data_gen.hub import COMMIT, serving

ROWS: list[dict[str, Any]] = [
    {"prob": "What is 3 + 4?", "sol": "3 + 4 = <<3+4=7>>7\n#### 7", "ans": "7", "lvl": "1", "key": "a"},
    {"prob": "What is 10 / 4?", "sol": "10 / 4 = 2.50\n#### 2.50", "ans": "2.50", "lvl": "2", "key": "b"},
    {"prob": "Wie viel\nist „1.000“?", "sol": "#### 1,000", "ans": "1,000", "lvl": "3", "key": "c"},
]
COLUMNS = {"question": "prob", "answer": "ans", "solution": "sol", "level": "lvl", "id": "key", "subject": None}

Write = Callable[[Path, list[dict[str, Any]]], Path]


def _jsonl(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "set.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def _jsonl_gz(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "set.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write("".join(json.dumps(r) + "\n" for r in rows))
    return path


def _json(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "set.json"
    path.write_text(json.dumps(rows, indent=1))
    return path


def _parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "set.parquet"
    datasets.Dataset.from_list(rows).to_parquet(path)
    return path


def _csv(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "set.csv"
    datasets.Dataset.from_list(rows).to_csv(path, index=False)
    return path


def _tsv(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "set.tsv"
    datasets.Dataset.from_list(rows).to_csv(path, sep="\t", index=False)
    return path


def _folder(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Splits by file name, in shards, with another column in the other split."""
    path = folder / "set" / "data"
    path.mkdir(parents=True)
    for number, part in enumerate((rows[:1], rows[1:])):
        datasets.Dataset.from_list(part).to_parquet(path / f"train-0000{number}-of-00002.parquet")
    datasets.Dataset.from_list([{"prob": 1}]).to_parquet(path / "test-00000-of-00001.parquet")
    return folder / "set"


def _saved(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "set"
    datasets.Dataset.from_list(rows).save_to_disk(path)
    return path


def _saved_splits(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "set"
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(path)
    return path


WRITERS = (_jsonl, _jsonl_gz, _json, _parquet, _csv, _tsv, _folder, _saved, _saved_splits)


@pytest.mark.parametrize("write", WRITERS, ids=lambda f: f.__name__.strip("_"))
def test_every_format_gives_the_same_problems(write: Write, tmp_path: Path) -> None:
    problems = load_dataset_problems(str(write(tmp_path, ROWS)), "train", COLUMNS)
    assert [(p.question, p.answer, p.solution, p.level, p.id) for p in problems] == [
        (r["prob"], r["ans"], r["sol"], r["lvl"], r["key"]) for r in ROWS
    ]
    assert {(p.source, p.split, p.stage) for p in problems} == {("datasets", "train", "problems")}
    without = load_dataset_problems(str(write(_made(tmp_path / "again"), ROWS)), "train", {"question": "prob", "answer": "ans"})
    assert [p.id for p in without] == [f"set/train/{i}" for i in range(3)]
    assert without[0].solution is None


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_gsm8k_as_it_is_published(tmp_path: Path) -> None:
    """Question and answer with a `####` line: the answer is extracted, the solution is the whole text."""
    columns = {"question": "prob", "answer": "sol", "solution": "sol"}
    problems = load_dataset_problems(str(_parquet(tmp_path, ROWS)), "train", columns, extract="gsm8k")
    assert [p.answer for p in problems] == ["7", "2.50", "1000"]
    assert problems[0].solution == ROWS[0]["sol"]


def test_math_as_it_is_published(tmp_path: Path) -> None:
    rows = [{"problem": "x?", "solution": r"so $x = \boxed{\frac{1}{2}}$.", "level": "Level 5", "type": "Algebra"}]
    columns = {"question": "problem", "answer": "solution", "solution": "solution", "level": "level", "subject": "type"}
    (problem,) = load_dataset_problems(str(_jsonl(tmp_path, rows)), "train", columns, extract="boxed")
    assert (problem.answer, problem.level, problem.subject) == (r"\frac{1}{2}", "Level 5", "Algebra")


def test_a_field_inside_a_struct(tmp_path: Path) -> None:
    rows = [{"prob": "1 + 1?", "reward_model": {"style": "rule", "ground_truth": "2"}}]
    columns = {"question": "prob", "answer": "reward_model.ground_truth"}
    (problem,) = load_dataset_problems(str(_parquet(tmp_path, rows)), "train", columns)
    assert problem.answer == "2"


def test_cells_of_a_csv_file_are_text(tmp_path: Path) -> None:
    """Nothing is read as a number, a missing value or a date; only an empty cell is missing."""
    path = tmp_path / "set.csv"
    path.write_text("prob,ans,lvl\nq0,0.10,\nq1,007,NA\nq2,NA,3\n")
    problems = load_dataset_problems(str(path), "train", {"question": "prob", "answer": "ans", "level": "lvl"})
    assert [(p.answer, p.level) for p in problems] == [("0.10", None), ("007", "NA"), ("NA", "3")]


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    path = _parquet(tmp_path, ROWS)
    with pytest.raises(ConfigError) as caught:
        load_dataset_problems(str(path), "train", {"question": "prb", "answer": "ans", "level": "difficulty"})
    assert str(caught.value) == (
        f"{path}: no column `prb` (columns.question), did you mean `prob`?; no column `difficulty` (columns.level). "
        "Columns there: prob, sol, ans, lvl, key"
    )


BAD: list[dict[str, Any]] = [
    {"prob": "q", "ans": "1", "key": "x"}, {"prob": None, "ans": "1", "key": "y"}, {"prob": "q", "ans": " ", "key": "z"},
    {"prob": "q", "ans": "2", "key": "x"}, {"prob": "q", "ans": "2", "key": None},
]  # fmt: skip


def test_bad_rows_are_all_reported_or_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, columns = str(_parquet(tmp_path, BAD)), {"question": "prob", "answer": "ans", "id": "key"}
    with pytest.raises(InputError) as caught:
        load_dataset_problems(path, "train", columns)
    assert str(caught.value).splitlines() == [
        f"{path}: 3 bad rows", "  row 1: question is missing; expected a string", "  row 2: answer is empty; expected text",
        "  row 3: id 'x' is already used in row 0", "Rows are counted from 0; `bad_rows: skip` leaves such rows out",
    ]
    problems = load_dataset_problems(path, "train", columns, bad_rows="skip")
    assert [p.id for p in problems] == ["x", "set/train/4"]
    assert "left out 3 of 5 rows" in caplog.text


def test_no_good_row_at_all_is_an_error_in_any_case(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 bad rows\n  row 0: no answer in the answer column: no ####"):
        load_dataset_problems(
            str(_jsonl(tmp_path, ROWS)), "train", {"question": "prob", "answer": "ans"}, extract="gsm8k", bad_rows="skip"
        )


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prob": ["a"], "ans": "1"}], "row 0: question is a list; expected a string"),
        ([{"prob": "q", "ans": True}], "row 0: answer is a boolean; expected a string or a number"),
        ([{"prob": "q", "ans": float("nan")}], "row 0: answer is nan"),
    ],
)
def test_values_that_are_no_text(rows: list[dict[str, Any]], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_dataset_problems(str(_parquet(tmp_path, rows)), "train", {"question": "prob", "answer": "ans"})
    assert said in str(caught.value)


def test_splits_and_configs_that_do_not_exist(tmp_path: Path) -> None:
    folder = _folder(tmp_path, ROWS)
    with pytest.raises(ConfigError, match="has no split 'validation'; it has: train, test"):
        load_dataset_problems(str(folder), "validation", COLUMNS)
    assert len(load_dataset_problems(str(folder), "train[1:]", COLUMNS)) == 2
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: A\n  data_files: data/train*\n- config_name: B\n"
                                      "  data_files: data/test*\n---\n")  # fmt: skip
    assert len(load_dataset_problems(str(folder), "train", COLUMNS, config="A")) == 3
    with pytest.raises(InputError, match=r"available configs: \['A', 'B'\]"):
        load_dataset_problems(str(folder), "train", COLUMNS)
    with pytest.raises(InputError, match="'C' not found"):
        load_dataset_problems(str(folder), "train", COLUMNS, config="C")
    with pytest.raises(ConfigError, match="is a file: `config` belongs to"):
        load_dataset_problems(str(folder / "data" / "test-00000-of-00001.parquet"), "train", config="A")


def test_a_folder_of_several_formats_is_refused(tmp_path: Path) -> None:
    """The library would read one and pass over the other."""
    _jsonl(tmp_path, ROWS)
    (tmp_path / "more.csv").write_text("prob,ans\nq,1\n")
    with pytest.raises(InputError, match=r"files that would not be read \(more.csv\)"):
        load_dataset_problems(str(tmp_path), "train", COLUMNS)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("set.parquet", b"not a parquet file", "Parquet magic bytes not found"),
        ("set.jsonl", b'{"prob": "a"}\n{"prob": nu\n', "JSON parse error"),
        ("set.jsonl.gz", b"not gzip", "Not a gzipped file"),
        ("set.pkl", b"x", "readable are .parquet, .jsonl"),
        ("set", b"x", "readable are .parquet, .jsonl"),
    ],
)
def test_damaged_and_foreign_files_are_input_errors(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_dataset_problems(str(path), "train", COLUMNS)
    assert str(path) in str(caught.value) and said in str(caught.value)


def test_nothing_in_a_folder_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    folder = _made(tmp_path / "set")
    (folder / "set.py").write_text(f"open({str(mark)!r}, 'w')")
    _jsonl(folder, ROWS)
    with pytest.raises(InputError, match="scripts are no longer supported"):
        load_dataset_problems(str(folder), "train", COLUMNS)
    assert not mark.exists()
    with pytest.raises(InputError, match="does not exist"):
        load_dataset_problems(str(tmp_path / "none"), "train", COLUMNS)


def test_a_changed_file_of_equal_size_and_time_is_read_again(tmp_path: Path) -> None:
    path = _jsonl(tmp_path, ROWS)
    stat = path.stat()
    assert load_dataset_problems(str(path), "train", COLUMNS)[0].answer == "7"
    _jsonl(tmp_path, [{**ROWS[0], "ans": "8"}, *ROWS[1:]])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert load_dataset_problems(str(path), "train", COLUMNS)[0].answer == "8"


def test_window_and_shuffle_as_for_every_source(tmp_path: Path) -> None:
    path = str(_jsonl(tmp_path, [{"question": str(i), "answer": i} for i in range(20)]))
    assert [p.answer for p in load_problems("datasets", "train", 3, 2, path=path)] == ["2", "3", "4"]
    shuffled = [p.answer for p in load_problems("datasets", "train", seed=1, path=path)]
    assert shuffled != [str(i) for i in range(20)] and sorted(shuffled, key=int) == [str(i) for i in range(20)]
    with pytest.raises(ConfigError, match="needs the option path"):
        load_problems("datasets", "train")


_HUB_CODE = """
import json, sys
from data_gen.dataset_source import load_dataset_problems, pinned
commit = pinned("team/sums", None)
found = [pinned("team/none", commit), commit]
for answer, extract in (("text", "gsm8k"), ("cell", "none")):
    columns = {"question": "question", "answer": answer}
    problems = load_dataset_problems("team/sums", "test", columns, "main", commit, extract)
    found += [[p.id, p.answer] for p in problems]
print(json.dumps(found))
pinned("team/none", None)
"""


def test_a_set_on_the_hub_by_name_and_commit(tmp_path: Path) -> None:
    """The real clients against a hub on this machine: the commit is settled, other splits are not fetched, and cells of a
    CSV file are text as those of a local one."""
    folder = tmp_path / "hub"
    (folder / "main").mkdir(parents=True)
    for split in ("train", "test"):
        (folder / "main" / f"{split}-0.csv").write_text('question,text,cell\n1 / 10?,"x\n#### 3",0.10\n')
    files = [{"split": split, "path": f"main/{split}*"} for split in ("train", "test")]
    card = yaml.safe_dump({"configs": [{"config_name": "main", "data_files": files}]})
    (folder / "README.md").write_text(f"---\n{card}---\n")
    with serving("team/sums", folder) as (endpoint, asked):
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run([sys.executable, "-c", _HUB_CODE], env=environment, capture_output=True, text=True)
    assert done.stdout, done.stderr
    name = "team/sums/main/test/0"
    assert json.loads(done.stdout) == [COMMIT, COMMIT, [name, "3"], [name, "0.10"]]
    assert "data set `team/none` is neither a file or folder here nor reachable on the hub" in done.stderr
    assert any("test-0.csv" in path for path in asked) and not any("train-0.csv" in path for path in asked)
