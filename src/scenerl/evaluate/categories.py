"""The names of a detector's category ids, which are numbers in COCO's results.

The ground truth names them where it is a file of COCO instances. Exports of detectors may count otherwise, from 0 or
from 1 without gaps (YOLO), and other ground truth has no numbers at all. What fits is found by the targets that the
boxes overlap, and said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from scenerl.answers.elements import normal_text
from scenerl.boxes import as_boxes, iou_matrix
from scenerl.config import load_yaml
from scenerl.data.ground_truth import Names
from scenerl.data.records import whole_number
from scenerl.data.vocabulary import NAMED, Vocabulary, category_names
from scenerl.errors import DataError
from scenerl.json_files import read_json
from scenerl.predictions.contents import Predictions
from scenerl.types import Example

IMAGES = 200
_OWN = "the ids of the ground truth"
_GAIN = 0.15  # how much better than the ground truth's ids another way of counting has to fit
MIN_AGREEMENT = 0.5
"""Share of overlapping boxes with the label of their target from which a way of counting is not doubted."""


def read_category_names(path: Path) -> dict[str, dict[int, str]]:
    """What a file that names categories may mean: description to names by number.

    Args:
        path: ``coco``, ``vg150`` or ``psg``; COCO instances; JSON or YAML with a list or a mapping of names, alone or
            under ``names`` or ``objects``; or a text file with a name per line.

    Raises:
        DataError: it is none of these.
    """
    if str(path) in NAMED:
        return {f"the ids of {path}": category_names(path)} | _counted(list(Vocabulary.read(path).objects), str(path))
    if path.suffix in (".yaml", ".yml"):
        value = load_yaml(path)
    elif path.suffix == ".json":
        value = read_json(path, "names of categories")
    else:
        try:
            value = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as a list of names: {error}") from error
    if isinstance(value, Mapping) and isinstance(value.get("categories"), list):
        value = {
            whole_number(entry["id"]): entry["name"] for entry in value["categories"] if {"id", "name"} <= set(entry)
        }
    for key in ("names", "objects"):
        if isinstance(value, Mapping) and isinstance(value.get(key), list | Mapping):
            value = value[key]
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        return _counted(value, str(path))
    if (
        isinstance(value, Mapping)
        and value
        and all(str(number).isdigit() and isinstance(name, str) for number, name in value.items())
    ):
        return {f"the ids of {path}": {int(number): normal_text(name) for number, name in value.items()}}
    raise DataError(f"{path}: names of categories are COCO instances, a list, {{number: name}}, or a name per line")


def _counted(names: Sequence[str], source: str) -> dict[str, dict[int, str]]:
    return {f"places in {source} from {start}": dict(enumerate(map(normal_text, names), start)) for start in (0, 1)}


def agreement(predictions: Predictions, examples: Sequence[Example]) -> tuple[float, int]:
    """Of the predicted boxes that overlap a target at IoU 0.5 or above, the share that has its label, and their
    number."""
    right = seen = 0
    known = [example for example in examples if example.image_id in predictions.entries and example.graph.objects]
    for example in known[:: max(1, len(known) // IMAGES)]:
        result = predictions.entries[example.image_id].result
        if result is None or not result.graph or not result.graph.objects:
            continue
        found, targets = result.graph.objects, example.graph.objects
        iou = iou_matrix(as_boxes([item.box for item in found]), as_boxes([item.box for item in targets]))
        for n in np.flatnonzero(iou.max(axis=1) >= 0.5):
            labels = {targets[m].label for m in np.flatnonzero(iou[n] >= 0.5)}
            right += found[n].label in labels
            seen += 1
    return (right / seen if seen else 0.0), seen


def named(
    read: Callable[[Names], Predictions],
    truth: Sequence[Example],
    names: Names,
    candidates: Mapping[str, Mapping[int, str]],
    path: Path,
) -> tuple[Predictions, list[str]]:
    """Detections with the names of their categories, and a sentence where these are not the ground truth's own.

    Args:
        read: reads the file with the names of its numbers.
        names: of the ground truth; used unless they do not fit and another way of counting does.
        candidates: other names, by their description.

    Raises:
        DataError: nothing names the categories.
    """
    first = read(names)
    unknown = first.notes.counts()["unknown_categories"]
    share, seen = agreement(first, truth)
    if not unknown and (share >= MIN_AGREEMENT or not seen) and not candidates:
        return first, []
    others = dict(candidates)
    if names.objects and not candidates and set(map(type, names.objects)) == {int}:
        others |= _counted([names.objects[number] for number in sorted(names.objects)], "the categories")
    tried = {}
    for description, objects in others.items():
        predictions = read(Names(objects, names.predicates))
        left_out = predictions.notes.counts()["unknown_categories"]
        tried[description] = (predictions, agreement(predictions, truth)[0], left_out)
    if names.objects or (not unknown and not candidates):
        tried = {_OWN: (first, share, unknown), **tried}
    if not tried:
        raise DataError(
            f"{path}: its categories are numbers and the ground truth has none; name them with "
            f"{path}:names=FILE (COCO instances, a list of names, data.yaml), or names={', '.join(NAMED)}"
        )
    # Fewer unknown numbers decide where the overlap does not.
    best = max(tried, key=lambda key: (round(tried[key][1], 2), -tried[key][2]))
    if _OWN in tried and (best == _OWN or tried[best][1] < share + _GAIN):
        return first, []
    counted = ", ".join(f"{key}: {fit:.0%}" for key, (_, fit, _) in tried.items())
    said = f"category ids are read as {best}; labels equal that of the target they overlap: {counted}"
    return tried[best][0], [said]
