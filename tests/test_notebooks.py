"""The notebooks of examples/ run from top to bottom, and what they store is what they print."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("notebooks", ROOT / "docs" / "tools" / "notebooks.py")
notebooks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(notebooks)


def cells_of(name: str) -> tuple[list[str], list[str]]:
    """Sources and stored output of a notebook's code cells."""
    cells = notebooks.code_cells(json.loads((ROOT / "examples" / name).read_text(encoding="utf-8")))
    stored = ["".join(line for output in cell["outputs"] for line in output["text"]) for cell in cells]
    return ["".join(cell["source"]) for cell in cells], stored


@pytest.fixture(autouse=True)
def _restored(monkeypatch, tmp_path):
    """What notebooks set is as before afterwards, and their files are in the test's folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TERM", "dumb")


def test_predictions_are_evaluated_with_the_stored_numbers(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    sources, stored = cells_of("evaluate.ipynb")
    assert notebooks.run_cells(sources) == stored


def test_an_own_reward_trains():
    """With two steps in place of 24, so the numbers of training differ, and nothing else."""
    pytest.importorskip("trl")
    sources, stored = cells_of("own_reward.ipynb")
    few = [source.replace("--max_steps 24", "--max_steps 2") for source in sources]
    assert few != sources
    printed = notebooks.run_cells(few)
    assert printed[:4] == stored[:4]
    assert [text.splitlines()[-1:] for text in printed[5:]] == [text.splitlines()[-1:] for text in stored[5:]]
    assert re.sub(r"[\d.]+", "0", printed[4]) == re.sub(r"[\d.]+", "0", stored[4])
