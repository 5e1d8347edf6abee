"""Files of COCO's schema: reading their boxes, without the polygons, and writing examples as such a file.

``{"images": [{"id", "file_name", "width", "height"}], "annotations": [{"image_id", "category_id", "bbox": [x, y, width,
height], "iscrowd"}], "categories": [{"id", "name"}]}``; D³ and OVDEval have this schema too. :mod:`scenerl.data.coco`
makes examples of it.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from scenerl.answers.elements import excerpt, normal_text
from scenerl.boxes import as_boxes, xyxy_to_xywh
from scenerl.data.records import four_finite, whole_number
from scenerl.errors import DataError
from scenerl.files import atomic_write_text
from scenerl.json_files import iter_lists, read_members
from scenerl.types import Box, Example, SceneObject

EXPECTED = "COCO instances: a JSON object with images, annotations and categories"
KEYS = ("images", "annotations", "categories")

_NUMBER = re.compile(r"[0-9]{1,18}(?:\.0{1,3})?", re.ASCII)
_IMAGE_KEYS = ("file_name", "coco_url", "width", "height", "text", "neg_text")
_CROWD = dict.fromkeys(("", "0", "0.0", "no", "n", "false", "f"), False) | dict.fromkeys(
    ("1", "1.0", "yes", "y", "true", "t"), True
)


CategoryId = int | str
"""A number, or a text that is none."""


class Annotation(NamedTuple):
    """One box, xyxy in pixels, of a category; ``crowd`` regions hold many objects."""

    category: CategoryId
    box: Box
    crowd: bool


@dataclass
class Instances:
    """What a file holds: the parts of its images that are used, in its order, names of categories by id.

    Attributes:
        annotations: by image id, in the order of the file.
        problems: annotations that cannot be used, by the id of their image, or None where they name no image.
        ids: of the annotations, in the same way, where they were wanted.
    """

    path: Path
    images: dict[str, Mapping] = field(default_factory=dict)
    names: dict[CategoryId, str] = field(default_factory=dict)
    annotations: dict[str, list[Annotation]] = field(default_factory=lambda: defaultdict(list))
    problems: dict[str | None, list[str]] = field(default_factory=lambda: defaultdict(list))
    ids: dict[str, list[str | None]] = field(default_factory=lambda: defaultdict(list))


def read_instances(path: Path, expected: str = EXPECTED, with_ids: bool = False) -> Instances:
    """The images, categories and boxes of a file.

    A category that no annotation has and that stands only for the others is left out: the root that Roboflow puts
    above them, and a background.

    Raises:
        DataError: the file cannot be read; it lacks one of its lists; it has an image without an id of its own, a
            category without id or name, or two names for one category id. The message names file and entry.
    """
    found = Instances(path)
    counts: Counter[str] = Counter()
    supers: dict[CategoryId, object] = {}
    ids: list[str | None] = []
    texts: dict[int, str] = {}  # categories of annotations, by number of the annotation, where they are texts
    rows: list[tuple[str | None, object, Annotation | None]] = []  # image, what to show of the entry, what it says
    for key, entry in iter_lists(path, KEYS, expected):
        n = counts[key]
        counts[key] += 1
        if key == "annotations":
            rows.append(_annotation(entry))
            if isinstance(entry, Mapping) and isinstance(text := entry.get("category_id"), str):
                texts[n] = text
            if with_ids:
                ids.append(tidy_id(entry.get("id")) if isinstance(entry, Mapping) else None)
        elif key == "images":
            image_id = tidy_id(entry.get("id")) if isinstance(entry, Mapping) else None
            if image_id is None or image_id in found.images:
                raise DataError(f"{path}: images[{n}] must be an object with an id of its own, found {excerpt(entry)}")
            found.images[image_id] = {key: entry[key] for key in _IMAGE_KEYS if not _is_empty(entry.get(key))}
        else:
            number, name = (
                (category_id(entry.get("id")), entry.get("name")) if isinstance(entry, Mapping) else (None, None)
            )
            if number is None or not isinstance(name, str):
                raise DataError(
                    f"{path}: categories[{n}] must have a whole number or a text as 'id' and a text as 'name', found "
                    f"{excerpt(entry)}"
                )
            name = normal_text(name)
            if found.names.setdefault(number, name) != name:
                raise DataError(
                    f"{path}: categories[{n}]: the id {number} has the name {excerpt(found.names[number])} already, "
                    f"found {excerpt(name)}"
                )
            supers[number] = entry.get("supercategory")
    if missing := [key for key in KEYS if not counts[key] and key not in read_members(path, (key,), expected)]:
        raise DataError(f"{path}: {' and '.join(map(repr, missing))} missing; expected {expected}")
    for n, text in texts.items():
        image_id, shown, annotation = rows[n]
        if annotation is not None:
            number = find_category(text, found.names, f"{path}: annotations[{n}]")
            rows[n] = image_id, shown, annotation._replace(category=number)
    used = {annotation.category for _, _, annotation in rows if annotation is not None}
    for number in _placeholders(found.names, supers) - used:
        del found.names[number]
    found.names = _distinct(found.names)
    for n, (image_id, shown, annotation) in enumerate(rows):
        if annotation is not None and image_id in found.images and annotation.category in found.names:
            found.annotations[image_id].append(annotation)
            if with_ids:
                found.ids[image_id].append(ids[n])
        else:
            found.problems[image_id if image_id in found.images else None].append(
                f"annotations[{n}] must name an image and a category of the file and have a bbox [x, y, width, "
                f"height], found {shown or _unknown(found, image_id, annotation)}"
            )
    return found


def _unknown(found: Instances, image_id: str, annotation: Annotation) -> str:
    """What an annotation names and the file does not have."""
    if image_id not in found.images:
        return f"an 'image_id' that is no image's id: {excerpt(image_id)}"
    return f"a 'category_id' that is no category's id or name: {excerpt(annotation.category)}"


def _annotation(entry: object) -> tuple[str | None, str, Annotation | None]:
    """Image id and annotation of an entry, without what else it holds; an excerpt where it is none."""
    if not isinstance(entry, Mapping):
        return None, excerpt(entry), None
    image_id, bbox, category = tidy_id(entry.get("image_id")), entry.get("bbox"), category_id(entry.get("category_id"))
    box, crowd = xywh_box(bbox), is_crowd(entry.get("iscrowd"))
    if isinstance(bbox, list) and len(bbox) in (5, 8):
        return image_id, f"{len(bbox)} numbers, as of a box that is turned: {excerpt(bbox)}", None
    if crowd is None:
        return image_id, f"an iscrowd other than 0 and 1: {excerpt(entry.get('iscrowd'))}", None
    if image_id is None or box is None or category is None:
        read = {"image_id": image_id, "category_id": category, "bbox": box}
        bad = [key for key, value in read.items() if value is None]
        shown = [f"{key!r}: {excerpt(entry[key])}" if key in entry else f"no {key!r}" for key in bad]
        return image_id, ", ".join(shown), None
    return image_id, "", Annotation(category, box, crowd)


def is_crowd(value: object) -> bool | None:
    """What ``iscrowd`` says: 0 or 1, as a number, a truth value or in words; nothing is no. None for anything else."""
    if _is_empty(value) or value in (0, 1):
        return value == 1
    return _CROWD.get(value.strip().lower()) if isinstance(value, str) else None


def _placeholders(names: Mapping[CategoryId, str], supers: Mapping[CategoryId, object]) -> set[CategoryId]:
    """The categories that are backgrounds by their name, or the super-category of all others (Roboflow's root)."""
    found = {number for number, name in names.items() if name.strip("_").lower() in ("background", "ignore")}
    counts = Counter(value for value in supers.values() if isinstance(value, str))
    others = len(names) - 1
    return found | {n for n, name in names.items() if counts[name] == others > 0 and supers[n] != name}


def _distinct(names: Mapping[CategoryId, str]) -> dict[CategoryId, str]:
    """Two categories of one name stay two."""
    twice = {name for name, number in Counter(names.values()).items() if number > 1}
    return {number: f"{name} #{number}" if name in twice else name for number, name in names.items()}


def _is_empty(value: object) -> bool:
    """Whether a field holds nothing: null, or NaN as pandas writes an empty cell."""
    return value is None or value != value


def category_id(value: object) -> CategoryId | None:
    """A category's id: a whole number, also where it is written as text, or another text; None for what is no id."""
    if isinstance(value, str):
        text = normal_text(value)
        return int(text.partition(".")[0]) if _NUMBER.fullmatch(text) else text or None
    return whole_number(value)


def find_category(value: object, names: Mapping[CategoryId, str], where: str) -> CategoryId | None:
    """The id that a ``category_id`` is, or else the id of the one category whose name it is.

    Raises:
        DataError: it is the id of one category and the name of another.
    """
    number = category_id(value)
    if not isinstance(value, str):
        return number
    ids = [other for other, name in names.items() if name == normal_text(value)]
    if number not in names:
        return ids[0] if len(ids) == 1 else number
    if ids and number not in ids:
        raise DataError(
            f"{where}: the 'category_id' {excerpt(value)} is the id of {excerpt(names[number])} and the name of "
            "another category; write ids as numbers"
        )
    return number


def tidy_id(value: object) -> str | None:
    """An image id as text, white space tidied as data rows have it; None for what is no id."""
    number = whole_number(value)
    if number is not None:
        return str(number)
    return " ".join(value.split()) if isinstance(value, str) else None


def xywh_box(value: object) -> Box | None:
    """COCO's x, y, width, height as corners, else None."""
    box = four_finite(value)
    if box is None:
        return None
    x, y, width, height = box
    return x, y, x + width, y + height


def write(path: Path, examples: Iterable[Example]) -> int:
    """Write examples as a file of COCO instances, whole or not at all, which ``coco:FILE`` reads back.

    ``file_name`` is the image's path, or the image id where the image is no file. Labels of a query that are absent
    become categories without a box.

    Returns:
        The number of images.
    """
    examples = list(examples)

    def file_name(example: Example) -> str:
        return str(example.image) if isinstance(example.image, Path) else example.image_id

    queried = (label for example in examples for label in example.query or ())
    atomic_write_text(path, json.dumps(instances_json(examples, file_name, queried)))
    return len(examples)


def instances_json(
    examples: Sequence[Example], file_name: Callable[[Example], str], further_labels: Iterable[str] = ()
) -> dict:
    """The JSON of instances: images in the order of the examples, their boxes and crowds, categories counted from 1.

    Image ids stay where all of them are whole numbers, else they are counted from 1 in the order of the ids, so that
    COCO's evaluators take the images, and with them detections of equal score, in the order in which ours does.

    Args:
        further_labels: become categories, with or without a box.
    """
    from scenerl.metrics.arrays import coco_order  # most callers of this module do without the metrics

    ids = [example.image_id for example in examples]
    whole = all(re.fullmatch("[1-9][0-9]{0,17}", image_id) for image_id in ids)
    numbers = list(map(int, ids)) if whole else (coco_order(ids) + 1).tolist()
    elements = [[*example.graph.objects, *example.crowds] for example in examples]
    labels = sorted({*(item.label for found in elements for item in found), *further_labels})
    category = {label: n for n, label in enumerate(labels, start=1)}
    annotations = []
    for number, example, found in zip(numbers, examples, elements, strict=True):
        for n, (item, box) in enumerate(zip(found, xywh(found), strict=True)):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category[item.label],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(n >= len(example.graph.objects)),
                }
            )
    return {
        "info": {"description": "written by scenerl"},
        "images": [
            {"id": number, "file_name": file_name(example), "width": example.width, "height": example.height}
            for number, example in zip(numbers, examples, strict=True)
        ],
        "annotations": annotations,
        "categories": [{"id": n, "name": label} for label, n in category.items()],
    }


def xywh(objects: Sequence[SceneObject]) -> list[list[float]]:
    """The boxes of objects as COCO has them."""
    return xyxy_to_xywh(as_boxes([found.box for found in objects])).tolist()
