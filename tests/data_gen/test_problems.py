from __future__ import annotations

import gzip
import json
import logging
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError, InputError
from data_gen import procedural
from data_gen.problems import (
    BENCHMARKS,
    gsm8k_answer,
    last_boxed,
    load_problems,
    strip_calculator_marks,
)

GSM8K = [
    ("Ann has 48 clips and sells half.", "48/2 = <<48/2=24>>24 clips.\n#### 24", "24"),
    ("How many grams?", "It is <<1000+80=1080>>1,080.\n#### 1,080", "1080"),
    ("How cold is it?", "3 - 5 = -2\n#### -2", "-2"),
]
MATH = [
    ("Find $x$.", "So $x=\\boxed{\\frac{1}{2}}$.", "Level 5", "Algebra", "\\frac{1}{2}"),
    ("Count.", "There are $\\boxed{}$ primes.", "Level 4", "Counting & Probability", ""),
    ("Find $n$.", "First $\\boxed{1}$, then $\\boxed 2$.", "Level ?", "Geometry", "2"),
]
MATH500 = [("Find $y$.", "$\\boxed{p - q}$", "p - q", 3, "Precalculus", "test/precalculus/8.json")]
COUNTS = {
    ("gsm8k", "train"): 7473,
    ("gsm8k", "test"): 1319,
    ("math", "train"): 7498,
    ("math500", "test"): 500,
}
FULL_DATA = os.environ.get("RATCHET_DATA")  # before any test changes it


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(r) + "\n" for r in records)


@pytest.fixture
def small_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the layout of RATCHET_DATA with a few records of each set."""
    for split in ("train", "test"):
        write_lines(tmp_path / f"gsm8k_{split}.jsonl.gz", [
            {"id": f"gsm8k/{split}/{i}", "problem": q, "solution": s, "answer": a, "level": None}
            for i, (q, s, a) in enumerate(GSM8K)
        ])
    write_lines(tmp_path / "math_train.jsonl.gz", [
        {"id": f"math/train/{i}", "problem": q, "solution": s, "answer": a, "level": lv, "subject": sub}
        for i, (q, s, lv, sub, a) in enumerate(MATH)
    ])
    write_lines(tmp_path / "math500.jsonl.gz", [
        {"id": f"math500/{u}", "problem": q, "solution": s, "answer": a, "level": lv, "subject": sub}
        for q, s, a, lv, sub, u in MATH500
    ])
    monkeypatch.setenv("RATCHET_DATA", str(tmp_path))
    return tmp_path


def fake_hub(monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    monkeypatch.delenv("RATCHET_DATA", raising=False)
    module = types.ModuleType("datasets")
    module.load_dataset = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)


def hub_rows(name: str, config: str | None, split: str) -> list[dict[str, Any]]:
    """The same records with the names and the configs of the hub's sets."""
    if name == "openai/gsm8k":
        assert config == "main"
        return [{"question": q, "answer": s} for q, s, _ in GSM8K]
    if name == "HuggingFaceH4/MATH-500":
        assert split == "test"
        return [
            {"problem": q, "solution": s, "answer": a, "level": lv, "subject": sub, "unique_id": u}
            for q, s, a, lv, sub, u in MATH500
        ]
    position = ["algebra", "counting_and_probability", "geometry"]
    rows = zip(position, MATH, strict=True)
    return [
        {"problem": q, "solution": s, "level": lv, "type": sub}
        for where, (q, s, lv, sub, _) in rows
        if where == config
    ]


# --- benchmarks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "split"), list(COUNTS))
def test_hub_and_local_folder_give_the_same_rows(source, split, small_data, monkeypatch):
    local = load_problems(source, split)
    fake_hub(monkeypatch, lambda name, config, split: hub_rows(name, config, split))
    assert load_problems(source, split) == local
    assert local


def test_gsm8k_rows(small_data):
    first, second, third = load_problems("gsm8k", "train")
    assert (first.id, first.source, first.split) == ("gsm8k/train/0", "gsm8k", "train")
    assert (first.solution, first.stage, first.parents) == (GSM8K[0][1], "problems", [])
    assert [p.answer for p in (first, second, third)] == ["24", "1080", "-2"]
    assert strip_calculator_marks(first.solution or "") == "48/2 = 24 clips.\n#### 24"


def test_math_skips_and_logs_empty_answers_without_moving_ids(small_data, caplog):
    with caplog.at_level(logging.WARNING):
        problems = load_problems("math", "train")
    assert [p.id for p in problems] == ["math/train/0", "math/train/2"]
    assert [(p.answer, p.level, p.subject) for p in problems] == [
        ("\\frac{1}{2}", "5", "Algebra"),
        ("2", None, "Geometry"),
    ]
    assert "skipped math/train/1" in caplog.text


def test_math500_rows(small_data):
    (problem,) = load_problems("math500", "test")
    assert (problem.id, problem.answer, problem.level) == ("math500/test/precalculus/8.json", "p - q", "3")


def test_full_sets_where_they_are_present(small_data, monkeypatch):
    """With the full files: counts, and every answer equals the stored one. Always: the small files."""
    folder = Path(FULL_DATA) if FULL_DATA else small_data
    monkeypatch.setenv("RATCHET_DATA", str(folder))
    for (source, split), count in COUNTS.items():
        problems = load_problems(source, split)
        with gzip.open(folder / BENCHMARKS[source].files[split], "rt", encoding="utf-8") as file:
            stored = {r["id"]: r for r in map(json.loads, file)}
        for problem in problems:
            record = stored[problem.id]
            assert (problem.question, problem.solution) == (record["problem"], record["solution"])
            assert problem.answer == record["answer"].strip() != ""
        assert len({p.id for p in problems}) == len(problems)
        assert len(problems) == (count if FULL_DATA else sum(bool(r["answer"]) for r in stored.values()))


def test_unreachable_hub_names_the_way_out(monkeypatch):
    def load(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route to host")

    fake_hub(monkeypatch, load)
    with pytest.raises(InputError, match=r"openai/gsm8k.*no route to host.*RATCHET_DATA.*gsm8k_test"):
        load_problems("gsm8k", "test")


def test_missing_datasets_package_names_the_way_out(monkeypatch):
    monkeypatch.delenv("RATCHET_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"package datasets.*RATCHET_DATA"):
        load_problems("math500", "test")


def test_hub_set_with_other_columns_is_refused(monkeypatch):
    fake_hub(monkeypatch, lambda *_, **__: [{"text": "x"}])
    for source, split in COUNTS:
        with pytest.raises(InputError, match=f"record 0 is not one of {source}"):
            load_problems(source, split)


def test_data_folder_without_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("RATCHET_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"gsm8k_train.jsonl.gz does not exist.*RATCHET_DATA"):
        load_problems("gsm8k", "train")


@pytest.mark.parametrize("keep", [0.5, -1])
def test_damaged_gzip_is_named(small_data, keep):
    path = small_data / "gsm8k_train.jsonl.gz"
    packed = path.read_bytes()
    path.write_bytes(b"not gzip" if keep < 0 else packed[: int(len(packed) * keep)])
    with pytest.raises(InputError, match=r"gsm8k_train.jsonl.gz: damaged or not gzip"):
        load_problems("gsm8k", "train")


def test_damaged_record_is_named_with_its_line(small_data):
    path = small_data / "gsm8k_train.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"problem": "q", "solution": "#### 1"}\n{"problem": \n'))
    with pytest.raises(InputError, match=r"gsm8k_train.jsonl.gz, line 2: not valid JSON"):
        load_problems("gsm8k", "train")
    path.write_bytes(gzip.compress(b'{"problem": "q", "solution": "so it is 1"}\n'))
    with pytest.raises(InputError, match=r"record 0.*no #### in its solution"):
        load_problems("gsm8k", "train")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\\boxed{1}", "1"),
        ("\\boxed{1} and \\boxed{2}", "2"),
        ("$\\boxed{\\frac{1}{\\sqrt{2}}}$ done {", "\\frac{1}{\\sqrt{2}}"),
        ("\\boxed{\\left\\{ 1 \\right.}", "\\left\\{ 1 \\right."),
        ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"),
        ("\\boxed{a \\\\{b}}", "a \\\\{b}"),
        ("\\boxed 2$.", "2"),
        ("\\fbox{7}", "7"),
        ("\\boxed{}", ""),
        ("\\boxed{1", None),
        ("no box", None),
    ],
)
def test_last_boxed(text, expected):
    assert last_boxed(text) == expected


def test_gsm8k_answer():
    assert gsm8k_answer("a\n#### 1,234,567") == "1234567"
    assert gsm8k_answer("#### 3\n#### 4 ") == "4"
    assert gsm8k_answer("nothing") is None


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "split", "options", "said"),
    [
        ("gsm9k", "train", {}, r"unknown problem source 'gsm9k'; did you mean 'gsm8k'\? Valid: gsm8k, math"),
        ("MATH500", "test", {}, "did you mean 'math500'"),
        ("zzz", "test", {}, "unknown problem source 'zzz'; Valid: gsm8k"),
        ("gsm8k", "trian", {}, r"no split 'trian'; did you mean 'train'\? Valid: train, test"),
        ("math500", "train", {}, "source math500 has no split 'train'.*Valid: test"),
        ("math", "dev", {}, "source math has no split 'dev'.*Valid: train, test"),
        ("procedural", "dev", {}, "no split 'dev'.*Valid: train, test"),
        ("procedural", "train", {"level": [1]}, "no option 'level'; did you mean 'levels'"),
        ("gsm8k", "train", {"path": "x"}, "no option 'path'; it takes none"),
        ("jsonl", "train", {}, "needs the option path"),
        ("procedural", "train", {}, "set a limit"),
        ("gsm8k", "train", {"limit": -1}, "0 or more"),
        ("gsm8k", "train", {"offset": -1}, "0 or more"),
    ],
)
def test_wrong_requests_say_what_is_right(source, split, options, said):
    with pytest.raises(ConfigError, match=said):
        load_problems(source, split, **options)


def own_file(folder: Path, count: int) -> Path:
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps({"question": f"q{i}", "answer": i}) + "\n" for i in range(count)))
    return path


@settings(max_examples=40, deadline=None)
@given(
    seed=st.none() | st.integers(0, 2**40),
    offset=st.integers(0, 19),
    limit=st.none() | st.integers(0, 30),
)
def test_windows_are_slices_of_one_order(tmp_path_factory, seed, offset, limit):
    path = own_file(tmp_path_factory.mktemp("own"), 20)
    whole = load_problems("jsonl", "train", seed=seed, path=path)
    window = load_problems("jsonl", "train", limit=limit, offset=offset, seed=seed, path=path)
    assert window == whole[offset:][:limit]
    assert sorted(int(p.answer) for p in whole) == list(range(20))


def test_order_is_that_of_the_file_without_a_seed_and_shuffled_by_each_seed(tmp_path):
    path = own_file(tmp_path, 50)
    orders = [[p.answer for p in load_problems("jsonl", "train", seed=s, path=path)] for s in (None, 0, 0, 1)]
    assert orders[0] == [str(i) for i in range(50)]
    assert orders[1] == orders[2]
    assert len({tuple(o) for o in orders}) == 3


def test_offset_past_the_end_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"offset 5 is past the end.*5 problems"):
        load_problems("jsonl", "train", offset=5, path=own_file(tmp_path, 5))


def test_procedural_is_the_generator_with_a_window():
    options: dict[str, Any] = {"levels": [1, 2], "max_number": 12}
    expected = procedural.generate(9, "test", 4, (1, 2), 12)
    assert load_problems("procedural", "test", limit=5, offset=4, seed=4, **options) == expected[4:]
    assert load_problems("procedural", "train", limit=2) == procedural.generate(2, "train", 0)


# --- own files ------------------------------------------------------------------------------------


def load_text(folder: Path, text: str | bytes, name: str = "own.jsonl") -> Any:
    data = text.encode() if isinstance(text, str) else text
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return load_problems("jsonl", "train", path=str(path))


@pytest.mark.parametrize("name", ["own.jsonl", "own.jsonl.gz"])
def test_own_rows(tmp_path, name):
    text = (
        '\ufeff{"question": "q", "answer": 3, "level": 2, "subject": "s", "solution": "w", "extra": [1]}\n'
        "\n"
        '{"problem": "\u00e9", "answer": 0.10, "id": "mine", "solution": null}\n'
        '{"question": "q", "answer": "x"}'
    )
    rows = load_text(tmp_path, text, name)
    assert [r.id for r in rows] == ["own/train/1", "mine", "own/train/4"]
    assert [r.answer for r in rows] == ["3", "0.10", "x"]
    assert (rows[0].level, rows[0].subject, rows[0].solution) == ("2", "s", "w")
    assert (rows[1].question, rows[1].solution) == ("\u00e9", None)
    assert {(r.source, r.split) for r in rows} == {("jsonl", "train")}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "q", ', "not valid JSON"),
        ('{"question": "q", "answer": NaN}', "not valid JSON.*NaN"),
        ("[" * 100_000, "not valid JSON"),
        (b'{"question": "\xff", "answer": 1}', "not valid JSON"),
        ("[1]", "expected a JSON object, found a list"),
        ("3", "expected a JSON object, found a number"),
        ('{"answer": "1"}', r"question \(or problem\) is missing; expected a string"),
        ('{"question": "q"}', "answer is missing; expected a string or a number"),
        ('{"question": "q", "answer": null}', "answer is missing"),
        ('{"question": "q", "answer": " "}', "answer is empty; expected text"),
        ('{"question": "", "answer": 1}', "question is empty"),
        ('{"question": 5, "answer": 1}', "question is a number; expected a string"),
        ('{"question": "q", "answer": true}', "answer is a boolean; expected a string or a number"),
        ('{"question": "q", "answer": {"value": 1}}', "answer is an object"),
        ('{"question": "q", "answer": 1, "id": 3}', "id is a number; expected a string"),
        ('{"question": "q", "answer": 1, "id": ""}', "id is empty"),
        ('{"question": "q", "answer": 1, "level": 1.5}', "level is a number; expected a string or an int"),
        ('{"question": "q", "answer": 1, "solution": ["w"]}', "solution is a list; expected a string"),
        ('{"question": "\\ud800", "answer": 1}', "unpaired surrogate"),
        ('{"question": "q", "answer": 1, "id": "good"}', "id 'good' is already used in line 1"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, said):
    good = b'{"question": "q", "answer": 1, "id": "good"}\n\n'
    with pytest.raises(InputError, match=rf"own\.jsonl: 1 bad line\n  line 3: .*{said}"):
        load_text(tmp_path, good + (line.encode() if isinstance(line, str) else line))


def test_first_five_bad_lines_in_one_error(tmp_path):
    lines = ['{"question": "q", "answer": 1}', *(f'{{"question": "q{i}"}}' for i in range(8))]
    with pytest.raises(InputError) as caught:
        load_text(tmp_path, "\n".join(lines))
    message = str(caught.value)
    assert [n for n in range(1, 10) if f"line {n}:" in message] == [2, 3, 4, 5, 6]
    assert "8 bad lines" in message and message.endswith("and 3 more")


def test_default_id_that_meets_a_given_one(tmp_path):
    with pytest.raises(InputError, match="line 2: id 'own/train/2' is already used in line 1"):
        load_text(tmp_path, '{"problem":"q", "answer":1, "id": "own/train/2"}\n{"problem":"p", "answer": 1}')


def test_files_that_are_missing_empty_or_damaged(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.jsonl does not exist"):
        load_problems("jsonl", "train", path=tmp_path / "nowhere.jsonl")
    with pytest.raises(InputError, match="is not a file"):
        load_problems("jsonl", "train", path=tmp_path)
    with pytest.raises(InputError, match=r"own\.jsonl: no problems"):
        load_text(tmp_path, "\n\n")
    (tmp_path / "bad.jsonl.gz").write_bytes(gzip.compress(b'{"question": "q", "answer": 1}\n' * 99)[:-9])
    with pytest.raises(InputError, match=r"bad\.jsonl\.gz: damaged"):
        load_problems("jsonl", "train", path=tmp_path / "bad.jsonl.gz")


def test_importing_the_sources_loads_neither_torch_nor_datasets():
    code = (
        "import sys, data_gen.problems, data_gen.decontaminate; "
        "print(sorted({'torch', 'datasets', 'numpy'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
