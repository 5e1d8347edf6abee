"""SceneGraphVLM's answers: the line format of :mod:`scenerl.data.toon` in the key ``predict`` of JSONL rows."""

from __future__ import annotations

from pathlib import Path

from scenerl.data.ground_truth import Names
from scenerl.data.toon import image_id_of, parse
from scenerl.errors import DataError
from scenerl.predictions import jsonl
from scenerl.predictions.contents import Predictions, RawPrediction


def read(path: Path, names: Names) -> Predictions:
    """The answers of a file; an image's id is its file's name without the ending.

    Raises:
        DataError: the file holds no usable row, or a row no answer.
    """
    predictions = Predictions(path)
    for number, row in jsonl.rows(path, predictions.notes):
        image_id = image_id_of(row)
        if image_id is None:
            predictions.notes.add("unnamed_rows", f"row {number}")
            continue
        where = f"{path}, row {number}"
        if "predict" not in row:
            raise DataError(f"{where}: no 'predict'; SceneGraphVLM's rows hold the answer there")
        predictions.add(image_id, RawPrediction(where, result=parse(row["predict"])))
    return predictions.require_some()
