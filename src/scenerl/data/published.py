"""What the readers and writers of published sets share: numbered annotations to a record, where the images are, and
files that appear whole.

The rows go through :func:`scenerl.data.rows.read_row` like all others. What published sets hold that no row may, boxes
without area and boxes outside their image, is left out here, with its relations and a warning, because nobody can
correct it in the release.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

from scenerl.data.rows import Record, excerpt, read_row
from scenerl.errors import DataError
from scenerl.types import Example


def graph_record(
    where: str,
    image_id: str,
    size: tuple[object, object],
    labels: Sequence[str],
    boxes: Sequence[object],
    relations: Iterable[tuple[int, str, int]],
    image: Path | None = None,
) -> Record:
    """A record of one image.

    Args:
        where: names file and entry in messages.
        size: width and height in pixels, as the file has them.
        labels: N object labels.
        boxes: N boxes xyxy in pixels; whatever else stands there is an error of the row.
        relations: subject index, predicate, object index; an index outside 0..N-1 is an error of the row.
        image: the image's file, or None.

    Returns:
        The record; objects keep their order.
    """
    width, height = size
    ids = [f"{label}.{number}" for number, label in enumerate(labels, start=1)]
    known = dict(enumerate(ids))
    warnings = []
    for number, box in enumerate(boxes):
        if _is_empty(box, width, height):
            del known[number]
            warnings.append(
                f"the box of {excerpt(ids[number])} has no area in the image, the object is left out: {box}"
            )
    kept = []
    for subject, predicate, object_ in relations:
        if subject in known and object_ in known:
            kept.append({"subject": known[subject], "predicate": predicate, "object": known[object_]})
        elif not (0 <= subject < len(ids) and 0 <= object_ < len(ids)):
            error = f"a relation {excerpt(predicate)} names objects {subject} and {object_}, but there are {len(ids)}"
            return Record(where, None, (error,))
    row = {
        "image_id": image_id,
        "width": width,
        "height": height,
        "objects": [{"id": known[number], "bbox": box} for number, box in enumerate(boxes) if number in known],
        "relationships": kept,
    }
    if image is not None:
        row["file_name"] = str(image.absolute())
    record = read_row(row, where)
    return Record(where, record.example, record.errors, (*warnings, *record.warnings)) if warnings else record


def _is_empty(box: object, width: object, height: object) -> bool:
    """Whether four numbers are a box without area in the image; all else is for the row's reader to judge."""
    numbers = [*box, width, height] if isinstance(box, list | tuple) and len(box) == 4 else [None]
    if not all(type(number) in (int, float) for number in numbers):
        return False
    x1, y1, x2, y2 = box
    return not (max(x1, 0) < min(x2, width) and max(y1, 0) < min(y2, height))


class ImageFolders:
    """Looks image files up in the folders where users keep them.

    Args:
        root: the data set's folder.
        names: folders below it, of which those that exist are searched, in this order.
        holding: only those that hold one of these folders, where file names begin with them.
    """

    def __init__(self, root: Path, names: Sequence[str], holding: Sequence[str] = (".",)) -> None:
        folders = [root / name for name in names]
        self.folders = [folder for folder in folders if any((folder / inner).is_dir() for inner in holding)]

    def find(self, *file_names: str) -> Path | None:
        """The first file that is there; where there are folders but no such file, the path it should have, so that
        what reads images says what is missing; None where there is no folder."""
        paths = [folder / file_name for folder in self.folders for file_name in file_names]
        return next((path for path in paths if path.is_file()), paths[0] if paths else None)


def choose_split(split: str | None, allowed: Sequence[str], source: object) -> str:
    """The split asked for.

    Raises:
        DataError: none was asked for, or there is no such split.
    """
    if split in allowed:
        return split
    asked = "needs a split" if split is None else f"has no split {split!r}"
    raise DataError(f"{source} {asked}; allowed: {', '.join(allowed)}")


def find_file(folder: Path, names: Sequence[str]) -> Path:
    """The first of these files that is there, below the folder.

    Raises:
        DataError: none of them is.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} holds none of: {', '.join(names)}")


def numbers_for(image_ids: Sequence[str], taken: Collection[int] = ()) -> list[int]:
    """Image ids as the numbers that some files know only: the ids themselves where all of them are whole numbers above
    0, else 1, 2, 3, … in their order.

    Args:
        image_ids: all of a set; they differ.
        taken: numbers that no image may have.

    >>> numbers_for(["7", "30"]), numbers_for(["7", "x", "8"], taken={2})
    ([7, 30], [1, 3, 4])
    """
    numbers = [int(image_id) for image_id in image_ids if re.fullmatch("[1-9][0-9]{0,17}", image_id)]
    if len(numbers) == len(image_ids) and not set(numbers) & set(taken):
        return numbers
    free = (number for number in count(1) if number not in taken)
    return [next(free) for _ in image_ids]


def graphs_only(examples: Iterable[Example], what: str) -> Iterator[Example]:
    """The examples, for a form that holds scene graphs.

    Raises:
        DataError: one of them asks for labels.
    """
    for example in examples:
        if example.query is not None:
            raise DataError(f"image {example.image_id!r}: {what} holds scene graphs, not detections")
        yield example


def names_of(value: object, where: str) -> dict[int, str]:
    """Numbers to names, from a list (counted from 0) or an object whose keys are whole numbers in words.

    Raises:
        DataError: it is neither.
    """
    try:
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        names = {int(number): name for number, name in pairs}
    except (TypeError, ValueError):
        names = {}
    if not names or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f"{where} must be a list of names, or an object of numbers and names, found {excerpt(value)}")
    return names
