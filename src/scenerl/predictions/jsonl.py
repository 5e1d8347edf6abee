"""JSONL of predictions: rows with ``image_id`` and ``answer``, as ``scenerl predict`` writes them, or SceneGraphVLM's,
which hold the line format of :mod:`scenerl.data.toon` in the key ``predict``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from scenerl.data import toon
from scenerl.data.ground_truth import Names
from scenerl.data.instances import tidy_id
from scenerl.data.jsonl import read_rows
from scenerl.errors import DataError
from scenerl.predictions.contents import Predictions, RawPrediction
from scenerl.progress import track


def read(path: Path, names: Names) -> Predictions:
    """A row per image; of several samples of an image, the first (sample 0)."""
    predictions = Predictions(path)
    for number, image_id, row in _rows(predictions, lambda row: tidy_id(row.get("image_id"))):
        if row.get("sample", 0) != 0:
            predictions.notes.add("ignored_samples", f"row {number}")
        else:
            predictions.add(image_id, RawPrediction(f"{path}, row {number}", row=row))
    return predictions.require_some()


def read_toon(path: Path, names: Names) -> Predictions:
    """SceneGraphVLM's answers; an image's id is its file's name without the ending."""
    predictions = Predictions(path)
    for number, image_id, row in _rows(predictions, toon.image_id_of):
        where = f"{path}, row {number}"
        if "predict" not in row:
            raise DataError(f"{where}: no 'predict'; SceneGraphVLM's rows hold the answer there")
        predictions.add(image_id, RawPrediction(where, result=toon.parse(row["predict"])))
    return predictions.require_some()


def _rows(predictions: Predictions, id_of: Callable[[Mapping], str | None]) -> Iterator[tuple[int, str, dict]]:
    """The number, image id and content of each row; those that break off or name no image are noted."""
    for number, row, wrong in track(read_rows(predictions.path), "predictions"):
        if wrong:
            predictions.notes.add("broken_rows", f"row {number}: {wrong}")
        elif (image_id := id_of(row)) is None:
            predictions.notes.add("unnamed_rows", f"row {number}")
        else:
            yield number, image_id, row
