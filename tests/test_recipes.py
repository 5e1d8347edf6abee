"""Every recipe can be launched as its first line says, and says what to expect."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from scenerl.config import OPTIONS, TRL_CONFIGS, parse, resolve_extra

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe(path, monkeypatch):
    launch, expected = path.read_text(encoding="utf-8").splitlines()[:2]
    assert launch.startswith("# ") and expected.startswith("# "), "line 1: launch command, line 2: expected number"
    words = shlex.split(launch.removeprefix("# "))
    program, command = words[words.index("scenerl") :][:2]
    assert (program, command) == ("scenerl", path.stem.split("_")[0]), "named <method>_<model>_<data>.yaml"
    monkeypatch.chdir(path.parents[1])
    _, extra = parse(command, words[words.index(command) + 1 :])
    assert f"--config recipes/{path.name}" in launch
    if command in TRL_CONFIGS:
        trl = pytest.importorskip("trl")
        resolve_extra(getattr(trl, TRL_CONFIGS[command]), extra, own=OPTIONS[command])
