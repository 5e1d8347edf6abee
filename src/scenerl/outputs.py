"""Whether a file can be written, asked before the work begins rather than after it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from scenerl.types import DataError


def check_out(out: Path | None, inputs: Iterable[Path | str | None] = (), name: str = "out") -> None:
    """Make sure that a command can and may write ``out``, as far as that shows without writing.

    Args:
        out: the file, or None where nothing is to be written.
        inputs: what the command reads: paths, or data sources; None is passed over.
        name: the option that ``out`` comes from, for messages.

    Raises:
        DataError: ``out`` is a folder, or a file that is read, or lies where nothing can be written.
    """
    if out is None:
        return
    out = Path(out)
    if out.is_dir():
        raise DataError(f"{name}: {out} is a folder; expected the name of a file")
    for source in inputs if out.exists() else ():
        for path in (Path(source or ""), Path(str(source or "").partition(":")[2])):  # a source may be coco:FILE
            if path.exists() and out.samefile(path):
                raise DataError(f"{name}: {out} is read by this command and would be overwritten; choose another name")
    _check_place(out, name)


def check_out_folder(out: Path, name: str = "out") -> None:
    """As :func:`check_out`, for a folder, which may be there.

    Raises:
        DataError: ``out`` is a file, or lies where nothing can be written.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise DataError(f"{name}: {out} is a file; expected the name of a folder")
    _check_place(out / "file", name)


def _check_place(out: Path, name: str) -> None:
    """Whether something can be made under this name."""
    there = next(folder for folder in out.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        problem = "cannot be written to" if there.is_dir() else "is a file, not a folder"
        raise DataError(f"{name}: {out} cannot be written: {there} {problem}")
