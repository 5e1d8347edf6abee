"""COCO's instances, and every data set of their schema, as detection: an image, a query of labels, their boxes.

:mod:`scenerl.data.instances` shows such a file. Images are not opened.

Boxes without area, which COCO's training set has, are left out with a warning. Crowd regions are no targets; they
become :attr:`~scenerl.types.Example.crowds`. Where an image has nothing else of a label, the label is neither present
nor absent, and the query leaves it out.

Source ``coco:FILE`` or ``coco:FOLDER`` with a split (``annotations/instances_<split>.json``), then settings::

    images=FOLDER          where the images are; by default looked for beside the file and in its usual folders
    query=all              every category of the file (the default)
    query=present          only the categories that the image has
    query=sampled          those that the image has and ``negatives`` absent ones (5), drawn by ``seed`` (0)
    filtered=1             leave out, per image, categories of more than 10 boxes, as VLM-R1's evaluation does

Source: Lin et al. 2014 (arXiv 1405.0312).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scenerl.data.arguments import path_and_settings
from scenerl.data.ground_truth import Names
from scenerl.data.images import image_size
from scenerl.data.instances import Instances, read_instances
from scenerl.data.published import ImageFolders, choose_split, image_folders, refuse_split
from scenerl.data.records import Record, build_example, lacks_area
from scenerl.errors import DataError, counted
from scenerl.metrics.arrays import CROWDED

QUERIES = ("all", "present", "sampled")


def read_named(argument: str, split: str | None, exact: bool) -> tuple[Names, Iterator[Record]]:
    """The names of the categories, and the images of a file as records.

    Args:
        argument: the module says what it may hold.
        exact: take boxes as they stand in the file; see :func:`scenerl.data.records.build_example`.

    Raises:
        DataError: the file is missing or not of the schema, or a setting is unknown.
    """
    defaults = {"images": "", "query": "all", "negatives": 5, "seed": 0, "filtered": 0}
    path, settings = path_and_settings(argument, "coco", defaults, {"query": QUERIES, "filtered": ("0", "1")})
    if path.is_dir():
        splits = sorted(found.stem.removeprefix("instances_") for found in path.glob("annotations/instances_*.json"))
        path = path / "annotations" / f"instances_{choose_split(split, splits, f'coco:{path}')}.json"
    else:
        refuse_split(split, f"coco:{path}")
    instances = read_instances(path)
    if not exact:
        refuse_crowds_alone(instances)
    chooser = QueryChooser(instances, settings["query"], settings["negatives"], settings["seed"])
    name = path.stem.removeprefix("instances_")
    usual = [f"{up}{folder}" for up in ("", "../") for folder in (name, f"images/{name}", "images")]
    folders = image_folders(settings["images"], path.parent, usual, path.parent)
    return Names(instances.names), records(
        instances, folders, exact, choose=chooser.choose, filtered=bool(settings["filtered"])
    )


def refuse_crowds_alone(instances: Instances) -> None:
    """Raise a DataError where every annotation of a file is a crowd region, so that no target is left."""
    found = [annotation for listed in instances.annotations.values() for annotation in listed]
    if found and all(annotation.crowd for annotation in found):
        raise DataError(
            f"{instances.path}: nothing but crowd regions ({counted(len(found), 'annotation')}, iscrowd is 1), which "
            "are no targets; set iscrowd to 0 where a box holds a single object"
        )


@dataclass
class QueryChooser:
    """Chooses the labels to prompt for. ``near`` gives, for an image id, absent labels that are drawn first."""

    instances: Instances
    query: str = "all"
    negatives: int = 5
    seed: int = 0
    near: Mapping[str, Collection[str]] = field(default_factory=dict)

    def choose(self, image_id: str, present: Collection[str], left_out: Collection[str] = ()) -> list[str]:
        """The labels for an image, in the order of the file's categories; ``sampled`` in drawn order.

        Args:
            present: labels that the image has boxes of.
            left_out: labels that are not to be in it.
        """
        names = list(self.instances.names.values())
        if left_out:
            names = [name for name in names if name not in left_out]
        if self.query == "all":
            return names
        if self.query == "present":
            return [name for name in names if name in present]
        rng = random.Random(f"{self.seed}/{image_id}")
        absent = [name for name in names if name not in present]
        rng.shuffle(absent)
        near = self.near.get(image_id, ())
        absent.sort(key=lambda name: name not in near)  # stable, so drawn order holds within both parts
        query = [name for name in names if name in present] + absent[: self.negatives]
        rng.shuffle(query)
        return query


def records(
    instances: Instances,
    folders: ImageFolders,
    exact: bool,
    listed: Callable[[str], Sequence[str]] | None = None,
    choose: Callable[[str, set[str], set[str]], Sequence[str]] | None = None,
    filtered: bool = False,
    prefix: str = "",
    drop_unlisted: bool = False,
) -> Iterator[Record]:
    """The images of a file as records, after those of annotations that name no image.

    Args:
        exact: keep boxes as they stand in the file, those without area included, and need no size.
        listed: the labels to prompt for, by image id, where the data set lists them itself; a DataError of it becomes
            the record's.
        choose: where ``listed`` is not given; :meth:`QueryChooser.choose`.
        prefix: stands before the image id.
        drop_unlisted: leave out boxes of labels that ``listed`` lacks; otherwise these labels join the query, with a
            warning.
    """
    for problem in instances.problems[None]:
        yield Record(str(instances.path), None, (problem,))
    for image_id, image in instances.images.items():
        where = f"{instances.path}, image {image_id}"
        size = image.get("width"), image.get("height")
        file = folders.find_named(image.get("file_name"), image.get("coco_url"))
        try:
            if not (exact or any(size)) and isinstance(file, Path):
                size = image_size(file, f"image {image_id!r}")
            query = None if listed is None else listed(image_id)
        except DataError as error:
            yield Record(where, None, (str(error),))
            continue
        annotations = instances.annotations[image_id]
        many = set()
        if filtered:
            counts = Counter(annotation.category for annotation in annotations if not annotation.crowd)
            many = {number for number, count in counts.items() if count > CROWDED}
        labels, boxes, crowds, present, unclear, warnings = [], [], [], set(), set(), []
        for category, box, is_crowd in annotations:
            label = instances.names[category]
            if category in many or (drop_unlisted and label not in query):
                continue
            if is_crowd:
                crowds.append((label, box))
            else:
                labels.append(label)
                boxes.append(box)
            (unclear if is_crowd or lacks_area(box, size) else present).add(label)
        if query is None:
            left_out = (unclear - present) | {instances.names[number] for number in many}
            query = choose(image_id, present, left_out)
        elif unlisted := sorted(present - set(query)):
            warnings.append(f"labels with a box that the file does not list for the image join the query: {unlisted}")
            query = [*query, *unlisted]
        record = build_example(
            where,
            f"{prefix}{image_id}",
            size,
            labels,
            boxes,
            query=query,
            crowds=crowds,
            image=file,
            exact=exact,
        )
        errors = (*instances.problems.get(image_id, ()), *record.errors)
        yield Record(where, None if errors else record.example, errors, (*warnings, *record.warnings))
