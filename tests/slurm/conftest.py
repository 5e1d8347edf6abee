"""One cluster for all tests of this folder, what they train with, and the table in docs/cluster.md of how they end."""

from __future__ import annotations

import datetime
import os
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
    """With SLURM_PAGE=docs/cluster.md the table there is made anew."""
    if page := os.environ.get("SLURM_PAGE"):
        reports = {**terminalreporter.stats}
        ended = {
            report.nodeid: outcome
            for outcome in ("passed", "failed", "error")
            for report in reports.get(outcome, [])
            if report.nodeid.startswith("tests/slurm/")
        }
        path = Path(page)
        before, _, rest = path.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        path.write_text(f"{before}{MARKS[0]}\n{_table(ended)}{MARKS[1]}{after}", encoding="utf-8")


def _table(ended: dict[str, str]) -> str:
    rows = []
    for node, outcome in ended.items():
        name, _, case = node.partition("::test_")[2].rstrip("]").partition("[")
        rows.append(f"| {name.replace('_', ' ')}{case and f': {case}'} | {outcome} |\n")
    made = f"{datetime.date.today().isoformat()}, {run('sinfo', '--version').strip()}"
    return f"| what | on {made} |\n| --- | --- |\n{''.join(rows)}"
