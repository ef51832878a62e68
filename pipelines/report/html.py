"""HTML from parts. Text becomes markup in one place only, `escape`: everything else is composed with Markup, which
escapes whatever is not markup yet. Text from models is hostile until it has been here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup
from markupsafe import escape as _escape

# C0 and C1 controls (tab and line feed aside), and those that reorder or hide text around them; tags are text that is hidden.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e007f]"
)
_VOID = {"meta", "input", "br"}


def escape(text: Any) -> Markup:
    """Text as markup. Control characters are shown by their code, lone surrogates become question marks."""
    if isinstance(text, Markup):
        return text
    whole = str(text).replace("\r\n", "\n").encode("utf-8", "replace").decode("utf-8")
    return _escape(_CONTROLS.sub(lambda m: f"\u2039{ord(m[0]):04X}\u203a", whole))


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """An element. Attributes: `class_` for class, `data_x` for data-x; True is bare, None and False are left out."""
    parts = [Markup("<"), Markup(name)]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(Markup(" ") + Markup(key))
        if value is not True:
            parts.append(Markup('="') + escape(value) + Markup('"'))
    parts.append(Markup(">"))
    if name not in _VOID:
        parts += [join(children), Markup("</"), Markup(name), Markup(">")]
    return Markup("").join(parts)


def join(parts: Iterable[Any], between: str = "") -> Markup:
    """Parts one after another; None is left out."""
    return escape(between).join(escape(p) for p in parts if p is not None)


def table(
    headers: Sequence[Any], rows: Sequence[Sequence[Any]], numeric: Sequence[int] = (), caption: str | None = None
) -> Markup:
    """A table; columns whose number is in `numeric` stand flush right. The first cell of a row is its header."""

    def cell(name: str, index: int, value: Any, **more: Any) -> Markup:
        return tag(name, value, class_="n" if index in numeric else None, **more)

    head = tag("tr", *(cell("th", i, h, scope="col") for i, h in enumerate(headers)))
    body = (
        tag("tr", cell("th", 0, row[0], scope="row"), *(cell("td", i, v) for i, v in enumerate(row[1:], 1))) for row in rows
    )
    title = tag("caption", caption) if caption else None
    return tag("div", tag("table", title, tag("thead", head), tag("tbody", *body)), class_="scroll", tabindex="0")


def figure(
    chart: Markup, caption: Any, data: Markup | None = None, title: str | None = None, data_title: str = "Figures as a table"
) -> Markup:
    """A chart with its caption, and its figures as a table for those who cannot see it; `title` stands above."""
    told = tag("details", tag("summary", data_title), data, class_="data") if data is not None else None
    head = tag("p", title, class_="title") if title else None
    return tag("figure", head, tag("div", chart, class_="scroll"), tag("figcaption", caption) if caption else None, told)


def whole(text: Any) -> Markup:
    """Text that no line break divides."""
    return tag("span", text, class_="whole")


def note(*children: Any) -> Markup:
    """A short remark under a figure or table."""
    return tag("p", *children, class_="note")


def warning(*children: Any) -> Markup:
    """Something the reader must not miss."""
    return tag("p", tag("strong", "Warning: "), *children, class_="warning")


def missing(value: Any, shown: str = "\u2013") -> Any:
    """The value, or a dash for None."""
    return shown if value is None else value
