"""The documents are true: commands parse, recipes and keys exist, examples load, links lead somewhere, figures are those
that were recorded. `test_doc_commands.py` runs the blocks of commands."""

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
from configs.evaluation_section import BenchmarkSection
from configs.load import find_recipe, load_recipe, shipped, valid_keys, validate
from configs.phase_section import PhaseSection
from configs.phases import phases_of
from configs.schema import Recipe
from data_gen.problems import load_problems
from pipelines.cli import app
from pipelines.estimate import Device, estimate
from pipelines.models import model_for_plan
from pipelines.plan import build, resolve
from pipelines.store import Store

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
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
    keys = [k for k in valid_keys() if not k.startswith(("evaluation.benchmarks.source.", "data.extra."))]
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


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, where GitHub and mkdocs make the same of them."""
    found = set()
    for title in re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).replace("`", "").replace("*", "")
        kept = re.sub(r"[^\w\s-]", "", text).strip().lower()
        github, mkdocs = kept.replace(" ", "-"), re.sub(r"[-\s]+", "-", kept)
        found |= {github} if github == mkdocs else set()
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_and_their_anchors_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", path.read_text())):
        if re.match(r"[a-z]+:", link):
            continue  # of another host: no test needs a network
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), f"{path.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{path.name}: {link}: there is {sorted(anchors(target))}"
        inside = path.is_relative_to(ROOT / "docs")
        assert not inside or target.resolve().is_relative_to(ROOT / "docs"), f"{path.name}: {link} is not on the site"


def navigation() -> dict[str, list[str]]:
    """Pages of the site by section."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    return {section: pages for entry in config["nav"] for section, pages in entry.items()}


def test_every_page_is_in_the_navigation() -> None:
    named = [page for pages in navigation().values() for page in pages]
    assert sorted(named) == [p.relative_to(ROOT / "docs").as_posix() for p in PAGES]


@pytest.mark.parametrize("page", navigation()["Methods"])
def test_pages_of_methods_have_the_same_sections(page: str) -> None:
    wanted = ["What it does", "Equation", "Departures", "Recipe", "Expected result"]
    titles = re.findall(r"^## (.+)$", _FENCE.sub("", (ROOT / "docs" / page).read_text()), re.MULTILINE)
    assert titles[: len(wanted)] == wanted


def table(page: str, comment: str) -> list[list[str]]:
    """Cells of the table after a comment, without its head."""
    text = (ROOT / "docs" / page).read_text().partition(f"<!-- {comment} -->\n\n")[2].partition("\n\n")[0]
    return [[c.strip().strip("`") for c in line.split("|")[1:-1]] for line in text.splitlines()[2:]]


def test_measured_memory_is_what_was_recorded() -> None:
    text = (ROOT / "docs" / "memory.md").read_text()
    files = re.findall(r"<!-- measured (\S+) -->", text)
    assert files
    for file in files:
        cases = json.loads((ROOT / "benchmarks" / "results" / file).read_text())["cases"]
        rows = table("memory.md", f"measured {file}")
        assert rows
        for name, rate, peak in rows:
            case = cases[name]
            measured = next(case[k] for k in ("pairs_per_second", "problems_per_second") if k in case)
            assert (rate, peak) == (f"{measured:.2f}", f"{case['peak_gib']:.2f}"), name


def test_memory_beside_trl_is_what_was_recorded() -> None:
    cases = json.loads((ROOT / "benchmarks" / "results" / "memory_gpu.json").read_text())["cases"]
    rows = table("memory.md", "beside TRL memory_gpu.json")
    assert rows
    for name, *shown in rows:
        what = "{} {} bfloat16 checkpointed 8192 tokens".format(*name.lower().split(", "))
        ours, trl = (cases[f"Qwen/Qwen2.5-7B-Instruct {what}: {who}"] for who in ("ours", "trl"))
        expected = [f"{x / 1e9:.1f}" for x in (ours["peak_bytes"], sum(ours["expected"].values()))]
        if "failed" not in trl:
            ratios = (ours["peak_bytes"] / trl["peak_bytes"], trl["step_seconds"] / ours["step_seconds"])
            expected += [f"{trl['peak_bytes'] / 1e9:.1f}", *(f"{r:.2f}" for r in ratios)]
        assert shown[: len(expected)] == expected, name


# parameters, layers, hidden size, heads, KV heads, head size, vocabulary: from the models' config.json
def test_estimated_memory_is_what_plan_says(tmp_path: Path) -> None:
    gpu = Device("one GPU of 80 GB", 80 * 10**9, True)
    checkpointing = ("training.gradient_checkpointing=true",)
    arms = [("lora", ()), ("lora", checkpointing), ("qlora", checkpointing), ("full", checkpointing)]
    rows = table("memory.md", "estimated")
    assert len(rows) == 4
    for name, *shown in rows:
        found, sampler = [], 0
        for adapter, more in arms:
            words = [f"model.name={name}", "model.dtype=bfloat16", "sampling.engine=transformers", *more]
            recipe = resolve(load_recipe("rft_gsm8k", [*words, f"training.adapter={adapter}"]), gpu.gpu)
            model, shape = model_for_plan(recipe.model)
            stages = estimate(build(recipe, model), Store(tmp_path / "store"), shape, gpu)["stages"]
            memory = {s["label"]: s["memory_bytes"] for s in stages}
            found.append(memory["iteration1/train"])
            sampler = memory["iteration1/sample"]
        assert shown == [f"{x / 1e9:.1f}" for x in (*found, sampler)], name


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
