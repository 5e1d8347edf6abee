"""PSG: the boxes and relations of the Panoptic Scene Graph data set, from psg.json.

On disk: ``psg.json`` and COCO's images in ``train2017`` and ``val2017``, in the same folder, in ``coco`` in it or in
``coco`` beside it (as OpenPSG lays them out). The panoptic PNG files are not needed.

``{"data": [{"image_id", "file_name": "train2017/….jpg", "width", "height", "annotations": [{"bbox": [x1, y1, x2, y2],
"category_id"}], "relations": [[subject, object, predicate]]}], "thing_classes", "stuff_classes", "predicate_classes",
"test_image_ids"}``; classes are counted from 0, stuff after things. Images in ``test_image_ids`` are the split
``test``, all others ``train``. Images without relations stay (OpenPSG's own loader leaves them out), and so do several
predicates of one pair (it draws one of them in training); a relation that stands there twice counts once.

Source: Yang et al. 2022 (arXiv 2207.11247).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from scenerl.data.published import ImageFolders, choose_split, find_file, graph_record, graphs_only, names_of
from scenerl.data.rows import Record, excerpt
from scenerl.data.vocabulary import Vocabulary
from scenerl.errors import DataError
from scenerl.files import whole_file
from scenerl.json_files import iter_lists, read_members
from scenerl.types import Example

SPLITS = ("train", "test")
EXPECTED = "psg.json: a JSON object with data, thing_classes, stuff_classes, predicate_classes and test_image_ids"

_NAMES = ("thing_classes", "stuff_classes", "predicate_classes")
_IMAGE_ROOTS = (".", "coco", "images", "coco/images", "../coco", "../coco/images")


def read(path: Path | str, split: str | None = None) -> Iterator[Record]:
    """Every image of a split as a record, streamed; psg.json is gone through twice, in bounded memory.

    Args:
        path: psg.json, or the folder that holds it (or holds it in ``psg``).
        split: ``train`` or ``test``.

    Raises:
        DataError: the file is missing or not of the schema.
    """
    path = Path(path)
    split = choose_split(split, SPLITS, f"psg:{path}")
    if path.is_dir():
        path = find_file(path, ("psg.json", "psg/psg.json"))
    parts = read_members(path, (*_NAMES, "test_image_ids"), EXPECTED)
    if missing := [key for key in (*_NAMES, "test_image_ids") if not isinstance(parts.get(key), list)]:
        raise DataError(f"{path}: {', '.join(missing)} is missing or no list; expected {EXPECTED}")
    labels = names_of([*parts["thing_classes"], *parts["stuff_classes"]], f"{path}: thing_classes and stuff_classes")
    predicates = names_of(parts["predicate_classes"], f"{path}: predicate_classes")
    test_ids = {str(image_id) for image_id in parts["test_image_ids"]}
    folders = ImageFolders(path.parent, _IMAGE_ROOTS, holding=("train2017", "val2017"))
    for number, (_, row) in enumerate(iter_lists(path, {"data"}, EXPECTED)):
        where = f"{path}, data[{number}]"
        if not isinstance(row, Mapping):
            yield Record(where, None, (f"must be a JSON object, found {excerpt(row)}",))
        elif (str(row.get("image_id")) in test_ids) == (split == "test"):
            yield _record(where, row, labels, predicates, folders)


def write(path: Path, examples: Iterable[Example], is_test: bool = False, names: Vocabulary | None = None) -> int:
    """Write scene graphs as a psg.json, whole or not at all, row by row.

    All classes are things; images are named by their whole path.

    Args:
        path: the file.
        is_test: put every image into ``test_image_ids``.
        names: classes and predicates are numbered as here, and others behind them as they come.

    Returns:
        The number of images.

    Raises:
        DataError: an example asks for labels.
    """
    classes = {label: number for number, label in enumerate(names.objects if names else ())}
    predicates = {predicate: number for number, predicate in enumerate(names.predicates if names else ())}
    ids = []
    with whole_file(path) as aside, open(aside, "w", encoding="ascii") as file:
        file.write('{"data": [')
        for example in graphs_only(examples, "psg.json"):
            row = {
                "image_id": example.image_id,
                "file_name": str(example.image) if isinstance(example.image, Path) else example.image_id,
                "width": example.width,
                "height": example.height,
                "segments_info": [],
                "annotations": [
                    {
                        "bbox": list(found.box),
                        "bbox_mode": 0,
                        "category_id": classes.setdefault(found.label, len(classes)),
                    }
                    for found in example.graph.objects
                ],
                "relations": [
                    [edge.subject, edge.object, predicates.setdefault(edge.predicate, len(predicates))]
                    for edge in example.graph.relations
                ],
            }
            file.write(f"{',' * bool(ids)}\n{json.dumps(row, allow_nan=False)}")
            ids.append(example.image_id)
        lists = {"thing_classes": list(classes), "stuff_classes": [], "predicate_classes": list(predicates)}
        file.write("],\n" + json.dumps({**lists, "test_image_ids": ids if is_test else []})[1:] + "\n")
    return len(ids)


def _record(
    where: str, row: Mapping, labels: Mapping[int, str], predicates: Mapping[int, str], folders: ImageFolders
) -> Record:
    if wrong := [key for key in ("annotations", "relations") if not isinstance(row.get(key), list)]:
        return Record(where, None, (f"{' and '.join(wrong)} must be a list",))
    classes, boxes, relations = [], [], []
    for n, entry in enumerate(row["annotations"]):
        number = entry.get("category_id") if isinstance(entry, Mapping) else None
        if type(number) is not int or number not in labels:
            return Record(where, None, (f"annotations[{n}] must have a known category_id, found {excerpt(entry)}",))
        classes.append(labels[number])
        boxes.append(entry.get("bbox"))
    for n, entry in enumerate(row["relations"]):
        whole = isinstance(entry, list) and len(entry) == 3 and all(type(number) is int for number in entry)
        if not whole or entry[2] not in predicates:
            error = f"relations[{n}] must be [subject, object, predicate], found {excerpt(entry)}"
            return Record(where, None, (error,))
        relations.append((entry[0], predicates[entry[2]], entry[1]))
    name = row.get("file_name")
    image = None
    if isinstance(name, str):
        image = Path(name) if Path(name).is_absolute() else folders.find(name)
    size = row.get("width"), row.get("height")
    return graph_record(where, row.get("image_id"), size, classes, boxes, relations, image)
