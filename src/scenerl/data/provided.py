"""Objects that a prompt provides: the ground truth's, or a detector's from a file of COCO results.

SGCls provides boxes, PredCls boxes and labels. The answer is the whole graph in both, as without them, so that
formats, rewards and metrics stay what they are. (R1-SGG has a script for PredCls whose answer lists relations only.)

COCO results are a JSON list of ``{"image_id", "category_id", "bbox": [x, y, width, height], "score"}``. A category is a
text, or a number that a vocabulary with numbers of its own names (``vg150``, ``psg``, ``coco``). A JSON object with the
same entries under ``annotations`` and names under ``categories`` is read as well. Either is streamed.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from scenerl.answers.elements import clean_label, excerpt
from scenerl.data.instances import tidy_id, xywh_box
from scenerl.data.records import whole_number
from scenerl.data.vocabulary import NAMED, category_names
from scenerl.errors import DataError, counted
from scenerl.json_files import is_object, iter_list, iter_lists, read_members
from scenerl.types import Example, SceneObject

MIN_SCORE = 0.3
EXPECTED = "COCO results: a JSON list of objects with image_id, category_id, bbox and score"
_FIELDS = 6  # numbers kept per detection: label, four of the box, score


class DetectorBoxes:
    """A detector's objects by image id, kept as numbers: 48 bytes each. ``name`` says in messages whose they are."""

    def __init__(self, name: str = "the boxes") -> None:
        self.name = name
        self._labels: dict[str, int] = {}
        self._images: dict[str, array] = {}

    def __len__(self) -> int:
        return len(self._images)

    def add(self, image_id: str, label: str, box: Iterable[float], score: float) -> None:
        number = self._labels.setdefault(label, len(self._labels))
        self._images.setdefault(image_id, array("d")).extend((number, *box, score))

    def of(self, example: Example) -> tuple[SceneObject, ...]:
        """The objects of an example's image, highest score first, cut to the image; what lies outside is left out."""
        numbers = self._images.get(example.image_id, ())
        labels = list(self._labels)
        found = []
        for at in range(0, len(numbers), _FIELDS):
            label, x1, y1, x2, y2, score = numbers[at : at + _FIELDS]
            box = max(x1, 0.0), max(y1, 0.0), min(x2, float(example.width)), min(y2, float(example.height))
            if box[0] < box[2] and box[1] < box[3]:
                found.append(SceneObject(labels[int(label)], box, score))
        return tuple(sorted(found, key=lambda item: -item.score))


def read_boxes(path: Path | str, vocabulary: Path | str | None = None, min_score: float | None = None) -> DetectorBoxes:
    """A detector's objects from COCO results.

    Args:
        path: the file.
        vocabulary: names the numbers of categories, where it is one of those that come with the package.
        min_score: detections below are left out; by default :data:`MIN_SCORE`. Those without a score stay.

    Raises:
        DataError: the file cannot be read, or an entry of it cannot be used; names the entry.
    """
    least = MIN_SCORE if min_score is None else min_score
    names: Mapping[object, str] = {} if vocabulary is None else category_names(vocabulary)
    if is_object(path, EXPECTED):
        categories = read_members(path, ("categories",), EXPECTED).get("categories") or []
        if not isinstance(categories, list):
            raise DataError(f"{path}: categories must be a list, found {excerpt(categories)}")
        rows = [row for row in categories if isinstance(row, Mapping)]
        names = {number: row.get("name") for row in rows if (number := whole_number(row.get("id"))) is not None}
        entries: Iterator = (entry for _, entry in iter_lists(path, ("annotations",), EXPECTED))
    else:
        entries = iter_list(path, EXPECTED)
    boxes = DetectorBoxes(str(path))
    for n, entry in enumerate(entries):
        where = f"{path}, entry {n}"
        image_id = tidy_id(entry.get("image_id")) if isinstance(entry, Mapping) else None
        if image_id is None:
            raise DataError(f"{where}: expected {EXPECTED}, found {excerpt(entry)}")
        score, category = entry.get("score", 1.0), entry.get("category_id")
        number = whole_number(category)
        if type(score) not in (int, float) or not math.isfinite(score):
            raise DataError(f"{where}: score must be a finite number, found {excerpt(score)}")
        if score < least:
            continue
        name = category if isinstance(category, str) else names.get(number)
        label = clean_label(name) if isinstance(name, str) else None
        if label is None:
            raise DataError(
                f"{where}: the category {excerpt(category)} has no name; allowed: a label, a number that --vocabulary "
                f"{', '.join(NAMED)} names, or a file with categories"
            )
        box = xywh_box(entry.get("bbox"))
        if box is None:
            found = excerpt(entry.get("bbox"))
            raise DataError(f"{where}: bbox must be four finite numbers [x, y, width, height], found {found}")
        boxes.add(image_id, label, box, score)
    return boxes


def boxes_for(options) -> DetectorBoxes | None:
    """The detector's objects that a command's options name, if they do."""
    return None if options.boxes is None else read_boxes(options.boxes, options.vocabulary, options.boxes_min_score)


def with_provided(examples: Iterable[Example], boxes: DetectorBoxes) -> Iterator[Example]:
    """The examples with a detector's objects; an image without any gets none.

    Raises:
        DataError: at the end, when no image had any.
    """
    hits = 0
    for example in examples:
        found = boxes.of(example)
        hits += bool(found)
        yield replace(example, provided=found)
    if not hits:
        raise DataError(f"{boxes.name}: {counted(len(boxes), 'image')} with a box, none of them in the data")
