"""Problems from any table that the `datasets` library reads: a set on the Hugging Face hub, a local file or folder.

A map of columns says where question, answer and the rest are; `extract` takes the answer out of a longer text. Nothing that
comes with a set is run: `datasets` has no loading scripts and no pickles any more, and only tables are accepted here.
"""

from __future__ import annotations

import difflib
import logging
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from configs.errors import ConfigError, InputError
from configs.rows import Problem
from data_gen.fields import MAX_REPORTED, BadRowError, collect, refuse, text_field
from data_gen.problems import gsm8k_answer, last_boxed

if TYPE_CHECKING:
    from datasets import Dataset

READERS = {
    ".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".arrow": "arrow",
}  # fmt: skip
_PACKED = {".gz", ".zst", ".xz", ".bz2"}
_EXTRACT: dict[str, tuple[Callable[[str], str | None], str]] = {
    "gsm8k": (gsm8k_answer, "####"), "boxed": (last_boxed, "\\boxed{...}"),
}  # fmt: skip

log = logging.getLogger(__name__)


def is_local(path: str) -> bool:
    """Whether a source's path is a file or folder, or can be nothing else."""
    return path.startswith((".", "/", "~")) or Path(path).exists()


def pinned(name: str, revision: str | None) -> str:
    """The commit of a set on the hub that `revision` (a branch, a tag, None: the default branch) names now."""
    if revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(name, revision=revision).sha
    except Exception as error:
        # The client's errors (its own, httpx's, the system's) have no common base; all mean that the set is not at hand.
        raise InputError(
            f"data set `{name}` is neither a file or folder here nor reachable on the hub "
            f"({type(error).__name__}: {_first_line(error)}); give a local path, or a full commit as `revision`"
        ) from error
    return str(commit)


def load_dataset_problems(
    path: str,
    split: str,
    columns: Mapping[str, str | None] | None = None,
    config: str | None = None,
    revision: str | None = None,
    extract: Literal["none", "gsm8k", "boxed"] = "none",
    bad_rows: Literal["error", "skip"] = "error",
) -> list[Problem]:
    """All problems of one split, in its order.

    `columns` maps Problem's fields (question, answer, solution, level, subject, id) to columns; a column inside a struct is
    `outer.inner`, None is a field that is not read. Without an `id` column, ids are NAME/SPLIT/ROW, rows counted from 0.
    A file has no splits: there `split` is only a name. All rows are checked before anything is returned.

    Raises ConfigError for columns, configs or splits that do not exist, InputError for data that cannot be used.
    """
    where = path if config is None else f"{path} ({config})"
    columns = columns or {"question": "question", "answer": "answer"}
    with tempfile.TemporaryDirectory(prefix="ratchet-data-") as cache:
        # A local file's rows are never taken from the library's cache: it knows files by name and time only.
        try:
            local = is_local(path)
            table = _local(Path(path).expanduser(), config, split, cache) if local else _hub(path, config, split, revision)
        except (ConfigError, InputError):
            raise
        except Exception as error:
            # datasets raises errors of its own, of pyarrow, pandas and the hub's client, with no common base.
            raise InputError(f"{where}: cannot be loaded: {_root(error)}") from error
        table = table.flatten()
        _check_columns(where, columns, table.column_names)
        used = {field: column for field, column in columns.items() if column is not None}
        rows = table.select_columns(sorted(set(used.values())))
        name = "/".join([_stem(path), *([config] if config else []), split])

        def problem_of(number: int, row: dict[str, Any]) -> Problem:
            return _problem({field: row[column] for field, column in used.items()}, f"{name}/{number}", split, extract)

        problems, bad = collect(enumerate(rows), "row", problem_of)
        total = len(rows)
    if bad and (bad_rows == "error" or not problems):
        error = refuse(where, bad, "row")
        hint = "\nRows are counted from 0; `bad_rows: skip` leaves such rows out" if problems else ""
        raise InputError(f"{error}{hint}")
    if bad:
        log.warning("%s: left out %d of %d rows, first: %s", where, len(bad), total, "; ".join(bad[:MAX_REPORTED]))
    if not problems:
        raise InputError(f"{where}: split {split} has no rows")
    return problems


def _problem(record: dict[str, Any], default_id: str, split: str, extract: str) -> Problem:
    question = text_field(record, "question", required="question")
    answer = text_field(record, "answer", required="answer", numbers="all")
    if extract != "none":
        take, mark = _EXTRACT[extract]
        answer = take(answer or "")
        if not answer:
            raise BadRowError(f"no answer in the answer column: no {mark} with text in it")
    identity = text_field(record, "id", numbers="int", filled=True)
    return Problem(
        id=default_id if identity is None else identity, parents=[], stage="problems", source="datasets", split=split,
        question=question or "", answer=answer or "", solution=text_field(record, "solution"),
        level=text_field(record, "level", numbers="int"), subject=text_field(record, "subject"),
    )  # fmt: skip


def _check_columns(where: str, columns: Mapping[str, str | None], there: Sequence[str]) -> None:
    wrong = {field: column for field, column in columns.items() if column is not None and column not in there}
    if not wrong:
        return
    said = []
    for field, column in wrong.items():
        near = difflib.get_close_matches(column, there, n=1)
        said.append(f"no column `{column}` (columns.{field})" + (f", did you mean `{near[0]}`?" if near else ""))
    raise ConfigError(f"{where}: {'; '.join(said)}. Columns there: {', '.join(there)}")


# --- loading --------------------------------------------------------------------------------------


def _hub(name: str, config: str | None, split: str, revision: str | None) -> Dataset:
    import datasets

    builder = datasets.load_dataset_builder(name, config, revision=revision)
    return _load(builder.name, _files_of(builder, name, split), split, None)  # the files' addresses carry the revision


def _local(path: Path, config: str | None, split: str, cache: str) -> Dataset:
    import datasets

    if not path.exists():
        raise InputError(f"{path} does not exist; give a file, a folder, or the name of a set on the hub")
    if path.is_file():
        if config is not None:
            raise ConfigError(f"{path} is a file: `config` belongs to folders and sets on the hub")
        return _load(_reader(path), {split: [str(path)]}, split, cache)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _saved(path, config, split)
    builder = datasets.load_dataset_builder(str(path), config, cache_dir=cache)
    files = _files_of(builder, str(path), split)
    if list(builder.builder_configs) in ([], ["default"]):  # nobody has said which files belong together
        _refuse_unread(path, {f for some in (builder.config.data_files or {}).values() for f in some})
    return _load(builder.name, files, split, cache)


def _saved(path: Path, config: str | None, split: str) -> Dataset:
    """What `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    import datasets

    if config is not None:
        raise ConfigError(f"{path} was written by save_to_disk: it has no `config`")
    found = datasets.load_from_disk(str(path))
    if isinstance(found, datasets.Dataset):
        return found
    if split not in found:
        raise ConfigError(f"{path} has no split {split!r}; it has: {', '.join(map(str, found))}")
    return found[split]


def _files_of(builder: Any, where: str, split: str) -> dict[str, list[str]]:
    """The files of the wanted split alone: other splits may be large, or have other columns."""
    if builder.name not in READERS.values():
        raise InputError(f"{where} holds no tables but `{builder.name}`; readable are {', '.join(READERS)}")
    files = {str(name): list(found) for name, found in (builder.config.data_files or {}).items()}
    wanted = [part.partition("[")[0].strip() for part in split.split("+")]
    if missing := [name for name in wanted if name not in files]:
        raise ConfigError(f"{where} has no split {missing[0]!r}; it has: {', '.join(files)}")
    return {name: files[name] for name in wanted}


def _load(reader: str, files: dict[str, list[str]], split: str, cache: str | None) -> Dataset:
    import datasets

    more: dict[str, Any] = {}
    if reader == "csv":  # every cell as it is written: 0.10 stays 0.10, 007 stays 007, NA is text
        first = next(f for some in files.values() for f in some)
        more = {"sep": "\t" if ".tsv" in Path(first).suffixes else ",", "keep_default_na": False, "na_values": [""]}
        more["features"] = datasets.Features(dict.fromkeys(_header(first, more["sep"]), datasets.Value("string")))
    return datasets.load_dataset(reader, data_files=files, split=split, cache_dir=cache, **more)


def _header(path: str, separator: str) -> list[str]:
    import datasets
    import pandas

    if "://" in path:  # on the hub: into the library's cache, from which the rows are read in a moment
        path = str(datasets.DownloadManager().download_and_extract(path))
    return [str(c) for c in pandas.read_csv(path, nrows=0, sep=separator).columns]


def _reader(path: Path) -> str:
    suffixes = [s for s in path.suffixes if s not in _PACKED]
    reader = READERS.get(suffixes[-1]) if suffixes else None
    if reader is None:
        raise InputError(f"{path}: readable are {', '.join(READERS)}, also packed ({', '.join(sorted(_PACKED))})")
    return reader


def _refuse_unread(folder: Path, read: set[str]) -> None:
    """The library takes the files of one format and passes over the others without a word."""
    tables = sorted(p for p in folder.rglob("*") if p.is_file() and not any(x.startswith((".", "__")) for x in p.parts))
    unread = [str(p.relative_to(folder)) for p in tables if p.suffix in READERS and str(p) not in read]
    if unread:
        raise InputError(
            f"{folder} holds files that would not be read ({', '.join(unread[:3])}{', ...' if len(unread) > 3 else ''}): "
            "give a single file, or name the files of each split in a README.md as the hub does"
        )


def _stem(path: str) -> str:
    """What ids begin with: the hub's name, or the file's or folder's own."""
    if not is_local(path):
        return path
    name = Path(path).expanduser().resolve().name
    while Path(name).suffix in READERS or Path(name).suffix in _PACKED:
        name = Path(name).stem
    return name


def _root(error: BaseException) -> str:
    """The first cause in a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip() or 'no details'}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
