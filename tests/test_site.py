"""The site of the documentation builds, loads nothing from other hosts, and cannot be built with a broken link."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """`mkdocs build`, as `make docs` has it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(config), "--site-dir", str(site)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_pages_need_nothing_from_other_hosts(site: Path) -> None:
    elements = r"<(?:script|img|iframe|source|link(?![^>]*canonical))\b"
    loads = re.compile(elements + r"[^>]*?(?:src|href)=[\"']?((?:https?:)?//[^\"'> ]+)")
    imports = re.compile(r"(?:url\([\"']?|@import\s+[\"'])((?:https?:)?//[^\"')]+)")
    pages, styles = list(site.rglob("*.html")), list(site.rglob("*.css"))
    assert len(pages) > 15 and styles
    assert not [(p.name, found) for p in pages for found in loads.findall(p.read_text())]
    assert not [(p.name, found) for p in styles for found in imports.findall(p.read_text())]


def test_the_api_pages_hold_docstrings(site: Path) -> None:
    page = (site / "api" / "rewards.html").read_text()
    assert "rewards.verifier.verify" in page
    assert "Never raises, never prints, deterministic" in page
    assert "PolicyGradient" in (site / "api" / "trainers.html").read_text()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[gone](gone.md)", "gone.md"),
        ("[gone](index.md#nowhere)", "nowhere"),
        ("[out](../README.md)", "README.md"),
    ],
)
def test_a_broken_link_fails_the_build(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Title\n\n{text}\n")
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text()) | {"nav": ["index.md"], "plugins": []}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    assert told in done.stderr + done.stdout


def test_a_page_outside_the_navigation_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("index.md", "forgotten.md"):
        (tmp_path / "docs" / name).write_text("# Title\n")
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text()) | {"nav": ["index.md"], "plugins": []}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    assert "forgotten.md" in done.stderr + done.stdout
