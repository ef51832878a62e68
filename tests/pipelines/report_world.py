"""A run folder and a store made by hand, for what a small real run does not have; and reading reports as browsers do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import html5lib
import yaml

from configs.rows import Row
from configs.schema import Recipe
from pipelines.files import write_json
from pipelines.store import Store, write_rows

HTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"


_REFERENCES = ("src", "href", "action", "data", "poster", "srcset", "background", "formaction", "cite", "{http://www.w3.org/1999/xlink}href")


def parsed(html: str) -> Any:
    """The document as an element tree; what a strict HTML parser finds wrong is an error."""
    return html5lib.HTMLParser(strict=True).parse(html)


def texts(tree: Any) -> str:
    """All text of a tree."""
    return "".join(tree.itertext())


def section(tree: Any, anchor: str) -> Any:
    """The part of the report with this anchor; None where it was left out."""
    return next((s for s in tree.iter(f"{HTML}section") if s.get("id") == anchor), None)


def cells(tree: Any) -> list[list[str]]:
    """Rows of all tables of a tree, as text."""
    return [[texts(c).strip() for c in row] for row in tree.iter(f"{HTML}tr")]


def outside(tree: Any) -> list[str]:
    """References that leave the file, in elements and in the style sheet."""
    elements = [e for e in tree.iter() if isinstance(e.tag, str)]
    found = [e.attrib[name] for e in elements for name in _REFERENCES if name in e.attrib]
    for style in (texts(e) for e in elements if e.tag == f"{HTML}style"):
        found += re.findall(r"url\([^)]*\)|@import.*", style)
    return [f for f in found if not f.startswith("#")]


class HandMadeRun:
    """Stages are added with their metrics, rows and files; `write` makes the folder."""

    def __init__(self, root: Path, **recipe: Any) -> None:
        self.folder, self.store = root / "run", Store(root / "store")
        self.recipe = Recipe.model_validate(recipe).model_dump(mode="json")
        self.stages: list[dict[str, Any]] = []

    def add(
        self, kind: str, label: str, inputs: Mapping[str, str] | None = None, *, metrics: Mapping[str, Any] | None = None,
        rows: Sequence[Row] = (), files: Mapping[str, Any] | None = None, done: bool = True, **manifest: Any,
    ) -> str:  # fmt: skip
        """A stage, finished unless said otherwise; its key."""
        key = f"{len(self.stages):032x}"
        self.stages.append({"label": label, "kind": kind, "key": key, "inputs": dict(inputs or {})})
        artefact = self.store.artefact(kind, key)
        if done:
            artefact.path.mkdir(parents=True)
            if rows:
                write_rows(artefact.part(0), rows, type(rows[0]))
            for name, content in (files or {}).items():
                if name.endswith(".jsonl"):
                    (artefact.path / name).write_text("".join(json.dumps(r) + "\n" for r in content))
                else:
                    (artefact.path / name).write_text(json.dumps(content))
            content = {"rows": len(rows), "metrics": dict(metrics or {}), "timing": {"seconds": 2.0}, "config": {}, **manifest}
            self.store.finish(artefact, content)
        return key

    def write(self, events: Sequence[Mapping[str, Any]] = (), estimate: Mapping[str, Any] | None = None) -> Path:
        """The run folder."""
        self.folder.mkdir(parents=True)
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump(self.recipe))
        trained = [s["key"] for s in self.stages if s["kind"] == "train"]
        write_json(self.folder / "plan.json", {"model": {"name": "m"}, "store": str(self.store.root), "stages": self.stages,
                                               "trained": trained})  # fmt: skip
        lines = [{"time": f"2026-01-01T00:{i:02d}:00.000+00:00", **e} for i, e in enumerate(events)]
        (self.folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in lines))
        if estimate is not None:
            write_json(self.folder / "estimate.json", estimate)
        return self.folder
