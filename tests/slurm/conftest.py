"""One cluster for all tests of this folder, what they train with, and the table in docs/cluster.md of how they end."""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path

import pytest

from slurm.cluster import Cluster, run
from training.small_run import write_data

MARKS = ("<!-- slurm: begin -->", "<!-- slurm: end -->")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def rows(tmp_path_factory):
    """Rows enough for steps of about a second, which a signal can meet; their boxes lie in their images."""
    return write_data(tmp_path_factory.mktemp("data"), 20)


def pytest_terminal_summary(terminalreporter):
    """With SLURM_PAGE=docs/cluster.md the rows of the tests that ran are made anew there."""
    if page := os.environ.get("SLURM_PAGE"):
        when = f"{run('sinfo', '--version').strip()}, {datetime.date.today().isoformat()}"
        ended = {
            f"| {_title(report.nodeid)} |": f" {outcome} | {when} |"
            for outcome in ("passed", "failed", "error")
            for report in terminalreporter.stats.get(outcome, [])
        }
        path = Path(page)
        before, _, rest = path.read_text(encoding="utf-8").partition(MARKS[0])
        table, _, after = rest.partition(MARKS[1])
        rows = dict(re.findall(r"^(\| [^|]+ \|)(.*)$", table, re.MULTILINE)[2:]) | ended
        lines = ["| what | result | with |", "| --- | --- | --- |", *map("".join, rows.items())]
        path.write_text("\n".join([before + MARKS[0], *lines, MARKS[1] + after]), encoding="utf-8")


def _title(node: str) -> str:
    name, _, case = node.partition("::test_")[2].rstrip("]").partition("[")
    return name.replace("_", " ") + (case and f": {case}")
