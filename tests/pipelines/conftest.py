"""Runs that several files of tests read."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from tests.conftest import TinyRun
from tests.pipelines.phase_world import write_phase_recipe


@pytest.fixture(scope="session")
def phase_run(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The finished run of four phases. Read-only."""
    root = tmp_path_factory.mktemp("phases")
    recipe = write_phase_recipe(root / "phases.yaml", tiny_run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATCHET_HOME", str(root / "home"))
        result = CliRunner().invoke(app, ["run", str(recipe), "--run-dir", str(root / "run")])
    assert result.exit_code == 0, (result.output, result.exception)
    return TinyRun(recipe, root / "run", root / "home", result.output)
