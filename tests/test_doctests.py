"""The examples in docstrings are true: those of every module that has one."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import scenerl

ROOT = Path(scenerl.__file__).parent
MODULES = [
    ".".join(["scenerl", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        pytest.skip(f"an extra is not installed: {error}")
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
