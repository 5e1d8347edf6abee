"""A data set by a user's own function, as ``my_data.py:read``.

The function takes the split (a text or None) and gives rows of our JSONL (:mod:`scenerl.data.rows`; images are in
``images/`` beside the file, or named by absolute paths) or :class:`~scenerl.types.Example` objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scenerl.data.records import Record
from scenerl.data.rows import read_row
from scenerl.plugins import load_function
from scenerl.types import Example


def read(argument: str, split: str | None = None) -> Iterator[Record]:
    """A record for each thing that the function gives, bad rows included.

    Raises:
        UserError: there is no such file or function. What the function itself raises is not caught.
    """
    images = Path(argument.rpartition(":")[0]).absolute().parent / "images"
    for number, row in enumerate(load_function(argument)(split), start=1):
        where = f"{argument}, row {number}"
        yield Record(where, row) if isinstance(row, Example) else read_row(row, where, images)
