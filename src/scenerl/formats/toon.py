"""SceneGraphVLM's answers: the line format of :mod:`scenerl.data.toon` in the key ``predict`` of JSONL rows."""

from __future__ import annotations

from pathlib import Path

from scenerl.data.toon import image_id_of, parse
from scenerl.errors import DataError
from scenerl.formats import jsonl
from scenerl.formats.predictions import Entry, Names, Predictions


def read(path: Path, names: Names) -> Predictions:
    """The answers of a file; an image's id is its file's name without the ending.

    Raises:
        DataError: the file holds no usable row, or a row no answer.
    """
    predictions = Predictions(path)
    for number, row in jsonl.rows(predictions):
        image_id = image_id_of(row)
        if image_id is None:
            predictions.note("unnamed_rows", f"row {number}")
            continue
        where = f"{path}, row {number}"
        if "predict" not in row:
            raise DataError(f"{where}: no 'predict'; SceneGraphVLM's rows hold the answer there")
        predictions.add(image_id, Entry(where, result=parse(row["predict"])))
    return predictions.close()
