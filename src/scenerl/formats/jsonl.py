"""Our JSONL of predictions: rows with ``image_id`` and ``answer``, or as ``scenerl predict`` writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scenerl.data.jsonl import read_rows
from scenerl.formats.predictions import Entry, Names, Predictions, tidy_id
from scenerl.progress import track


def read(path: Path, names: Names) -> Predictions:
    """A row per image; of several samples of an image, the first (sample 0).

    Raises:
        DataError: the file is missing or holds no usable row.
    """
    predictions = Predictions(path)
    for number, row in track(rows(predictions), "predictions"):
        where = f"{path}, row {number}"
        image_id = tidy_id(row.get("image_id"))
        if image_id is None:
            predictions.note("unnamed_rows", f"row {number}")
        elif row.get("sample", 0) != 0:
            predictions.note("ignored_samples", f"row {number}")
        else:
            predictions.add(image_id, Entry(where, row=row))
    return predictions.close()


def rows(predictions: Predictions) -> Iterator[tuple[int, dict]]:
    """The JSON objects of a JSONL file with their row numbers; other lines are noted."""
    for number, row, wrong in read_rows(predictions.path):
        if wrong:
            predictions.note("broken_rows", f"row {number}: {wrong}")
        else:
            yield number, row
