"""docs/datasets.md names every data set, its splits as the reader has them, and commands that parse."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from scenerl.commands import parse
from scenerl.data import DATASETS, psg, vcoco, vg150
from scenerl.data.vocabulary import NAMED

TEXT = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\s*scenerl (.+)$", TEXT, re.MULTILINE)


def test_every_data_set_is_there():
    missing = [name for name in DATASETS if f"`{name}:" not in TEXT and name != "jsonl"]
    assert not missing and "`FILE.jsonl`" in TEXT
    assert all(f"`{name}`" in TEXT or f"--vocabulary {name}`" in TEXT for name in NAMED)


@pytest.mark.parametrize("module", [vg150, psg, vcoco])
def test_splits_are_those_of_the_reader(module):
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{module.__name__.split('.')[-1]}:"))
    assert re.findall(r"`(\w+)`", row.split("|")[2]) == list(module.SPLITS)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command):
    name, *words = shlex.split(command)
    parse(name, words)
