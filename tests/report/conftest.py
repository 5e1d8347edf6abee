from __future__ import annotations

from pathlib import Path

import pytest

from report.report_run import build_run
from scenerl.report.build import build_report
from scenerl.report.inputs import read_run


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A small made-up run."""
    return build_run(tmp_path / "run", num_images=6, side=96, steps=60)


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a made-up run, built once."""
    return build_report(read_run(build_run(tmp_path_factory.mktemp("whole") / "run", num_images=12, side=128)))
