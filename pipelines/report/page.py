"""The page around the sections: style, script, table of contents. One file that asks the network for nothing."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from pipelines.report.html import join, tag

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """A part of the report. `id` is its anchor; `children` are (anchor, title) of its own parts."""

    id: str
    title: str
    body: Markup
    children: Sequence[tuple[str, str]] = field(default=())


def page(title: str, header: Markup, sections: Sequence[Section]) -> str:
    """The whole document. The policy in its head lets nothing run but our own script, whatever a model wrote."""
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    numbered = list(enumerate(sections, 1))
    body = tag(
        "body",
        tag("a", "Skip to the figures", href="#main", class_="skip"),
        tag("div", _contents(numbered), tag("main", header, *(_section(n, s) for n, s in numbered), _footer(), id="main"),
            class_="layout"),
        tag("script", Markup(script)),
    )  # fmt: skip
    return "<!DOCTYPE html>\n" + str(tag("html", head, body, lang="en")) + "\n"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _contents(numbered: Sequence[tuple[int, Section]]) -> Markup:
    items = []
    for n, s in numbered:
        children = [tag("li", tag("a", name, href=f"#{anchor}")) for anchor, name in s.children]
        below = tag("ul", *children) if children else None
        items.append(tag("li", tag("a", tag("span", f"{n}", class_="no"), s.title, href=f"#{s.id}"), below))
    return tag("nav", tag("details", tag("summary", "Contents"), tag("ul", *items), open=True), aria_label="Contents")


def _section(n: int, s: Section) -> Markup:
    heading = tag("h2", tag("span", f"{n}", class_="no"), s.title)
    return tag("section", heading, s.body, id=s.id)


def _footer() -> Markup:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return tag("footer", join(["Written by ", tag("code", "ratchet report"), f" on {now}."]))
