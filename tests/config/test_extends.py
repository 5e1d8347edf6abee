"""Recipes that build on others."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenerl.commands import parse


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_recipes_build_on_others(tmp_path):
    write(tmp_path / "a.yaml", "model: a\ngrid: 5\nlearning_rate: 1e-5\n")
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / "b.yaml", "extends: ../a.yaml\nmodel: b\nformat: compact\n")
    top = write(tmp_path / "c.yaml", "extends: [a.yaml, deep/b.yaml]\nout: o\ndata: d\nformat: json\n")
    options, extra = parse("sft", ["--config", str(top), "--grid", "7"])
    assert (options.model, options.format, options.grid, extra["learning_rate"]) == ("b", "json", 7, 1e-5)
    assert extra.where["learning_rate"] == str(tmp_path / "deep" / ".." / "a.yaml")


@pytest.mark.parametrize(
    "text, said",
    [
        ("extends: gone.yaml\n", "gone.yaml: cannot be read"),
        ("extends: 3\n", "extends: 3 is not a path or a list of paths"),
        ("extends: [a.yaml, 4]\n", "is not a path"),
        ("extends: top.yaml\n", "top.yaml: extends itself"),
        ("extends: b.yaml\n", "extends itself"),
        ("extends: wrong.yaml\n", "wrong.yaml: grid: 'x': should be a valid integer"),
    ],
)
def test_recipes_that_cannot_be_built_on(tmp_path, text, said):
    top = write(tmp_path / "top.yaml", text + "model: m\nout: o\ndata: d\n")
    write(tmp_path / "a.yaml", "grid: 1\n")
    write(tmp_path / "b.yaml", "extends: top.yaml\n")
    write(tmp_path / "wrong.yaml", "grid: x\n")
    with pytest.raises(ValueError, match=said):
        parse("sft", ["--config", str(top)])
