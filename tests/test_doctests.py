"""The examples in docstrings are true. Rooms that need torch have tests instead."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import scenerl

ROOT = Path(scenerl.__file__).parent
HEAVY = {"models", "training", "inference", "demo", "__main__"}
MODULES = [
    ".".join(["scenerl", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
    for path in sorted(ROOT.rglob("*.py"))
    if path.relative_to(ROOT).parts[0].removesuffix(".py") not in HEAVY and ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted and not result.failed
