"""Run notebooks from top to bottom and store what they print: ``python docs/tools/notebooks.py examples/*.ipynb``.

Cells are Python, in which a line ``!scenerl …`` is a command, as in Jupyter. They run in this process, so that neither
Jupyter nor a kernel is needed. What is written to the error stream is not kept.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import sys
import tempfile
from pathlib import Path
from unittest import mock

from scenerl import cli


def run_cells(sources: list[str]) -> list[str]:
    """What each cell prints. Cells share their names; the current folder is afterwards what it was.

    Raises:
        SystemExit: a command failed. Errors of the cells themselves pass.
    """
    names = {"__name__": "__main__", "_scenerl": _command}
    printed = []
    with contextlib.chdir("."):
        for number, source in enumerate(sources, start=1):
            code = re.sub(r"\\\n", " ", source) if "!scenerl" in source else source
            code = re.sub(r"^!scenerl (.*)$", lambda match: f"_scenerl({match[1]!r})", code, flags=re.MULTILINE)
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(code, f"cell {number}", "exec"), names)
            printed.append(out.getvalue())
    return printed


def _command(words: str) -> None:
    if code := cli.main(shlex.split(words)):
        raise SystemExit(f"scenerl {words}: exit code {code}")


def code_cells(notebook: dict) -> list[dict]:
    """Its cells with code."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def store_outputs(path: Path) -> None:
    """Run a notebook and write it anew, with what it printed."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = code_cells(notebook)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(tempfile, "tempdir", folder):
        printed = run_cells(["".join(cell["source"]) for cell in cells])
    for number, (cell, text) in enumerate(zip(cells, printed, strict=True), start=1):
        lines = text.splitlines(keepends=True)
        cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": lines}] if text else []
        cell["execution_count"] = number
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        store_outputs(Path(name))
