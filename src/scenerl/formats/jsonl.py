"""Our JSONL of predictions: rows with ``image_id`` and ``answer``, or as ``scenerl predict`` writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from scenerl.data.rows import DataError, excerpt
from scenerl.formats.predictions import Entry, Names, Predictions, tidy_id


def read(path: Path, names: Names) -> Predictions:
    """A row per image; of several samples of an image, the first (sample 0).

    Raises:
        DataError: the file is missing or holds no usable row.
    """
    predictions = Predictions(path)
    for number, row in rows(predictions):
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
    path = predictions.path
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    ends = "breaks off" if not line.endswith(b"\n") else f"not JSON ({error})"
                    predictions.note("broken_rows", f"row {number}: {ends}")
                    continue
                if isinstance(row, dict):
                    yield number, row
                else:
                    predictions.note("broken_rows", f"row {number}: {excerpt(row)}")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a JSONL file of predictions") from error
