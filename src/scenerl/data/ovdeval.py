"""OVDEval as detection: every subset, each image with the labels that are there and hard negatives beside them.

On disk, as on the hub (omlab/OVDEval): one file for each subset (``celebrity.json``, ``color.json``,
``landmark.json``, ``logo.json``, ``material.json``, ``negation.json``, ``position.json``, ``relationship.json``), and
its images in a folder of that name, there or in ``images/``. Files are of COCO's schema, and an image holds two lists
besides: ``text``, the labels that it has, and ``neg_text``, labels that it has not, made to be mistaken for them. Both
make up the query.

Source ``ovdeval:FOLDER``, split the name of a subset; without one all subsets, one after the other, with the subset's
name before each image id (``color/12``). Or ``ovdeval:FILE.json``. Setting: ``images=FOLDER``.

Source: Yao et al. 2023 (arXiv 2308.13177).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from scenerl.answers.elements import excerpt, normal_text
from scenerl.data.arguments import path_and_settings
from scenerl.data.coco import records
from scenerl.data.ground_truth import Names
from scenerl.data.instances import read_instances
from scenerl.data.published import choose_split, image_folders, refuse_split
from scenerl.data.records import Record
from scenerl.errors import DataError

EXPECTED = "OVDEval's annotations: COCO instances whose images have text and neg_text"


def read_named(argument: str, split: str | None, exact: bool) -> tuple[Names, Iterator[Record]]:
    """The names of the categories where it is one file, and the images of a subset, or of all, as records; as
    :func:`scenerl.data.coco.read_named`."""
    path, settings = path_and_settings(argument, "ovdeval", {"images": ""})
    images = settings["images"]
    if path.is_file():
        refuse_split(split, f"ovdeval:{path}")
        return _subset(path, images, "", exact)
    names = sorted(found.stem for found in path.glob("*.json"))
    if split is not None or not names:
        return _subset(path / f"{choose_split(split, names, f'ovdeval:{path}')}.json", images, "", exact)
    subsets = (_subset(path / f"{name}.json", images, f"{name}/", exact)[1] for name in names)
    return Names(), chain.from_iterable(subsets)


def _subset(path: Path, images: str, prefix: str, exact: bool) -> tuple[Names, Iterator[Record]]:
    instances = read_instances(path, EXPECTED)
    folders = image_folders(images, path.parent, [path.stem, f"images/{path.stem}", "images"], path.parent)

    def listed(image_id: str) -> list[str]:
        labels = [instances.images[image_id].get(key) for key in ("text", "neg_text")]
        labels = [[] if part is None else part for part in labels]
        if not all(isinstance(part, list) and all(isinstance(label, str) for label in part) for part in labels):
            raise DataError(
                f"text and neg_text must be lists of labels, found {excerpt(labels[0])} and {excerpt(labels[1])}"
            )
        return list(dict.fromkeys(map(normal_text, labels[0] + labels[1])))

    return Names(instances.names), records(instances, folders, exact, listed, prefix=prefix)
