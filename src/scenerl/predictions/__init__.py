"""Prediction files of this and other projects, read into one form, and the files that other tools read.

Adding a format is a module with ``read(path, names) -> Predictions``, a line in :data:`INPUTS` (and in
:func:`sniff`), and a test on a small file of the real schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from scenerl.data.ground_truth import Names
from scenerl.data.toon import is_row
from scenerl.errors import DataError
from scenerl.json_files import first_member, is_object
from scenerl.predictions import arrays, coco, jsonl, r1_sgg, sgbench, toon
from scenerl.predictions.contents import Predictions, RawPrediction
from scenerl.predictions.notes import Notes
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
    "toon": toon.read,
    "sgbench": sgbench.read,
    "arrays": arrays.read,
    "coco": coco.read,
    "ovdeval": coco.read,
}
"""Name of a format to its reader."""

DETECTION_LISTS = ("coco", "ovdeval")
"""Inputs that list detections: an image that is not in them has none, which is no failure."""

OUTPUTS: dict[str, ModuleType] = {"sgbench": sgbench, "coco": coco}
"""Name of a format to its module: ``write(path, examples, results)`` writes the predictions, and the ground truth to
the path ``beside(path)``, which it returns."""


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
        first = next((row for _, row in jsonl.rows(path, Notes(path))), {})
        return "toon" if is_row(first) else "jsonl"
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
    """Write predictions in the format ``name``, a key of :data:`OUTPUTS`.

    Returns:
        The path of the ground truth that was written beside them.

    Raises:
        DataError: an unknown name.
    """
    if name not in OUTPUTS:
        raise DataError(f"unknown output format {name!r}; allowed: {', '.join(OUTPUTS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return OUTPUTS[name].write(path, examples, results)
