"""JSONL of predictions for evaluation: rows with ``image_id`` and ``answer``, or as ``scenerl predict`` writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scenerl.data.ground_truth import Names
from scenerl.data.instances import tidy_id
from scenerl.data.jsonl import read_rows
from scenerl.predictions.contents import Predictions, RawPrediction
from scenerl.predictions.notes import Notes
from scenerl.progress import track


def read(path: Path, names: Names) -> Predictions:
    """A row per image; of several samples of an image, the first (sample 0).

    Raises:
        DataError: the file is missing or holds no usable row.
    """
    predictions = Predictions(path)
    notes = predictions.notes
    for number, row in track(rows(path, notes), "predictions"):
        image_id = tidy_id(row.get("image_id"))
        if image_id is None:
            notes.add("unnamed_rows", f"row {number}")
        elif row.get("sample", 0) != 0:
            notes.add("ignored_samples", f"row {number}")
        else:
            predictions.add(image_id, RawPrediction(f"{path}, row {number}", row=row))
    return predictions.require_some()


def rows(path: Path, notes: Notes) -> Iterator[tuple[int, dict]]:
    """The JSON objects of a JSONL file with their row numbers; other lines are noted."""
    for number, row, wrong in read_rows(path):
        if wrong:
            notes.add("broken_rows", f"row {number}: {wrong}")
        else:
            yield number, row
