"""All recorded results as one page: reads benchmarks/results/*.json and writes docs/results.md.

    python -m benchmarks.results
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from pipelines.markdown import cell

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"
_HEAD = """# Results

Written by `python -m benchmarks.results` from the files in `benchmarks/results/`, which the benchmarks of those names wrote.
A ratio is ours divided by the peer's, measured side by side on one machine. Intervals are 95 %.
"""
_UNITS = {"share": "", "bytes": "GB"}  # as shown here


def page(folder: Path) -> str:
    """The page on the results in `folder`."""
    found = [(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]
    lines = [_HEAD, "| results | what was measured | device | date |", "|---|---|---|---|"]
    lines += [f"| [{stem}](#{stem}) | {_about(r['name'])} | {r['device']} | {r['date'][:10]} |" for stem, r in found]
    for stem, result in found:
        lines += ["", *_section(stem, result)]
    return "\n".join(lines) + "\n"


def _about(name: str) -> str:
    """The first sentence of a benchmark's own description."""
    text = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").rstrip(".:")


def _section(stem: str, result: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{package} {version}" for package, version in result["versions"].items() if version)
    lines = [
        f"## {stem}", "", f"{_about(result['name'])}.", "", f"`{result['command']}`", "",
        f"{result['device']}; commit {result['commit']}, {result['date'][:10]}; {versions}.", "",
        "| what | ours | peer | | ratio | note |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    return lines + [_row(row) for row in result["rows"]]


def _row(row: dict[str, Any]) -> str:
    unit = row.get("unit", "")
    ours = _value(row["ours"], unit) + _interval(row, unit, "")
    peer = "" if row.get("peer") is None else _value(row["peer"], unit) + _interval(row, unit, "peer_")
    ratio = "" if row.get("ratio") is None else f"{row['ratio']:.3g}"
    cells = [row["what"], ours, peer, row.get("peer_name") or "", ratio, row.get("note") or ""]
    return f"| {' | '.join(map(cell, cells))} |"


def _value(value: float | str | None, unit: str) -> str:
    """A number with its unit, in the way people read it."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if unit == "share":
        return f"{value:.1%}"
    number = value / 1e9 if unit == "bytes" else value
    text = f"{number:,.0f}" if abs(number) >= 1000 or number == int(number) else f"{number:.3g}"
    return f"{text} {_UNITS.get(unit, unit)}".strip()


def _interval(row: dict[str, Any], unit: str, prefix: str) -> str:
    low, high, n = (row.get(f"{prefix}{k}") for k in ("low", "high", "n"))
    of = f", n = {n:,}" if n is not None else ""
    return f" [{_value(low, unit)}, {_value(high, unit)}{of}]" if low is not None and high is not None else ""


def main() -> None:
    PAGE.write_text(page(HERE / "results"), encoding="utf-8")
    print(f"{PAGE.relative_to(HERE.parent)}: {len(list((HERE / 'results').glob('*.json')))} results")


if __name__ == "__main__":
    main()
