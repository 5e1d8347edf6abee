"""Files of COCO's schema: the boxes in one, without its polygons, and the file that examples make.

``{"images": [{"id", "file_name", "width", "height"}], "annotations": [{"image_id", "category_id", "bbox": [x, y, width,
height], "iscrowd"}], "categories": [{"id", "name"}]}``; D³ and OVDEval are of this schema too. What is made of it: for
training :mod:`scenerl.data.coco` and its like, for evaluation :mod:`scenerl.predictions.coco`.
"""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

from scenerl.boxes import as_boxes, xyxy_to_xywh
from scenerl.data.records import Record, excerpt
from scenerl.errors import DataError
from scenerl.files import atomic_write_text
from scenerl.types import Box, Example, SceneGraph, SceneObject

EXPECTED = "COCO instances: a JSON object with images, annotations and categories"
KEYS = ("images", "annotations", "categories")

_IMAGE_KEYS = ("file_name", "width", "height", "text", "neg_text")
_FAR = 1e12


@dataclass(frozen=True, slots=True)
class Annotation:
    """One box, xyxy in pixels, of a category; ``crowd`` regions hold many objects."""

    category: int
    box: Box
    crowd: bool


class Annotations:
    """Boxes by image id, in the order of the file. They take some 60 bytes each: a file may hold a million."""

    def __init__(self) -> None:
        self._rows: dict[str, array] = {}
        self._numbers, self._categories, self._crowds, self._boxes = array("q"), array("q"), array("b"), array("d")

    def add(self, number: int, image_id: str, annotation: Annotation) -> None:
        """Hold an annotation; ``number`` is its place in the file."""
        self._rows.setdefault(image_id, array("q")).append(len(self._numbers))
        self._numbers.append(number)
        self._categories.append(annotation.category)
        self._crowds.append(annotation.crowd)
        self._boxes.extend(annotation.box)

    def of(self, image_id: str) -> list[Annotation]:
        """The annotations of an image; none where it has none."""
        return [
            Annotation(self._categories[row], tuple(self._boxes[4 * row : 4 * row + 4]), bool(self._crowds[row]))
            for row in self._rows.get(image_id, ())
        ]

    def take_out(self, is_bad: Callable[[str, int], bool]) -> list[tuple[int, str, int]]:
        """Forget the annotations that are bad by image id and category; their numbers, image ids and categories."""
        taken = []
        for image_id, rows in self._rows.items():
            bad = [row for row in rows if is_bad(image_id, self._categories[row])]
            taken += [(self._numbers[row], image_id, self._categories[row]) for row in bad]
            if bad:
                self._rows[image_id] = array("q", (row for row in rows if not is_bad(image_id, self._categories[row])))
        return taken


@dataclass
class Instances:
    """What a file holds: what is used of its images in its order, category names by number, annotations by image.

    ``problems`` are annotations that cannot be used, by the id of their image, or None where they name no image.
    """

    path: Path
    images: dict[str, Mapping] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    annotations: Annotations = field(default_factory=Annotations)
    problems: dict[str | None, list[str]] = field(default_factory=lambda: defaultdict(list))

    def unplaced(self) -> Iterator[Record]:
        """A record for each annotation that names no image."""
        return (Record(str(self.path), None, (problem,)) for problem in self.problems[None])


def gather(path: Path, parts: Iterable[tuple[str, object]]) -> Instances:
    """The entries of a file put together, as :func:`~scenerl.json_files.iter_lists` yields them.

    Raises:
        DataError: an image without an id of its own, or a category without id or name; names file and entry.
    """
    found = Instances(path)
    counts: Counter[str] = Counter()
    bad: list[tuple[int, str | None, object]] = []  # number of the annotation, its image, and what it holds
    for key, entry in parts:
        n = counts[key]
        counts[key] += 1
        if key == "images":
            image_id = tidy_id(entry.get("id")) if isinstance(entry, Mapping) else None
            if image_id is None or image_id in found.images:
                raise DataError(f"{path}: images[{n}] must be an object with an id of its own, found {excerpt(entry)}")
            found.images[image_id] = {key: entry[key] for key in _IMAGE_KEYS if key in entry}
        elif key == "categories":
            number, name = (entry.get("id"), entry.get("name")) if isinstance(entry, Mapping) else (None, None)
            if type(number) is not int or not isinstance(name, str):
                raise DataError(
                    f"{path}: categories[{n}] must have a whole number as 'id' and a text as 'name', found "
                    f"{excerpt(entry)}"
                )
            found.names[number] = name
        else:
            image_id, annotation = _annotation(entry)
            if image_id is None or annotation is None:
                bad.append((n, image_id, excerpt(entry)))
            else:
                found.annotations.add(n, image_id, annotation)
    found.names = _distinct(found.names)
    unknown = found.annotations.take_out(
        lambda image_id, number: image_id not in found.images or number not in found.names
    )
    bad += [(n, image_id, (image_id, number)) for n, image_id, number in unknown]
    for n, image_id, shown in sorted(bad, key=lambda entry: entry[0]):
        found.problems[image_id if image_id in found.images else None].append(
            f"annotations[{n}] must name an image and a category of the file and have a bbox [x, y, width, height], "
            f"found {shown}"
        )
    return found


def _annotation(entry: object) -> tuple[str | None, Annotation | None]:
    """Image id and annotation of an entry, without what else it holds."""
    if not isinstance(entry, Mapping):
        return None, None
    image_id, box, category = tidy_id(entry.get("image_id")), xywh_box(entry.get("bbox")), entry.get("category_id")
    if box is None or type(category) is not int or not abs(category) < _FAR:
        return image_id, None
    return image_id, Annotation(category, box, bool(entry.get("iscrowd")))


def _distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Two categories of one name stay two."""
    twice = {name for name, number in Counter(names.values()).items() if number > 1}
    return {number: f"{name} #{number}" if name in twice else name for number, name in names.items()}


def tidy_id(value: object) -> str | None:
    """An image id as text, white space tidied as data rows have it; None for what is no id."""
    if type(value) is int:
        return str(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return " ".join(str(value).split())


def box_of(value: object) -> Box | None:
    """Four finite numbers (of more, as some files have, the first four), else None."""
    if not isinstance(value, list | tuple) or len(value) < 4:
        return None
    for number in value[:4]:
        kind = type(number)
        if (kind is not float and kind is not int) or not -_FAR < number < _FAR:
            return None
    return tuple(map(float, value[:4]))


def xywh_box(value: object) -> Box | None:
    """COCO's x, y, width, height as corners, else None."""
    box = box_of(value)
    return None if box is None else (box[0], box[1], box[0] + box[2], box[1] + box[3])


def write(path: Path, examples: Iterable[Example]) -> int:
    """Write examples as a file of COCO instances, whole or not at all, which ``coco:FILE`` reads back.

    Image ids stay where all of them are whole numbers, else they are counted from 1; category ids are counted from 1.
    ``file_name`` is the image's path, or the image id where the image is no file. Labels of a query that are absent
    become categories without a box.

    Returns:
        The number of images.
    """
    images, graphs, crowds, ids, labels = [], [], [], [], set()
    for example in examples:
        name = str(example.image) if isinstance(example.image, Path) else example.image_id
        images.append({"file_name": name, "width": example.width, "height": example.height})
        ids.append(example.image_id)
        graphs.append(example.graph)
        crowds.append(example.crowds)
        labels.update(labels_of(example), (found.label for found in example.crowds))
    number = {label: n for n, label in enumerate(sorted(labels), start=1)}
    images = [{"id": n, **image} for n, image in zip(_image_numbers(ids), images, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, json.dumps(instances_json(images, graphs, number, crowds)))
    return len(images)


def _image_numbers(image_ids: Sequence[str]) -> list[int]:
    numbers = [int(image_id) for image_id in image_ids if re.fullmatch("[1-9][0-9]{0,17}", image_id)]
    return numbers if len(numbers) == len(image_ids) else list(range(1, len(image_ids) + 1))


def labels_of(example: Example) -> list[str]:
    """The labels of the query; of a scene graph those of its objects."""
    labels = example.query if example.query is not None else (found.label for found in example.graph.objects)
    return list(dict.fromkeys(labels))


def instances_json(
    images: list[dict],
    graphs: Iterable[SceneGraph],
    number: Mapping[str, int],
    crowds: Iterable[Sequence[SceneObject]] | None = None,
) -> dict:
    """The JSON of instances: images with their ids, the boxes of a graph and the crowds for each, categories as
    numbered."""
    annotations = []
    for image, graph, around in zip(images, graphs, crowds or repeat(()), strict=crowds is not None):
        for n, (found, box) in enumerate(zip([*graph.objects, *around], xywh([*graph.objects, *around]), strict=True)):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": number[found.label],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(n >= len(graph.objects)),
                }
            )
    return {
        "info": {"description": "written by scenerl"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": n, "name": label} for label, n in number.items()],
    }


def xywh(objects: Sequence[SceneObject]) -> list[list[float]]:
    """The boxes of objects as COCO has them."""
    return xyxy_to_xywh(as_boxes([found.box for found in objects])).tolist()
