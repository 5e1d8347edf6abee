"""Prediction files of this and other projects, read into one form, and the files that other tools read.

Adding a format is a module with ``read(path, names) -> Predictions``, a line in :data:`INPUTS` (and in
:func:`sniff`), and a test on a small file of the real schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scenerl.data.ground_truth import Names
from scenerl.data.toon import is_toon
from scenerl.errors import DataError
from scenerl.files import atomic_write_text
from scenerl.json_files import first_member, is_object
from scenerl.predictions import arrays, coco, jsonl, r1_sgg, sgbench
from scenerl.predictions.contents import Predictions, RawPrediction
from scenerl.types import Example, ParseResult

__all__ = [
    "DETECTION_LISTS",
    "INPUTS",
    "OUTPUTS",
    "Predictions",
    "RawPrediction",
    "read_predictions",
    "sniff",
    "write_predictions",
]

INPUTS: dict[str, Callable[[Path, Names], Predictions]] = {
    "jsonl": jsonl.read,
    "r1-sgg": r1_sgg.read,
    "toon": jsonl.read_toon,
    "sgbench": sgbench.read,
    "arrays": arrays.read,
    "coco": coco.read,
    "ovdeval": coco.read,
}
"""Name of a format to its reader, which raises DataError where a file is not of the format and names file and entry."""

DETECTION_LISTS = ("coco", "ovdeval")
"""Inputs that list detections: an image that is not in them has none, which is no failure."""

OUTPUTS = {"sgbench": (sgbench.encode, "psg"), "coco": (coco.encode, "instances")}
"""Name of a format to the function that makes the JSON of ground truth and predictions, and the end of the name of the
file of ground truth."""


def read_predictions(path: Path, name: str = "auto", names: Names | None = None) -> Predictions:
    """Predictions in the format ``name``, a key of :data:`INPUTS`; ``auto`` looks at the file.

    Args:
        path: a file, or a folder where the format is one.
        names: of numbered labels; they come from the ground truth or a vocabulary.

    Raises:
        DataError: the file cannot be used; the message names file, row and what is allowed.
    """
    path = Path(path)
    return INPUTS[sniff(path) if name == "auto" else name](path, names or Names())


def sniff(path: Path) -> str:
    """The format that a file looks like.

    Raises:
        DataError: it looks like none.
    """
    if path.is_dir():
        return "r1-sgg"
    if path.suffix == ".npz":
        return "arrays"
    if path.suffix not in (".json", ".jsonl"):
        raise DataError(f"{path}: its name does not say what it is; choose with --input: {', '.join(INPUTS)}")
    if path.suffix == ".jsonl":
        return "toon" if is_toon(path) else "jsonl"
    if not is_object(path, "predictions"):
        return "coco"
    key, value = first_member(path, "predictions") or ("", None)
    if key in ("version", "images"):
        return "sgbench"
    if isinstance(value, Mapping) and "bbox_labels" in value:
        return "arrays"
    if isinstance(value, Mapping) and "boxes" in value:
        return "r1-sgg"
    raise DataError(f"{path}: looks like no known format; choose with --input: {', '.join(INPUTS)}")


def write_predictions(name: str, path: Path, examples: Sequence[Example], results: Sequence[ParseResult]) -> Path:
    """Write predictions in the format ``name``, a key of :data:`OUTPUTS`, and the ground truth to the path
    :func:`truth_path`, which is returned."""
    truth, predictions = OUTPUTS[name][0](examples, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(truth_path(name, path), json.dumps(truth))
    atomic_write_text(path, json.dumps(predictions))
    return truth_path(name, path)


def truth_path(name: str, path: Path) -> Path:
    """Where the ground truth is written, beside the predictions."""
    return path.with_name(f"{path.stem}_{OUTPUTS[name][1]}.json")
