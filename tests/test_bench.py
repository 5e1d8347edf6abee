"""Every script of bench/ runs, with its smallest setting, and prints a table with a ratio of two measured figures."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import browser

BENCH = Path(__file__).parents[1] / "bench"
SCRIPTS = sorted(path.stem for path in BENCH.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))
PEERS = {
    "constrain": ("torch", "transformers"),
    "data": ("h5py",),
    "evaluate": ("sgbench", "faster_coco_eval"),
    "gpu": ("torch", "trl"),
    "group_sampling": ("torch", "trl"),
    "report": ("playwright",),
    "rewards": ("pycocotools", "faster_coco_eval"),
    "scaling": ("torch", "trl"),
    "step": ("torch", "trl"),
    "update": ("torch", "trl"),
}
RATIO_COLUMNS = {
    "constrain": ("of free",),
    "data": ("share",),
    "evaluate": ("ratio to sgbench", "ratio to faster-coco-eval"),
    "gpu": ("faster",),
    "group_sampling": ("of plain's",),
    "report": ("of the plain page's",),
    "rewards": ("ours is faster",),
    "scaling": ("faster", "time ×", "slope"),
    "step": ("faster",),
    "update": ("faster", "limit", "reached"),
}

DIFFERENCES = ("slope",)
"""Columns of one less than a ratio, or of a logarithm: below zero where the noise of so short a run is larger."""

# One process for all: most of the time would go into importing torch and TRL over and over.
RUN_ALL = """
import runpy, sys, traceback
for script in sys.argv[1].split(","):
    print(f"== {script}", flush=True)
    sys.argv = [script, "--smoke"]
    try:
        runpy.run_path(f"{script}.py", run_name="__main__")
    except BaseException:
        print(traceback.format_exc(), flush=True)
"""

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc"),
    pytest.mark.timeout(600),  # all scripts run for the first test
]


def missing(script: str) -> list[str]:
    absent = [name for name in PEERS[script] if importlib.util.find_spec(name) is None]
    return absent + (["Chromium"] if script == "report" and not any(map(shutil.which, browser.NAMES)) else [])


@pytest.fixture(scope="module")
def printed() -> dict[str, str]:
    """What each script printed that can run here."""
    # update.py first: it copies its process, which must not have run torch on several threads by then
    scripts = sorted((name for name in SCRIPTS if not missing(name)), key=lambda name: name != "update")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(BENCH), *sys.path])}
    command = [sys.executable, "-c", RUN_ALL, ",".join(scripts)]
    done = subprocess.run(command, cwd=BENCH, env=environment, capture_output=True, text=True)
    parts = re.split(r"^== (\w+)\n", done.stdout, flags=re.MULTILINE)[1:]
    assert parts, done.stderr
    return dict(zip(parts[::2], parts[1::2], strict=True))


def columns(text: str) -> dict[str, list[str]]:
    """The cells below each heading of all tables."""
    found: dict[str, list[str]] = {}
    heading: list[str] = []
    for line, following in zip(text.splitlines(), [*text.splitlines()[1:], ""], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if following.startswith("| ---"):
            heading = cells
        elif line.startswith("| ") and not line.startswith("| ---"):
            for name, cell in zip(heading, cells, strict=True):
                found.setdefault(name, []).append(cell)
    return found


@pytest.mark.parametrize("script", SCRIPTS)
def test_prints_a_table_with_a_ratio(script, printed):
    if missing(script):
        pytest.skip(f"bench/{script}.py compares with {', '.join(missing(script))}: not installed")
    text = printed[script]
    assert "Traceback" not in text, text
    conditions = text.splitlines()[0]
    assert re.search(r"(CPU|wall) time, (one|1) thread; Python \d.*; \d{4}-\d\d-\d\d$", conditions), text
    table = columns(text)
    for name in RATIO_COLUMNS[script]:
        ratios = [float(match[0]) for cell in table[name] if (match := re.match(r"-?\d+(\.\d+)?", cell))]
        assert ratios and all(ratio == ratio for ratio in ratios), text
        assert name in DIFFERENCES or min(ratios) >= 0 < max(ratios), text


def test_no_script_is_left_out():
    assert SCRIPTS == sorted(PEERS) == sorted(RATIO_COLUMNS)
