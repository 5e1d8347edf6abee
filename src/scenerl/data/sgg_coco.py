"""Scene graphs in SGG-Benchmark's form of COCO: instances, and the relations between them in the same file.

COCO instances (:mod:`scenerl.data.instances`) with ``rel_annotations``, ``[{"id", "image_id", "subject_id",
"predicate_id", "object_id"}]``, whose subjects and objects are the ``id`` of annotations, and ``rel_categories``,
``[{"id", "name"}]`` or a list of names counted from 1. So are its mirrors of PSG, VG150 and IndoorVG on the hub, once
its ``tools/download_from_hub.py`` has written them, and the files of its tool SGG-Annotate.

Its loader takes number 0 for the background, whatever the file calls it; here names are those of the file. It leaves
out images without relations; here they stay. Relations to no box of the image, which it passes over, are left out with
a warning. Crowd regions are objects like others.

Source ``sgg_coco:FILE``, or ``sgg_coco:FOLDER`` with a split (``<split>/_annotations.coco.json``), then
``images=FOLDER``; by default images are looked for beside the file.

Source: SGG-Benchmark, ``docs/ANNOTATIONS.md`` and ``sgg_benchmark/data/datasets/data.py``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from scenerl.answers.elements import excerpt, normal_text
from scenerl.data.arguments import path_and_settings
from scenerl.data.ground_truth import Names
from scenerl.data.instances import read_instances, tidy_id
from scenerl.data.published import choose_split, image_folders, refuse_split
from scenerl.data.records import Record, build_example, whole_number
from scenerl.errors import DataError, counted
from scenerl.json_files import iter_lists

EXPECTED = "COCO instances with rel_annotations and rel_categories, as SGG-Benchmark has them"
KEYS = ("rel_annotations", "rel_categories")
FILE = "_annotations.coco.json"

Edges = Mapping[str, list[tuple[str, int, str]]]
"""By image id: subject's annotation, number of the predicate, object's annotation."""


def read_named(argument: str, split: str | None, exact: bool) -> tuple[Names, Iterator[Record]]:
    """The names of labels and predicates, and the images of a file as records; as
    :func:`scenerl.data.coco.read_named`."""
    path, settings = path_and_settings(argument, "sgg_coco", {"images": ""})
    if path.is_dir():
        splits = sorted(found.parent.name for found in path.glob(f"*/{FILE}"))
        path = path / choose_split(split, splits, f"sgg_coco:{path}") / FILE
    else:
        refuse_split(split, f"sgg_coco:{path}")
    instances = read_instances(path, EXPECTED, with_ids=True)
    predicates, edges = _relations(path)
    usual = [path.stem, f"images/{path.stem}", "images", "../images"]
    folders = image_folders(settings["images"], path.parent, usual, path.parent)

    def records() -> Iterator[Record]:
        for problem in instances.problems[None]:
            yield Record(str(path), None, (problem,))
        for image_id, image in instances.images.items():
            where = f"{path}, image {image_id}"
            annotations = instances.annotations[image_id]
            place = {number: n for n, number in enumerate(instances.ids[image_id])}
            relations, lost = [], []
            for subject, predicate, object_ in edges.get(image_id, ()):
                if subject in place and object_ in place and predicate in predicates:
                    relations.append((place[subject], predicates[predicate], place[object_]))
                else:
                    lost.append((subject, predicate, object_))
            record = build_example(
                where,
                image_id,
                (image.get("width"), image.get("height")),
                [instances.names[found.category] for found in annotations],
                [found.box for found in annotations],
                relations,
                image=folders.find_named(image.get("file_name"), image.get("coco_url")),
                exact=exact,
            )
            warnings = list(record.warnings)
            if lost:
                warnings.insert(
                    0,
                    f"{counted(len(lost), 'relation')} whose subject, predicate or object the image or the file lacks "
                    f"left out: {excerpt(lost[0])}",
                )
            errors = (*instances.problems.get(image_id, ()), *record.errors)
            yield Record(where, None if errors else record.example, errors, tuple(warnings))

    return Names(instances.names, tuple(predicates[number] for number in sorted(predicates))), records()


def _relations(path: Path) -> tuple[dict[int, str], Edges]:
    """The predicates by number, without a background, and the relations.

    Raises:
        DataError: an entry that names no image, subject, predicate or object, or a predicate without a name.
    """
    predicates: dict[int, str] = {}
    edges: dict[str, list[tuple[str, int, str]]] = defaultdict(list)
    counts: Counter[str] = Counter()
    for key, entry in iter_lists(path, KEYS, EXPECTED):
        n = counts[key]
        counts[key] += 1
        if key == "rel_categories":
            number, name = (n + 1, entry) if isinstance(entry, str) else (None, None)
            if isinstance(entry, Mapping):
                number, name = whole_number(entry.get("id")), entry.get("name")
            if number is None or not isinstance(name, str) or not name.strip():
                raise DataError(f"{path}: rel_categories[{n}] must have an id and a name, found {excerpt(entry)}")
            if predicates.setdefault(number, normal_text(name)) != normal_text(name):
                raise DataError(f"{path}: rel_categories[{n}]: the id {number} has another name already")
            continue
        entry = entry if isinstance(entry, Mapping) else {}
        image_id, subject, object_ = (tidy_id(entry.get(key)) for key in ("image_id", "subject_id", "object_id"))
        predicate = whole_number(entry.get("predicate_id"))
        if image_id is None or subject is None or object_ is None or predicate is None:
            raise DataError(
                f"{path}: rel_annotations[{n}] must have image_id, subject_id, predicate_id and object_id, found "
                f"{excerpt(entry)}"
            )
        edges[image_id].append((subject, predicate, object_))
    if not predicates:
        raise DataError(f"{path}: rel_categories is missing or empty; expected {EXPECTED}")
    used = {predicate for listed in edges.values() for _, predicate, _ in listed}
    background = {number for number, name in predicates.items() if name.strip("_").lower() == "background"}
    return {number: name for number, name in predicates.items() if number not in background - used}, edges
