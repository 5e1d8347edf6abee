"""V-COCO as scene graphs: who does what to what, in COCO's photos.

On disk, as a clone of the data set has it: ``data/vcoco/vcoco_train.json`` (``val``, ``trainval``, ``test``) and
COCO's instances, either ``data/instances_vcoco_all_2014.json``, which the data set's own script picks out, or COCO's
``annotations/instances_train2014.json`` and ``…_val2014.json`` (of 2017 as well: ids are the same). All of them may
also stand in one folder. Images in ``train2014``, ``val2014``, ``train2017`` or ``val2017``, there, in ``images``,
``coco`` or ``coco/images``.

A file of V-COCO is a list of actions: ``{"action_name": "cut", "role_name": ["agent", "instr", "obj"], "image_id":
[…], "ann_id": […], "label": […], "role_object_id": […]}`` with N entries in the lists and one N after the other for
each role in ``role_object_id``: instance ids of COCO, 0 for none. ``label`` says whether the person does it.

Each person and object of a role becomes a relation, its predicate action and role: ``cut instr``, ``cut obj``. Objects
are the instances that take part in one, in the order in which they are first named. Actions without an object make no
relation, and images without any relation are left out.

Source: Gupta and Malik 2015 (arXiv 1505.04474).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from scenerl.answers.elements import excerpt
from scenerl.data.instances import EXPECTED as INSTANCES
from scenerl.data.published import ImageFolders, choose_split, find_file
from scenerl.data.records import Record, build_example
from scenerl.errors import DataError
from scenerl.json_files import iter_lists, read_json

SPLITS = ("train", "val", "trainval", "test")
EXPECTED = "a file of V-COCO: a JSON list of actions with action_name, role_name, image_id, label and role_object_id"
AGENT = "agent"
"""The first role of every action: the person."""

_WHOLE = ("data/instances_vcoco_all_2014.json", "instances_vcoco_all_2014.json")
_PARTS = tuple(
    tuple(f"{folder}instances_{part}{year}.json" for part in ("train", "val"))
    for folder in ("annotations/", "coco/annotations/", "")
    for year in (2014, 2017)
)
_IMAGE_FOLDERS = tuple(
    f"{root}{part}{year}"
    for root in ("", "images/", "coco/", "coco/images/")
    for year in (2014, 2017)
    for part in ("train", "val")
)

_IMAGE_NAMES = ("COCO_train2014_{:012}.jpg", "COCO_val2014_{:012}.jpg", "{:012}.jpg")

Triplet = tuple[int, str, int]
"""An HOI triplet: instance ids of person and object, and the predicate between them."""


def read(folder: Path | str, split: str | None = None) -> Iterator[Record]:
    """Every image of a split that has a relation as a record, by rising image id.

    COCO's instances are gone through once, in memory that V-COCO's relations bound; then records are made one by one.

    Args:
        folder: the data set's folder.
        split: ``train``, ``val``, ``trainval`` or ``test``.

    Raises:
        DataError: a file is missing or not of the schema.
    """
    folder = Path(folder)
    split = choose_split(split, SPLITS, f"vcoco:{folder}")
    path = find_file(folder, (f"data/vcoco/vcoco_{split}.json", f"vcoco/vcoco_{split}.json", f"vcoco_{split}.json"))
    triplets = triplets_by_image(read_json(path, EXPECTED), path)
    wanted = {number for found in triplets.values() for person, _, thing in found for number in (person, thing)}
    images, instances, categories = _read_instances(_instance_files(folder), triplets.keys(), wanted)
    folders = ImageFolders(folder, _IMAGE_FOLDERS)
    for image_id in sorted(triplets):
        where = f"{path}, image_id {image_id}"
        if image_id not in images:
            yield Record(where, None, ("COCO's instances have no such image",))
            continue
        ends = dict.fromkeys(end for person, _, thing in triplets[image_id] for end in (person, thing))
        found = [instances.get(number, {}) for number in ends]
        labels = [categories.get(instance.get("category_id")) for instance in found]
        if unnamed := [number for number, label in zip(ends, labels, strict=True) if not isinstance(label, str)]:
            error = f"COCO's instances have no instance {unnamed[0]}, or no name for its category"
            yield Record(where, None, (error,))
            continue
        place = {number: n for n, number in enumerate(ends)}
        relations = [(place[person], predicate, place[thing]) for person, predicate, thing in triplets[image_id]]
        image = images[image_id]
        file = image.get("file_name")
        if Path(str(file)).is_absolute():
            file = folders.find_named(file)
        else:
            file = folders.find(*(name.format(image_id) for name in _IMAGE_NAMES))
        yield build_example(
            where,
            image_id,
            (image.get("width"), image.get("height")),
            labels,
            [_xyxy(instance["bbox"]) for instance in found],
            relations,
            image=file,
        )


def triplets_by_image(value: object, path: Path) -> dict[int, list[Triplet]]:
    """The relations of a file of V-COCO by image id, in the file's order: action by action, role by role.

    Raises:
        DataError: the value is not of the schema.
    """
    if not isinstance(value, list):
        raise DataError(f"{path}: expected {EXPECTED}, found {excerpt(value)}")
    triplets: dict[int, list[Triplet]] = {}
    for n, action in enumerate(value):
        action = action if isinstance(action, Mapping) else {}
        roles = _flat(action.get("role_name"), str)
        image_ids, labels, ids = (_flat(action.get(key), int) for key in ("image_id", "label", "role_object_id"))
        if None in (roles, image_ids, labels, ids) or not isinstance(action.get("action_name"), str):
            raise DataError(f"{path}: entry {n} is not as expected: {EXPECTED}")
        count = len(image_ids)
        if not len(labels) == count or len(ids) != count * len(roles):
            raise DataError(
                f"{path}: action {excerpt(action['action_name'])} has {count} image_id, {len(labels)} label and "
                f"{len(ids)} role_object_id for {len(roles)} roles; expected as many labels, and as many ids per role"
            )
        for role, name in enumerate(roles[1:], start=1):
            for at in range(count):
                if labels[at] == 1 and ids[role * count + at]:
                    triplet = (ids[at], f"{action['action_name']} {name}", ids[role * count + at])
                    triplets.setdefault(image_ids[at], []).append(triplet)
    return triplets


def _flat(value: object, kind: type) -> list | None:
    """A list whose entries are of one kind, else None; entries that are lists of one, a column's, are opened."""
    if not isinstance(value, list):
        return None
    flat = [entry[0] if isinstance(entry, list) and len(entry) == 1 else entry for entry in value]
    return flat if all(type(entry) is kind for entry in flat) else None


def _instance_files(folder: Path) -> list[Path]:
    for names in (*((name,) for name in _WHOLE), *_PARTS):
        if all((folder / name).is_file() for name in names):
            return [folder / name for name in names]
    allowed = " or ".join([_WHOLE[0], " with ".join(_PARTS[0])])
    raise DataError(f"{folder} holds no COCO instances; expected {allowed}")


def _read_instances(paths, image_ids, ids) -> tuple[dict[int, Mapping], dict[int, Mapping], dict[int, str]]:
    """The images, instances and category names that are wanted, by their ids."""
    found: dict[str, dict] = {"images": {}, "annotations": {}, "categories": {}}
    for path in paths:
        for key, entry in iter_lists(path, found.keys(), INSTANCES):
            number = entry.get("id") if isinstance(entry, Mapping) else None
            if type(number) is not int:
                raise DataError(f"{path}: an entry of {key} has no id: {excerpt(entry)}; expected {INSTANCES}")
            if key == "categories":
                found[key][number] = entry.get("name")
            elif key == "images" and number in image_ids:
                found[key][number] = entry
            elif key == "annotations" and number in ids:
                category = entry.get("category_id")
                found[key][number] = {  # no polygons
                    "bbox": entry.get("bbox"),
                    "category_id": category if type(category) is int else None,
                }
    return found["images"], found["annotations"], found["categories"]


def _xyxy(box: object) -> object:
    """COCO's x, y, width, height as corners, without the digits that only adding makes; what is no box stays as it is,
    for the row's reader to name."""
    if not (isinstance(box, list) and len(box) == 4 and all(type(number) in (int, float) for number in box)):
        return box
    x, y, width, height = box
    return [x, y, round(x + width, 6), round(y + height, 6)]
