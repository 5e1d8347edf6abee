"""D³ (Description Detection Dataset) as detection: long descriptions, most of them absent from an image.

On disk: the JSON release (``d3_json.zip``), ``d3_full_annotations.json``, ``d3_pres_annotations.json`` and
``d3_abs_annotations.json`` in the folder or in ``d3_json/`` below it, and the images in ``d3_images/``. They are of
COCO's schema; a category is a sentence, its id the sentence's. FULL holds all 422 sentences, PRES the 316 that say what
is there, ABS the 106 that say what is not (``person without helmet``). Every sentence is annotated in every image, so
one without a box there is absent.

Source ``d3:FOLDER``, split ``full`` (the default), ``pres`` or ``abs``, then settings::

    query=sampled     the sentences that are there and ``negatives`` absent ones (5), drawn by ``seed`` (0), first of
                      those that other images of the same group have: the harder ones (the default)
    query=group       the sentences of the image's group, present or absent: D³'s intra-group setting
    query=all         every sentence of the split: the inter-group setting
    query=present     only those that are there
    images=FOLDER     where the images are; by default looked for in the folder

An image's group is the folder in its file name. Which sentences belong to a group stands only in the release's pickles
(``groups.pkl``, ``sentences.pkl``). Pickles can run any code and are not loaded; ``query=group`` needs ``groups.json``,
the same mapping from group id to ``{"img_id": [...], "inner_sent_id": [...]}`` as JSON (docs/detection.md shows how to
make it of a release that one trusts).

Source: Xie et al. 2023 (arXiv 2307.12813), section 3.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from scenerl.answers.elements import excerpt
from scenerl.data.arguments import path_and_settings
from scenerl.data.coco import QueryChooser, records
from scenerl.data.ground_truth import Names
from scenerl.data.instances import Instances, read_instances, tidy_id
from scenerl.data.published import choose_split, find_file, image_folders
from scenerl.data.records import Record
from scenerl.errors import DataError
from scenerl.json_files import read_json

SPLITS = ("full", "pres", "abs")
QUERIES = ("sampled", "group", "all", "present")
EXPECTED = "D³'s annotations: a JSON object with images, annotations and categories"
GROUPS = "D³'s groups: a JSON object of group id to an object with the lists img_id and inner_sent_id"


def read_named(argument: str, split: str | None, exact: bool) -> tuple[Names, Iterator[Record]]:
    """The names of the sentences, and the images of a split as records; as :func:`scenerl.data.coco.read_named`."""
    defaults = {"query": "sampled", "negatives": 5, "seed": 0, "images": ""}
    folder, settings = path_and_settings(argument, "d3", defaults, {"query": QUERIES})
    split = choose_split(split or SPLITS[0], SPLITS, f"d3:{folder}")
    path = _annotations(folder, split)
    instances = read_instances(path, EXPECTED)
    folders = image_folders(settings["images"], folder, ["d3_images", "../d3_images", "images"], path.parent)
    query = settings["query"]
    if query == "group":
        listed = partial(_group_query, _group_queries(folder, instances))
        return Names(instances.names), records(instances, folders, exact, listed, drop_unlisted=True)
    chooser = QueryChooser(instances, query, settings["negatives"], settings["seed"], near=_near(instances))
    return Names(instances.names), records(instances, folders, exact, choose=chooser.choose)


def _group_query(queries: Mapping[str, list[str]], image_id: str) -> list[str]:
    if image_id not in queries:
        raise DataError("groups.json names the image in no group")
    return queries[image_id]


def _annotations(folder: Path, split: str) -> Path:
    pickles = any(folder.glob("*.pkl")) or any(folder.glob("d3_pkl/*.pkl"))
    hint = "; the pickles there are not loaded, since a pickle can run any code: unpack d3_json.zip" if pickles else ""
    return find_file(folder, [f"{below}d3_{split}_annotations.json" for below in ("", "d3_json/")], hint)


def _near(instances: Instances) -> Mapping[str, set[str]]:
    """By image id, the sentences that some image of the same group has a box for."""
    group = {key: PurePosixPath(str(image.get("file_name"))).parent for key, image in instances.images.items()}
    labels: dict[PurePosixPath, set[str]] = defaultdict(set)
    for image_id, folder in group.items():
        labels[folder].update(instances.names[found.category] for found in instances.annotations[image_id])
    return {image_id: labels[folder] for image_id, folder in group.items()}


def _group_queries(folder: Path, instances: Instances) -> dict[str, list[str]]:
    """By image id, the sentences of its group that the split has."""
    hint = "; query=group needs it, and docs/detection.md says how to make it"
    path = find_file(folder, ("groups.json", "d3_json/groups.json"), hint)
    value = read_json(path, GROUPS)
    queries: dict[str, list[str]] = {}
    for key, group in (value if isinstance(value, Mapping) else {"?": value}).items():
        group = group if isinstance(group, Mapping) else {}
        images, sentences = group.get("img_id"), group.get("inner_sent_id")
        if not isinstance(images, list) or not isinstance(sentences, list):
            raise DataError(f"{path}: group {excerpt(key)} has no such lists; expected {GROUPS}")
        labels = [instances.names[number] for number in sentences if type(number) is int and number in instances.names]
        queries |= {image_id: labels for number in images if (image_id := tidy_id(number)) is not None}
    return queries
