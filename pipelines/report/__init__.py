"""`ratchet report`: one run, or several side by side, as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from configs.errors import InputError
from pipelines.files import writing
from pipelines.report import accuracy, compare, cost, data, exploration, overview, rewards, samples, settings, training, values
from pipelines.report.page import page
from pipelines.report.record import RunRecord

REPORT = "report.html"
_SECTIONS = (accuracy, exploration, data, values, training, rewards, cost, samples, settings)


def report_html(run: RunRecord) -> str:
    """The report of one run; sections without data are left out."""
    sections = [s for module in _SECTIONS if (s := module.section(run)) is not None]
    return page(f"{run.recipe.get('name', run.name)} \u2013 Ratchet report", overview.header(run), sections)


def comparison_html(runs: Sequence[RunRecord]) -> str:
    """Runs side by side, the first being what the others are compared with."""
    names = compare.names(runs)
    title = f"{compare.listed(names)} \u2013 Ratchet comparison"
    return page(title, compare.header(runs, names), compare.sections(runs, names))


def write_report(folders: Sequence[Path], output: Path | None = None) -> Path:
    """Write the report of one folder, or the comparison of several, and say where.

    Without `output` it goes into the first folder: `report.html`, or `compare-OTHERS.html`.
    """
    if len({f.resolve() for f in folders}) < len(folders):
        raise InputError("the same run folder is given twice: name different ones")
    runs = [RunRecord(folder) for folder in folders]
    if output is None:
        others = "-".join(r.name for r in runs[1:])
        output = folders[0] / (f"compare-{others}.html" if others else REPORT)
    if output.is_dir():
        raise InputError(f"--output: {output} is a folder: name a file")
    html = report_html(runs[0]) if len(runs) == 1 else comparison_html(runs)
    try:
        with writing(output) as temporary:
            temporary.write_text(html, encoding="utf-8")
    except InputError as e:
        raise InputError(f"cannot write {output} ({e.__cause__}): give another file with --output") from e
    return output
