"""PSG: the boxes and relations of the Panoptic Scene Graph data set, from psg.json.

On disk: ``psg.json`` and COCO's images in ``train2017`` and ``val2017``, in the same folder, in ``coco`` in it or in
``coco`` beside it (as OpenPSG lays them out). The panoptic PNG files are not needed.

``{"data": [{"image_id", "file_name": "train2017/….jpg", "width", "height", "annotations": [{"bbox": [x1, y1, x2, y2],
"bbox_mode", "category_id"}], "relations": [[subject, object, predicate]]}], "thing_classes", "stuff_classes",
"predicate_classes", "test_image_ids"}``; a ``bbox_mode`` of 1 (detectron2's) says that the box is x, y, width, height;
classes are counted from 0, stuff after things. Images in ``test_image_ids`` are the split
``test``, all others ``train``. Images without relations stay (OpenPSG's own loader leaves them out), and so do several
predicates of one pair (it draws one of them in training); a relation that stands there twice counts once.

Source: Yang et al. 2022 (arXiv 2207.11247).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from scenerl.answers.elements import excerpt
from scenerl.data.ground_truth import Names
from scenerl.data.instances import tidy_id, xywh_box
from scenerl.data.published import ImageFolders, choose_split, find_file, names_of
from scenerl.data.records import Record, build_example, whole_number
from scenerl.errors import DataError
from scenerl.json_files import iter_lists, read_members

SPLITS = ("train", "test")
BOX_MODES = (0, 1)
EXPECTED = "psg.json: a JSON object with data, thing_classes, stuff_classes, predicate_classes and test_image_ids"

_NAMES = ("thing_classes", "stuff_classes", "predicate_classes")
_IMAGE_ROOTS = (".", "coco", "images", "coco/images", "../coco", "../coco/images")


def read_named(argument: str, split: str | None, exact: bool) -> tuple[Names, Iterator[Record]]:
    """The names of the classes, and every image of a split as a record.

    Args:
        argument: psg.json, or the folder that holds it (or holds it in ``psg``).
        split: ``train`` or ``test``. With ``exact`` None stands for the test images, or for all where the file lists no
            test image.
        exact: take boxes as they stand in the file, without sizes if need be.

    Raises:
        DataError: the file is missing or not of the schema.
    """
    if split is not None or not exact:
        split = choose_split(split, SPLITS, f"psg:{argument}")
    path, names, test_ids = _head(argument)
    if test_ids is None and split is not None:
        raise DataError(f"{path}: test_image_ids is missing, so that there is no split {split!r}; expected {EXPECTED}")
    folders = None if exact else ImageFolders(path.parent, _IMAGE_ROOTS, holding=("train2017", "val2017"))
    rows = ((f"{path}, data[{n}]", row) for n, (_, row) in enumerate(iter_lists(path, {"data"}, EXPECTED)))
    chosen = (entry for entry in rows if test_ids is None or _is_of(entry[1], test_ids, split != "train"))
    return names, (_record(where, row, names, folders) for where, row in chosen)


def _head(path: Path | str) -> tuple[Path, Names, set[str] | None]:
    """The file, its names, and the ids of its test images, None where it does not list them."""
    path = Path(path)
    if path.is_dir():
        path = find_file(path, ("psg.json", "psg/psg.json"))
    parts = read_members(path, (*_NAMES, "test_image_ids"), EXPECTED)
    parts = {"stuff_classes": []} | {key: value for key, value in parts.items() if value is not None}
    ids = parts.get("test_image_ids")
    for key in (*_NAMES, "test_image_ids"):
        if not isinstance(parts.get(key), list) and (key in parts or key in _NAMES):
            raise DataError(f"{path}: {key!r} must be a list, found {excerpt(parts.get(key))}; expected {EXPECTED}")
    labels = names_of([*parts["thing_classes"], *parts["stuff_classes"]], f"{path}: thing_classes and stuff_classes")
    predicates = names_of(parts["predicate_classes"], f"{path}: predicate_classes")
    return path, Names(labels, tuple(predicates.values())), None if ids is None else set(map(tidy_id, ids))


def _is_of(row: object, test_ids: set[str], is_test: bool) -> bool:
    """Whether a row is of a split; a row without an image id belongs to both, so that its error shows."""
    image_id = tidy_id(row.get("image_id")) if isinstance(row, Mapping) else None
    return image_id is None or (image_id in test_ids) == is_test


def _record(where: str, row: object, names: Names, folders: ImageFolders | None) -> Record:
    """One image; without ``folders`` exactly as it stands there."""
    if not isinstance(row, Mapping) or tidy_id(row.get("image_id")) is None:
        return Record(where, None, (f"must be an object with an image_id, found {excerpt(row)}",))
    if wrong := [key for key in ("annotations", "relations") if not isinstance(row.get(key), list)]:
        return Record(where, None, (f"{' and '.join(wrong)} must be a list",))
    classes, boxes, relations = [], [], []
    for n, entry in enumerate(row["annotations"]):
        number = whole_number(entry.get("category_id")) if isinstance(entry, Mapping) else None
        if number not in names.objects:
            return Record(where, None, (f"annotations[{n}] must have a known category_id, found {excerpt(entry)}",))
        classes.append(names.objects[number])
        mode, box = whole_number(entry.get("bbox_mode") or 0), entry.get("bbox")
        if mode not in BOX_MODES:
            error = f"annotations[{n}] has the bbox_mode {excerpt(entry['bbox_mode'])}; allowed: 0 (x1, y1, x2, y2), 1"
            return Record(where, None, (f"{error} (x, y, width, height)",))
        boxes.append((xywh_box(box) or box) if mode else box)
    for n, entry in enumerate(row["relations"]):
        whole = isinstance(entry, list) and len(entry) == 3 and all(type(number) is int for number in entry)
        if not whole or not 0 <= entry[2] < len(names.predicates):
            error = f"relations[{n}] must be [subject, object, predicate], found {excerpt(entry)}"
            return Record(where, None, (error,))
        relations.append((entry[0], names.predicates[entry[2]], entry[1]))
    size = row.get("width"), row.get("height")
    image = None if folders is None else folders.find_named(row.get("file_name"))
    return build_example(
        where, row.get("image_id"), size, classes, boxes, relations, image=image, exact=folders is None
    )
