"""A package of an extra that is missing is named, with what installs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scenerl import data
from scenerl.data.graph_objects import to_fiftyone, to_networkx, to_supervision
from scenerl.data.vg150 import _read_arrays
from scenerl.errors import UserError
from scenerl.extras import require
from scenerl.types import Example, SceneGraph

GRAPH = SceneGraph()


def read_yolo(folder: Path) -> None:
    (folder / "a.jpg").write_bytes(b"")
    (folder / "a.txt").write_text("")
    next(iter(data.load(f"annotated:{folder}")))


@pytest.mark.parametrize(
    "package, extra, call",
    [
        ("networkx", "graphs", lambda _: to_networkx(GRAPH)),
        ("supervision", "graphs", lambda _: to_supervision(GRAPH)),
        ("fiftyone", "fiftyone", lambda _: to_fiftyone(Example("a", 8, 8, GRAPH, image=Path("a.png")))),
        ("supervision", "graphs", read_yolo),
        ("h5py", "h5", _read_arrays),
    ],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, tmp_path, package, extra, call):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs the package {package}: pip install 'scenerl\[{extra}\]'$"):
        call(tmp_path)


def test_a_package_that_is_there_and_broken_keeps_its_own_message(monkeypatch, tmp_path):
    (tmp_path / "supervision.py").write_text("import cv2_of_nobody\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "supervision", raising=False)
    with pytest.raises(ModuleNotFoundError, match="cv2_of_nobody"):
        require("supervision", "the test")
