"""Problem sources: GSM8K, MATH, MATH-500, one's own JSON lines, any table (`data_gen.dataset_source`), generated word problems
and logic puzzles.

The benchmarks are read from the folder named by the environment variable RATCHET_DATA when it is set
(for machines without a network), and otherwise by name from the Hugging Face hub with the `datasets`
library. Both ways pass through one conversion, so that ids, answers and texts do not depend on the way.

Sources: GSM8K (Cobbe et al. 2021, arXiv:2110.14168), MATH (Hendrycks et al. 2021, arXiv:2103.03874),
MATH-500 (the test subset of Lightman et al. 2023, arXiv:2305.20050).
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, cast

from configs.errors import ConfigError, InputError
from configs.keys import derive_seed
from configs.rows import Problem
from data_gen import procedural
from data_gen.fields import BadRowError, collect, kind_of, opened, refuse, text_field
from data_gen.knights import puzzles as knights

DATA_VARIABLE = "RATCHET_DATA"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Benchmark:
    """Where a public set lies: local `files` by split; its name on the `hub`, with `configs` in row order."""

    files: dict[str, str]
    hub: str
    configs: tuple[str | None, ...]


BENCHMARKS: dict[str, Benchmark] = {
    "gsm8k": Benchmark(
        files={"train": "gsm8k_train.jsonl.gz", "test": "gsm8k_test.jsonl.gz"},
        hub="openai/gsm8k",
        configs=("main",),
    ),
    "math": Benchmark(
        files={"train": "math_train.jsonl.gz", "test": "math_test.jsonl.gz"},
        hub="EleutherAI/hendrycks_math",
        configs=(
            "algebra",
            "counting_and_probability",
            "geometry",
            "intermediate_algebra",
            "number_theory",
            "prealgebra",
            "precalculus",
        ),
    ),
    "math500": Benchmark(
        files={"test": "math500.jsonl.gz"},
        hub="HuggingFaceH4/MATH-500",
        configs=(None,),
    ),
}
GENERATED = ("procedural", "knights")
SOURCES = (*BENCHMARKS, "datasets", "jsonl", *GENERATED)
OPTIONS: dict[str, tuple[str, ...]] = {
    "datasets": ("path", "columns", "config", "revision", "extract", "bad_rows"),
    "jsonl": ("path",),
    "procedural": ("levels", "max_number"),
    "knights": ("people", "depth", "width", "variant", "solutions"),
}


def load_problems(
    source: str,
    split: str,
    limit: int | None = None,
    offset: int = 0,
    seed: int | None = None,
    **options: Any,
) -> list[Problem]:
    """Problems `offset` to `offset + limit` of a source, in file order or shuffled by `seed`.

    The shuffle comes before offset and limit, so that disjoint windows of one seed are disjoint samples.
    A limit beyond the end gives what there is. `jsonl` needs the option `path`; there the split is only a
    name. `datasets` takes those of `load_dataset_problems`. `procedural` takes `levels` and `max_number`, `knights` takes
    `people`, `depth`, `width`, `variant` and `solutions`; both need a limit (they have no end), and `seed` (0 when not given)
    chooses the problems themselves.

    Raises ConfigError for an unknown source, split or option, InputError for data that cannot be used.
    """
    _check_request(source, split, limit, offset, options)
    if source in GENERATED:
        if limit is None:
            raise ConfigError(f"source {source} has no end: set a limit")
        generate = procedural.generate if source == "procedural" else knights.generate
        return generate(offset + limit, cast(Literal["train", "test"], split), seed or 0, **options)[offset:]
    if source == "datasets":
        from data_gen.dataset_source import load_dataset_problems

        problems = load_dataset_problems(split=split, **options)
    elif source == "jsonl":
        problems = _load_jsonl(Path(options["path"]).expanduser(), split)
    else:
        problems = _load_benchmark(source, split)
    if offset and offset >= len(problems):
        raise InputError(f"offset {offset} is past the end of {source}/{split} ({len(problems)} problems)")
    if seed is not None:
        random.Random(derive_seed("problems", source, split, seed)).shuffle(problems)
    return problems[offset:] if limit is None else problems[offset : offset + limit]


def strip_calculator_marks(text: str) -> str:
    """GSM8K's text without its calculator marks: "48/2 = <<48/2=24>>24" becomes "48/2 = 24"."""
    return re.sub(r"<<[^<>]*>>", "", text)


def gsm8k_answer(solution: str) -> str | None:
    """The number after the last `####`, without thousands separators; None where there is none."""
    _, mark, answer = solution.rpartition("####")
    return answer.strip().replace(",", "") if mark else None


def last_boxed(text: str) -> str | None:
    r"""Content of the last \boxed{...} (or \fbox), nested braces kept; None without a complete box.

    The form without braces, `\boxed 2$`, reaches to the next dollar sign, as in the reference code of MATH.
    """
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    rest = text[start:].removeprefix("\\boxed").removeprefix("\\fbox").lstrip()
    if not rest.startswith("{"):
        return rest.split("$")[0].strip()
    depth = 0
    # An escaped brace, as in \left\{, does not nest.
    for token in re.finditer(r"\\.|[{}]", rest, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth == 0 and token.group() == "}":
            return rest[1 : token.start()].strip()
    return None


def _check_request(source: str, split: str, limit: int | None, offset: int, options: dict[str, Any]) -> None:
    if source not in SOURCES:
        raise ConfigError(f"unknown problem source {source!r}{_suggest(source, SOURCES)}")
    if source in ("jsonl", "datasets"):
        splits: Iterable[str] = (split,)
    else:
        splits = procedural.SPLITS if source in GENERATED else BENCHMARKS[source].files
    if split not in splits:
        raise ConfigError(f"source {source} has no split {split!r}{_suggest(split, splits)}")
    known = OPTIONS.get(source, ())
    for name in options:
        if name not in known:
            raise ConfigError(f"source {source} has no option {name!r}{_suggest(name, known)}")
    if source in ("jsonl", "datasets") and not options.get("path"):
        raise ConfigError(f"source {source} needs the option path: where the problems are")
    if offset < 0 or (limit is not None and limit < 0):
        raise ConfigError(f"limit and offset must be 0 or more, not limit {limit} and offset {offset}")


def _suggest(name: str, valid: Iterable[str]) -> str:
    names = list(valid)
    if not names:
        return "; it takes none"
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return (f"; did you mean {close[0]!r}?" if close else ";") + f" Valid: {', '.join(names)}"


# --- benchmarks -----------------------------------------------------------------------------------


def _load_benchmark(source: str, split: str) -> list[Problem]:
    folder = os.environ.get(DATA_VARIABLE)
    if folder:
        path = Path(folder).expanduser() / BENCHMARKS[source].files[split]
        if not path.is_file():
            raise InputError(f"{path} does not exist ({DATA_VARIABLE} is {folder}); unset it to use the hub")
        records, where = _read_records(path), str(path)
    else:
        records, where = _hub_records(source, split), f"{BENCHMARKS[source].hub} on the hub"
    problems = []
    for index, record in enumerate(records):
        problem = _convert(source, split, index, record, where)
        if problem.answer:
            problems.append(problem)
        else:
            log.warning("skipped %s: its answer is empty in %s", problem.id, where)
    return problems


def _convert(source: str, split: str, index: int, record: dict[str, Any], where: str) -> Problem:
    """One record (problem, solution, level?, subject?; for math500 also id and answer) as a Problem."""
    try:
        question, solution = record["problem"], record["solution"]
        if source == "math500":
            identity, answer = record["id"], record["answer"]
        else:
            identity = f"{source}/{split}/{index}"
            answer = gsm8k_answer(solution) if source == "gsm8k" else last_boxed(solution)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: record {index} is not one of {source}: {error!r}") from error
    if not (isinstance(question, str) and isinstance(solution, str) and isinstance(identity, str)):
        raise InputError(f"{where}: record {index} is not one of {source}: expected strings")
    if answer is None:
        mark = "####" if source == "gsm8k" else "\\boxed"
        raise InputError(f"{where}: record {index} is not one of {source}: no {mark} in its solution")
    return Problem(
        id=identity,
        parents=[],
        stage="problems",
        source=source,
        split=split,
        question=question,
        answer=answer,
        solution=solution,
        level=_level(record.get("level")),
        subject=record.get("subject"),
    )


def _level(value: Any) -> str | None:
    """MATH says "Level 5" (and "Level ?" twice), MATH-500 says 5: both become "5" (and None)."""
    found = re.search(r"\d+", str(value))
    return found.group() if found else None


def _read_records(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in _lines(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: not valid JSON ({error})") from error
        if not isinstance(record, dict):
            raise InputError(f"{path}, line {number}: expected a JSON object")
        yield record


def _hub_records(source: str, split: str) -> Iterator[dict[str, Any]]:
    """Records of the hub's set under the names that the local files use."""
    benchmark = BENCHMARKS[source]
    way_out = (
        f"set {DATA_VARIABLE} to a folder that holds {benchmark.files[split]} "
        "(JSON lines with id, problem, solution, answer, level, subject)"
    )
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"{source} by name needs the package datasets: install it, or {way_out}") from error
    for config in benchmark.configs:
        try:
            rows = datasets.load_dataset(benchmark.hub, config, split=split)
        except Exception as error:
            # The hub's client raises errors of several libraries (datasets, huggingface_hub, httpx or
            # requests, fsspec) with no common base; all of them mean that the set cannot be had here.
            raise InputError(
                f"cannot load {benchmark.hub} from the hub ({type(error).__name__}: {error}); {way_out}"
            ) from error
        for row in cast(Iterable[dict[str, Any]], rows):
            if source == "gsm8k":
                yield {"problem": row.get("question"), "solution": row.get("answer")}
            elif source == "math":
                yield {**row, "subject": row.get("type")}
            else:
                yield {**row, "id": f"math500/{row.get('unique_id')}"}


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, bytes) of the lines that are not blank; a file ending in .gz is unpacked."""
    try:
        with opened(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


# --- own files ------------------------------------------------------------------------------------


def _load_jsonl(path: Path, split: str) -> list[Problem]:
    """Problems of a user's file, one JSON object a line (.jsonl or .jsonl.gz).

    Required: `question` (or `problem`), a string, and `answer`, a string or a number. Optional strings:
    `id` (default stem/split/line number), `solution`, `level` (or an integer), `subject`. Other fields are
    ignored. All lines are checked before anything is returned; the error shows the first five bad ones.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file")
    stem = path.name.removesuffix(".gz").removesuffix(".jsonl")
    problems, bad = collect(_lines(path), "line", lambda n, line: _own_problem(line, f"{stem}/{split}/{n}", split))
    if bad:
        raise refuse(str(path), bad, "line")
    if not problems:
        raise InputError(f"{path}: no problems; expected one JSON object with question and answer a line")
    return problems


def _own_problem(line: bytes, default_id: str, split: str) -> Problem:
    try:
        # Decimal keeps a number as it is written: 0.10 must not become 0.1.
        record = json.loads(line.decode("utf-8-sig"), parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRowError(f"not valid JSON ({error})") from error
    if not isinstance(record, dict):
        raise BadRowError(f"expected a JSON object, found {kind_of(record)}")
    name = "question" if "question" in record else "problem"
    question = text_field(record, name, required="question (or problem)")
    answer = text_field(record, "answer", required="answer", numbers="all")
    identity = text_field(record, "id", filled=True)
    return Problem(
        id=default_id if identity is None else identity,
        parents=[],
        stage="problems",
        source="jsonl",
        split=split,
        question=cast(str, question),
        answer=cast(str, answer),
        solution=text_field(record, "solution"),
        level=text_field(record, "level", numbers="int"),
        subject=text_field(record, "subject"),
    )


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")
