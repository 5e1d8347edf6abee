"""Visual Genome as it is released, with its own labels and predicates: ``objects.json`` and ``relationships.json``.

On disk: both files and ``image_data.json`` in one folder, of version 1.2 or 1.4 (names may end in the version), and the
images in ``VG_100K`` and ``VG_100K_2``, there or in ``images``. ``objects.json``: ``[{"image_id", "objects":
[{"object_id", "x", "y", "w", "h", "names": [name, …], "merged_object_ids"}]}]``. ``relationships.json``:
``[{"image_id", "relationships": [{"predicate", "subject": {…}, "object": {…}}]}]``; subject and object are objects with
their boxes, or ``subject_id`` and ``object_id`` name them.

Labels and predicates are free text, in lower case here as in every vocabulary made from it; an object has its first
name. A relation whose object stands under another number for the same thing (``merged_object_ids``) belongs to that
object; one whose object ``objects.json`` lacks brings it along. VG150, the 150 most frequent labels and 50 predicates,
is :mod:`scenerl.data.vg150`.

Source ``vg:FOLDER``, all images: the release has no splits. Source: Krishna et al. 2017 (arXiv 1602.07332).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from scenerl.answers.elements import clean_label, excerpt
from scenerl.data.instances import tidy_id, xywh_box
from scenerl.data.published import ImageFolders, find_file, refuse_split
from scenerl.data.records import Record, build_example
from scenerl.errors import DataError
from scenerl.json_files import iter_list
from scenerl.types import Box

VERSIONS = ("", "_v1_4", "_v1_2", "_v1.4", "_v1.2")
_IMAGE_FOLDERS = ("VG_100K", "VG_100K_2", "images", "images/VG_100K", "images/VG_100K_2")


def read(folder: str, split: str | None = None) -> Iterator[Record]:
    """Every image of ``image_data.json`` that ``objects.json`` has, as a record.

    Raises:
        DataError: a file is missing or not of the schema.
    """
    root = Path(folder)
    refuse_split(split, f"vg:{folder}")
    images, objects, relationships = (
        find_file(root, [f"{name}{version}.json" for version in VERSIONS])
        for name in ("image_data", "objects", "relationships")
    )
    sizes = {}
    for row in iter_list(images, "image_data.json: a JSON list of images"):
        if (image_id := _image_id(row)) is not None:
            sizes[image_id] = row.get("width"), row.get("height")
    edges = _Rows(relationships, "relationships")
    folders = ImageFolders(root, _IMAGE_FOLDERS)
    for n, row in enumerate(iter_list(objects, "objects.json: a JSON list of images with their objects")):
        where = f"{objects}, entry {n}"
        image_id = _image_id(row)
        listed = row.get("objects") if isinstance(row, Mapping) else None
        if image_id is None or not isinstance(listed, list):
            yield Record(where, None, (f"must have an image_id and a list of objects, found {excerpt(row)}",))
        elif image_id not in sizes:
            yield Record(where, None, (f"{images} has no image {image_id}",))
        else:
            image = folders.find(f"{image_id}.jpg")
            yield _record(f"{where} (image {image_id})", image_id, sizes[image_id], listed, edges.of(image_id), image)


def _record(
    where: str, image_id: str, size: tuple[object, object], listed: list, relationships: list, image: object
) -> Record:
    """One image; ``relationships`` are those of relationships.json."""
    labels: list[str] = []
    boxes: list[object] = []
    place: dict[str, int] = {}
    warnings = []

    def add(entry: object) -> int | None:
        """The place of an object; None, and a warning, where it has no name or no box."""
        number = _object_id(entry)
        if number is not None and number in place:
            return place[number]
        label, box = _name(entry), _box(entry)
        if label is None or box is None:
            warnings.append(f"an object without a name or a box is left out: {excerpt(entry)}")
            return None
        merged = entry.get("merged_object_ids")
        for known in (number, *map(tidy_id, merged if isinstance(merged, list) else ())):
            if known is not None:
                place.setdefault(known, len(labels))
        labels.append(label)
        boxes.append(box)
        return len(labels) - 1

    for entry in listed:
        add(entry)
    relations = []
    for entry in relationships:
        entry = entry if isinstance(entry, Mapping) else {}
        ends = []
        for key in ("subject", "object"):
            end = entry.get(key)
            ends.append(add(end) if isinstance(end, Mapping) else place.get(tidy_id(entry.get(f"{key}_id"))))
        predicate = _lower(entry.get("predicate"))
        if None in ends or predicate is None:
            warnings.append(f"a relation without subject, predicate or object is left out: {excerpt(entry)}")
        else:
            relations.append((ends[0], predicate, ends[1]))
    record = build_example(where, image_id, size, labels, boxes, relations, image=image)
    return Record(where, record.example, record.errors, (*warnings, *record.warnings))


class _Rows:
    """The lists of a file by image id. Both files list images in one order, so that few lists wait at a time."""

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self._rows = iter_list(path, f"{path.name}: a JSON list of images with their {key}")
        self._waiting: dict[str, list] = {}

    def of(self, image_id: str) -> list:
        """The list of an image, empty where the file has none.

        Raises:
            DataError: an entry before it is not of the schema.
        """
        while image_id not in self._waiting:
            row = next(self._rows, None)
            if row is None:
                return []
            number, listed = _image_id(row), row.get(self._key) if isinstance(row, Mapping) else None
            if number is None or not isinstance(listed, list):
                raise DataError(
                    f"{self._path}: an entry must have an image_id and a list of {self._key}, found {excerpt(row)}"
                )
            self._waiting.setdefault(number, listed)
        return self._waiting.pop(image_id)


def _image_id(row: object) -> str | None:
    """The id of an entry; version 1.0 calls it ``id``."""
    return tidy_id(row.get("image_id", row.get("id"))) if isinstance(row, Mapping) else None


def _object_id(entry: object) -> str | None:
    return tidy_id(entry.get("object_id", entry.get("id"))) if isinstance(entry, Mapping) else None


def _name(entry: object) -> str | None:
    """The first name of an object."""
    if not isinstance(entry, Mapping):
        return None
    names = entry.get("names")
    return _lower(names[0] if isinstance(names, list) and names else entry.get("name"))


def _lower(value: object) -> str | None:
    return clean_label(value.lower()) if isinstance(value, str) else None


def _box(entry: object) -> Box | None:
    if not isinstance(entry, Mapping):
        return None
    return xywh_box([entry.get(key) for key in ("x", "y", "w", "h")])
