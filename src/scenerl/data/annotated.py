"""Images with an annotation file each, as annotation tools export them: Pascal VOC, YOLO and LabelMe, as detection.

The files are read by ``supervision`` (``pip install 'scenerl[graphs]'``). CVAT, Label Studio and Roboflow export
these forms, and COCO's (:mod:`scenerl.data.coco`); for their own see :mod:`scenerl.data.cvat`, whose files are
recognised here too, and :mod:`scenerl.data.label_studio`. Polygons, circles and turned boxes count by the upright
box around them; YOLO's polygons are drawn as masks by the library while it reads, which takes memory. Points and lines
of LabelMe have no box and are errors of their image.

Source ``annotated:FOLDER``, with a split where it has several, then the settings ``format=voc``, ``yolo`` or
``labelme`` (by default what the files are), and ``query``, ``negatives`` and ``seed`` as for COCO. Images and
annotations may be

    images/ and labels/, JPEGImages/ and Annotations/, images/ and Annotations/, or in one folder,
    in the folder itself, in FOLDER/SPLIT/ (Roboflow), or as images/SPLIT and labels/SPLIT (Ultralytics);
    VOC's ImageSets/Main/SPLIT.txt names the images of a split.

An annotation file has the name of its image, or that with Label Studio's prefix before it (``3f2a9c1b-photo.txt``).

YOLO's names are those of ``data.yaml`` (``dataset.yaml``, ``*.yaml``), or of ``classes.txt`` or ``obj.names``, a line
each. An image id is the name of the image file without its ending.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from scenerl.answers.elements import excerpt, normal_text
from scenerl.config import dump_yaml
from scenerl.data.arguments import path_and_settings
from scenerl.data.coco import QUERIES, QueryChooser, records
from scenerl.data.cvat import cvat_file, read_file
from scenerl.data.ground_truth import Names
from scenerl.data.images import image_size
from scenerl.data.instances import Annotation, Instances
from scenerl.data.photos import is_photo
from scenerl.data.published import ImageFolders, choose_split, without_upload_prefix
from scenerl.data.records import Record, four_finite
from scenerl.errors import DataError
from scenerl.extras import require
from scenerl.json_files import read_json

SUFFIXES = {"voc": ".xml", "yolo": ".txt", "labelme": ".json"}
"""Format to the suffix of its annotation files."""

_PAIRS = (
    ("images", "labels"), ("JPEGImages", "Annotations"), ("images", "Annotations"), ("images", "annotations"),
    ("images", "."), (".", "."),
)  # fmt: skip
_SHAPES = ("rectangle", "polygon", "oriented_rectangle", "rotation", "mask", "circle")
"""LabelMe's shapes that have a box; ``rotation`` is X-AnyLabeling's name of a turned one."""
_LISTS = ("classes.txt", "obj.names")
_DAMAGE = (ValueError, KeyError, IndexError, TypeError, AttributeError, SyntaxError, OSError)
"""What the library raises on files that are not as they should be; errors of XML are SyntaxErrors."""


class _Place(NamedTuple):
    """Where the images and the annotations of a split are; ``stems`` names those that belong to it, None: all."""

    images: Path
    labels: Path
    stems: frozenset[str] | None = None


def read_named(argument: str, split: str | None, exact: bool) -> tuple[Names, Iterator[Record]]:
    """The names of the labels by number, and the images as records; as :func:`scenerl.data.coco.read_named`.

    Raises:
        DataError: also where the package is missing, or files are not of the format.
    """
    defaults = {"format": "auto", "query": "all", "negatives": 5, "seed": 0}
    choices = {"format": ("auto", *SUFFIXES), "query": QUERIES}
    folder, settings = path_and_settings(argument, "annotated", defaults, choices)
    if settings["format"] == "auto" and (file := cvat_file(folder)):
        return Names(), read_file(file, split, settings["query"], settings["negatives"], settings["seed"])
    if not folder.is_dir():
        raise DataError(f"annotated:{folder}: there is no such folder")
    kinds = [settings["format"]] if settings["format"] != "auto" else list(SUFFIXES)
    found = {kind: places for kind in kinds if (places := _places(folder, SUFFIXES[kind]))}
    if not found:
        wanted = ", ".join(f"{kind}: {SUFFIXES[kind]}" for kind in kinds)
        raise DataError(f"annotated:{folder}: holds no images with annotation files beside them ({wanted})")
    kind, places = next(iter(found.items()))
    name = choose_split(split, sorted(places), f"annotated:{folder}") if split or "" not in places else ""
    instances = _instances(folder, kind, places[name])
    chooser = QueryChooser(instances, settings["query"], settings["negatives"], settings["seed"])
    folders = ImageFolders(places[name].images, ["."])
    return Names(instances.names), records(instances, folders, exact, choose=chooser.choose)


def _places(folder: Path, suffix: str) -> dict[str, _Place]:
    """Split to where its files are; the split of a folder without any is empty."""
    found: dict[str, _Place] = {}
    if place := _pair(folder, suffix):
        for listed in sorted(folder.glob("ImageSets/Main/*.txt")):
            lines = listed.read_text(encoding="utf-8").splitlines()
            stems = frozenset(line.split()[0] for line in lines if line.strip())
            found[listed.stem] = place._replace(stems=stems)
        return found or {"": place}
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if place := _pair(inner, suffix):
            found[inner.name] = place
    for inner in sorted((folder / "images").glob("*/")):
        if _belong(inner, folder / "labels" / inner.name, suffix):
            found[inner.name] = _Place(inner, folder / "labels" / inner.name)
    return found


def _pair(folder: Path, suffix: str) -> _Place | None:
    for images, labels in _PAIRS:
        if _belong(folder / images, folder / labels, suffix):
            return _Place(folder / images, folder / labels)
    return None


def _belong(images: Path, labels: Path, suffix: str) -> bool:
    """Whether some annotation file has the name of an image; JSON ones must hold LabelMe's shapes."""
    if not (images.is_dir() and labels.is_dir()):
        return False
    first = next(iter(_of_images(images, labels, suffix).values()), None)
    return first is not None and (suffix != ".json" or b'"shapes"' in first.read_bytes())


def _of_images(images: Path, labels: Path, suffix: str) -> dict[str, Path]:
    """The stems of images to their annotation files, where they have one.

    Raises:
        DataError: two files differ in Label Studio's prefix alone, and the image has no prefix.
    """
    stems = {path.stem for path in images.iterdir() if is_photo(str(path))}
    files = {path.stem: path for path in sorted(labels.glob(f"*{suffix}"))}
    found = {stem: path for stem, path in files.items() if stem in stems}
    for stem, path in files.items():
        plain = without_upload_prefix(stem)
        if stem in stems or plain not in stems or plain in files:
            continue
        if plain in found:
            raise DataError(f"{path}: annotates the image {plain}, as {found[plain].name} does; remove one of the two")
        found[plain] = path
    return found


@contextmanager
def _readable(place: _Place, kind: str, problems: dict[str | None, list[str]]) -> Iterator[Path]:
    """The folder of the annotation files; a copy of them where some are not named as their images are, since the
    library finds them by name, and of LabelMe's with a rectangle for every shape, since it skips other shapes than
    polygons. What has no box goes to ``problems`` of its image."""
    suffix = SUFFIXES[kind]
    found = _of_images(place.images, place.labels, suffix)
    if kind == "labelme":
        with tempfile.TemporaryDirectory() as made:
            for stem, path in found.items():
                value = read_json(path, "LabelMe annotations")
                value["shapes"], wrong = _rectangles(value["shapes"])
                problems[stem] += [f"{path}: {message}" for message in wrong]
                (Path(made) / f"{stem}{suffix}").write_text(json.dumps(value), encoding="utf-8")
            yield Path(made)
        return
    if all(stem == path.stem for stem, path in found.items()):
        yield place.labels
        return
    with tempfile.TemporaryDirectory() as made:
        for stem, path in found.items():
            shutil.copyfile(path, Path(made) / f"{stem}{suffix}")
        yield Path(made)


def _rectangles(shapes: list) -> tuple[list[dict], list[str]]:
    """LabelMe's shapes as rectangles around them, and what is wrong with those that have none."""
    rectangles, wrong = [], []
    for n, shape in enumerate(shapes):
        kind, points = shape.get("shape_type") or "polygon", shape["points"]
        if kind not in _SHAPES:
            wrong.append(f"shapes[{n}]: a {kind} has no box; allowed: {', '.join(_SHAPES)}")
        elif len(points) < (3 if kind == "polygon" else 2) or not all(map(_is_point, points)):
            wrong.append(f"shapes[{n}]: the points of a {kind} must be x and y each, found {excerpt(points)}")
        else:
            if kind == "circle":  # its centre and a point on it
                (x, y), edge = points[:2]
                radius = math.dist((x, y), edge)
                points = [[x - radius, y - radius], [x + radius, y + radius]]
            rectangles.append({**shape, "shape_type": "rectangle", "points": points})
    return rectangles, wrong


def _is_point(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and four_finite([*value, *value]) is not None


def _instances(folder: Path, kind: str, place: _Place) -> Instances:
    """What the library reads, as instances."""
    library = require("supervision", f"annotated:{folder} ({kind} files)").DetectionDataset
    found = Instances(place.labels)
    try:
        dataset = _load(library, folder, kind, place, found.problems)
    except _DAMAGE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"annotated:{folder}: cannot be read as {kind} ({' '.join(str(error).split())[:300]})"
        ) from error
    found.names = dict(enumerate(map(normal_text, dataset.classes)))
    for image in sorted(map(Path, dataset.image_paths)):
        if place.stems is not None and image.stem not in place.stems:
            continue
        if image.stem in found.images:
            raise DataError(f"annotated:{folder}: two images are called {image.stem!r}")
        try:
            width, height = image_size(image, f"the image {image.name}")
        except DataError as error:
            found.problems[image.stem].append(str(error))
            width = height = None
        found.images[image.stem] = {"file_name": os.path.abspath(image), "width": width, "height": height}
        detections = dataset.annotations[str(image)]
        for box, number in zip(detections.xyxy.tolist(), detections.class_id.tolist(), strict=True):
            found.annotations[image.stem].append(Annotation(number, tuple(box), False))
    return found


def _load(dataset: Any, folder: Path, kind: str, place: _Place, problems: dict[str | None, list[str]]) -> Any:
    """The data set of the library."""
    images = str(place.images)
    with _readable(place, kind, problems) as labels:
        if kind == "voc":
            return dataset.from_pascal_voc(images, str(labels))
        if kind == "labelme":
            return dataset.from_labelme(images, str(labels))
        with _names_file(folder, place) as names:
            return dataset.from_yolo(images, str(labels), str(names))


@contextmanager
def _names_file(folder: Path, place: _Place) -> Iterator[Path]:
    """The YAML file with YOLO's names, made where they are a plain list.

    Raises:
        DataError: nothing names the classes.
    """
    around = list(dict.fromkeys((folder, place.labels.parent, place.labels, folder.parent)))
    for where in around:
        for pattern in ("data.yaml", "dataset.yaml", "*.yaml", "*.yml"):
            if files := sorted(where.glob(pattern)):
                yield files[0]
                return
    for where in around:
        for name in _LISTS:
            if (where / name).is_file():
                lines = (where / name).read_text(encoding="utf-8").splitlines()
                content: Mapping = {"names": [line.strip() for line in lines if line.strip()]}
                with tempfile.TemporaryDirectory() as made:
                    path = Path(made) / "data.yaml"
                    path.write_text(dump_yaml(content), encoding="utf-8")
                    yield path
                return
    raise DataError(f"annotated:{folder}: no data.yaml, {' or '.join(_LISTS)} names the classes")
