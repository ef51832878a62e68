"""The documents are true: commands parse, recipes and keys exist, examples load, the tree is complete."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from benchmarks import results
from configs.load import find_recipe, load_recipe, shipped, valid_keys, validate
from configs.phase_section import PhaseSection
from configs.phases import phases_of
from configs.schema import BenchmarkSection, Recipe
from data_gen.problems import load_problems
from pipelines.cli import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_NOT_SHIPPED = "my_recipe.yaml", "mine.yaml"  # files that the reader makes


def blocks(path: Path, language: str) -> list[str]:
    """Contents of the fenced blocks of one language ("" for none)."""
    return [body for name, body in _FENCE.findall(path.read_text()) if name == language]


def commands(first: str) -> Iterator[tuple[str, list[str]]]:
    """(where, words) of every command in the documents that begins with `first`, in a block or inline."""
    for path in DOCUMENTS:
        text = path.read_text()
        lines = [line for _, body in _FENCE.findall(text) for line in body.splitlines()]
        lines += _INLINE.findall(_FENCE.sub("", text))
        for line in lines:
            line = re.sub(r"^(\$ )?(\.venv(-vllm)?/bin/)?", "", line.strip())
            if re.match(rf"{first} [a-z]", line):
                yield f"{path.name}: {line}", shlex.split(line, comments=True)[1:]


def files() -> list[Path]:
    """All files that belong to the repository, or would after `git add`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )
    if listed.returncode == 0 and listed.stdout:
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # not a clone: everything that .gitignore does not name
        ignored = [p.rstrip("/") for p in (ROOT / ".gitignore").read_text().split()] + [".git"]
        found = [
            p for p in ROOT.rglob("*")
            if not any(fnmatch.fnmatch(part, i) for part in p.relative_to(ROOT).parts for i in ignored)
        ]
    return [p for p in found if p.is_file()]


RATCHET = list(commands("ratchet"))


def test_the_documents_show_every_command() -> None:
    group: Any = typer.main.get_command(app)
    assert {words[0] for _, words in RATCHET} >= set(group.commands)


@pytest.mark.parametrize(("where", "words"), RATCHET, ids=[where for where, _ in RATCHET])
def test_ratchet_commands_parse(where: str, words: list[str]) -> None:
    """Subcommand, options and arguments exist; recipes and keys too."""
    group: Any = typer.main.get_command(app)
    name, arguments = words[0], words[1:]
    assert name in group.commands, where
    if not arguments and any(p.required for p in group.commands[name].params):
        return  # the command is named, not shown
    if arguments != ["--help"]:
        context = group.commands[name].make_context(name, list(arguments))
        overrides = context.params.get("overrides") or []
        if name in ("run", "plan"):
            recipe = context.params["recipe"]
            if recipe not in _NOT_SHIPPED:
                load_recipe(recipe, overrides)
                return
        unknown = {re.sub(r"\.\d+", "", o.partition("=")[0]) for o in overrides} - set(valid_keys())
        assert not unknown, f"{where}: unknown {unknown}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {(where, words[0]) for where, words in commands("make")}
    assert {"demo", "test", "check", "vllm-cpu", "test-vllm", "test-slow"} <= {name for _, name in shown}
    assert not [where for where, name in shown if name not in targets]


def test_recipes_named_in_the_readme_and_after_papers_are_the_shipped_ones() -> None:
    section = (ROOT / "README.md").read_text().partition("## Recipes")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert named == sorted(named)
    assert sorted([*named, *after_papers()]) == shipped()
    for name in shipped():
        assert find_recipe(name).read_text().startswith("# "), f"{name}: `ratchet recipes` shows the first line"
        load_recipe(name)


def after_papers() -> dict[str, list[tuple[str, str, str]]]:
    """Recipe -> (key, value, source) of its table in docs/papers.md."""
    parts = re.split(r"^### `(\w+)`$", (ROOT / "docs" / "papers.md").read_text(), flags=re.MULTILINE)
    row = re.compile(r"^\| `([\w.]+)` \| `([^`]+)` \| (\w+) \|$", re.MULTILINE)
    return {name: row.findall(body) for name, body in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("name", after_papers())
def test_tables_of_papers_are_what_the_recipes_say(name: str) -> None:
    recipe = load_recipe(name)
    settings = recipe.model_dump(mode="json") | {"phases": {n: r.model_dump(mode="json") for n, r in phases_of(recipe)}}
    rows = after_papers()[name]
    assert len(rows) > 2
    for key, shown, source in rows:
        value: Any = settings
        for part in key.split("."):
            value = value[part]
        expected = yaml.safe_load(shown)
        assert (float(expected) if isinstance(value, float) else expected) == value, key
        assert source in ("code", "paper", "reports", "unknown", "ours"), key


def test_recipes_page_lists_every_key_with_its_default() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text()
    rows = dict(re.findall(r"^\| `([\w.]+)` \| `?([^`|]+?)`?[; |]", text, re.MULTILINE))
    rows |= dict(re.findall(r"^\| `([\w.]+)` \| `([^`]*)`", text, re.MULTILINE))
    keys = [k for k in valid_keys() if not k.startswith("evaluation.benchmarks.source.")]
    defaults = Recipe().model_dump(mode="json")
    leaves = [k for k in keys if not any(other.startswith(f"{k}.") for other in keys) or k == "evaluation.benchmarks"]
    assert sorted(rows) == sorted(leaves)
    items = {"phases": PhaseSection, "evaluation.benchmarks": BenchmarkSection}  # of lists, which are empty by default
    for key, shown in rows.items():
        section, _, name = key.rpartition(".")
        value: Any = defaults
        for part in key.split(".") if section not in items else ():
            value = value[part]
        if section in items:
            field = items[section].model_fields[name]
            value = "required" if field.is_required() else field.default
        assert shown == (value if value == "required" else json.dumps(value)), key


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_example_recipes_and_rows_are_valid(path: Path, tmp_path: Path) -> None:
    for body in blocks(path, "yaml"):
        validate(yaml.safe_load(body), path.name)
    for body in blocks(path, "json"):
        rows = tmp_path / "rows.jsonl"
        rows.write_text(body)
        assert len(load_problems("jsonl", "train", path=str(rows))) == len(body.splitlines())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", _FENCE.sub("", path.read_text()))
    assert not [link for link in links if not (path.parent / link).exists()]


def test_the_page_of_results_is_that_of_the_recorded_files() -> None:
    """If this fails: python -m benchmarks.results."""
    assert results.PAGE.read_text() == results.page(ROOT / "benchmarks" / "results")


def test_readme_tree_names_every_folder_with_a_comment() -> None:
    tree = next(body for body in blocks(ROOT / "README.md", "") if body.startswith("configs/"))
    shown = dict(re.findall(r"^(\w+)/ +(\S.*)$", tree, re.MULTILINE))
    folders = {p.relative_to(ROOT).parts[0] for p in files() if len(p.relative_to(ROOT).parts) > 1}
    assert {f for f in folders if not f.startswith(".")} <= set(shown)


def test_no_file_names_a_package_registry() -> None:
    """Which index packages come from is the user's setting, not ours."""
    option = re.compile(rb"(index[-_]url|find[-_]links)\W{0,4}\s*(https?|file)://", re.IGNORECASE)
    host = re.compile(rb"https?://[\w.:@-]*(pypi|pythonhosted|anaconda|jfrog|download\.pytorch|npmjs|devpi)", re.IGNORECASE)
    found = [p for p in files() if p != Path(__file__).resolve() and (option.search(b := p.read_bytes()) or host.search(b))]
    assert not found
