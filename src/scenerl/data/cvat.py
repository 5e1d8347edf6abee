"""CVAT's own XML, "CVAT for images 1.1", as detection: one file for all images of a task or a project.

``<annotations><meta>…</meta><image id name width height subset?><box label xtl ytl xbr ybr rotation?/>…</image>…``.
Polygons, ellipses, masks, cuboids and turned boxes count by the upright box around them; points, polylines and
skeletons have none and are errors of their image; tags and attributes are passed over. Labels are those of ``<meta>``,
without those whose type has no box, and then any others in the order of the file. An image id is the image's name,
below its subset's.

Source ``cvat:FILE`` or ``cvat:FOLDER`` (which holds ``annotations.xml``); the splits are a project's subsets, by
default all images are read. Settings: ``images``, ``query``, ``negatives`` and ``seed`` as for COCO.

Source: CVAT's documentation, "CVAT for image", and ``cvat/apps/dataset_manager/formats/cvat.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser, parse

from scenerl.answers.elements import excerpt, normal_text
from scenerl.data.arguments import path_and_settings
from scenerl.data.coco import QUERIES, QueryChooser, records
from scenerl.data.instances import Annotation, Instances
from scenerl.data.published import choose_split, find_file, image_folders
from scenerl.data.records import Record, four_finite
from scenerl.data.shapes import box_around, box_around_ellipse, box_around_rectangle
from scenerl.errors import DataError
from scenerl.types import Box

FILE = "annotations.xml"
_SHAPES = ("box", "polygon", "ellipse", "mask", "cuboid")
_BOXLESS = ("points", "polyline", "skeleton")
_CUBOID = [[f"{axis}{corner}{face}" for axis in "xy"] for corner in ("tl", "bl", "tr", "br") for face in "12"]
_HEAD = 4096


def read(argument: str, split: str | None = None) -> Iterator[Record]:
    """The images of a file as records.

    Raises:
        DataError: the file is missing or of another kind, or has no such subset; the message names it.
    """
    defaults = {"images": "", "query": "all", "negatives": 5, "seed": 0}
    path, settings = path_and_settings(argument, "cvat", defaults, {"query": QUERIES})
    return read_file(find_file(path, [FILE]) if path.is_dir() else path, split, **settings)


def read_file(
    path: Path, split: str | None, query: str, negatives: int, seed: int, images: str = ""
) -> Iterator[Record]:
    """As :func:`read`, with the settings as arguments."""
    instances = _instances(path)
    if split is not None:
        subsets = {image["subset"]: None for image in instances.images.values() if image["subset"]}
        choose_split(split, list(subsets), f"cvat:{path}")
        instances.images = {key: image for key, image in instances.images.items() if image["subset"] == split}
    chooser = QueryChooser(instances, query, negatives, seed)
    folders = image_folders(images, path.parent, ["images", "../images"], path.parent)
    return records(instances, folders, exact=False, choose=chooser.choose)


def cvat_file(path: Path) -> Path | None:
    """The file of CVAT's XML that a path is, or that its folder holds; None where there is none."""
    file = path / FILE if path.is_dir() else path
    if file.suffix != ".xml" or not file.is_file():
        return None
    with open(file, "rb") as head:
        return file if b"<annotations>" in head.read(_HEAD) else None


def _instances(path: Path) -> Instances:
    """The images and boxes of a file; the tree of one image at a time is kept."""
    found = Instances(path)
    numbers: dict[str, int] = {}

    class Builder(TreeBuilder):
        def doctype(self, name: str, *_: object) -> None:  # where entities, which may grow without end, are declared
            raise DataError(f"{path}: declares a document type ({excerpt(name)}), which CVAT's XML does not have")

        def end(self, tag: str) -> Element:
            element = super().end(tag)
            if tag == "track":
                raise DataError(f"{path}: is 'CVAT for video'; export the task as 'CVAT for images 1.1'")
            if tag == "label" and element.findtext("type") not in (*_BOXLESS, "tag"):
                numbers.setdefault(normal_text(element.findtext("name", "")), len(numbers))
            if tag == "image":
                _add(found, element, numbers)
                element.clear()
            return element

    expected = "CVAT's XML: annotations with an image for each image ('CVAT for images 1.1')"
    try:
        root = parse(path, XMLParser(target=Builder())).getroot()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from error
    except ParseError as error:
        raise DataError(f"{path}: not XML as expected ({error}); expected {expected}") from error
    if root.tag != "annotations":
        raise DataError(f"{path}: begins with {excerpt(root.tag)}; expected {expected}")
    found.names = {number: name for name, number in numbers.items()}
    return found


def _add(found: Instances, image: Element, numbers: dict[str, int]) -> None:
    """Add an image and its shapes; a label that is new gets the next number."""
    name, subset = image.get("name", ""), image.get("subset", "")
    image_id = f"{subset}/{name}" if subset else name
    if not name or image_id in found.images:
        raise DataError(f"{found.path}: an image without a name of its own: {excerpt(dict(image.attrib))}")
    sides = {side: _whole(image.get(side)) for side in ("width", "height")}
    found.images[image_id] = {"file_name": image_id, "subset": subset, **sides}
    for n, shape in enumerate(shape for shape in image if shape.tag != "tag"):
        label, box, kind = normal_text(shape.get("label", "")), _box(shape), excerpt(shape.tag)[1:-1]
        if shape.tag not in _SHAPES:
            found.problems[image_id].append(f"shape {n}: a {kind} has no box; allowed: {', '.join(_SHAPES)}")
        elif not label or box is None:
            shown = excerpt(dict(shape.attrib))
            found.problems[image_id].append(f"shape {n}: a {kind} must have a label and its numbers, found {shown}")
        else:
            number = numbers.setdefault(label, len(numbers))
            found.annotations[image_id].append(Annotation(number, box, False))


def _whole(text: str | None) -> object:
    """A side in pixels, as a number where it is one."""
    return int(text) if text and text.isdecimal() and len(text) < 10 else text


def _box(shape: Element) -> Box | None:
    """The upright box around a shape; None where it has none."""
    tag, attributes = shape.tag, shape.attrib

    def numbers(*keys: str) -> list[float]:
        return [float(attributes[key]) for key in keys]

    try:
        angle = float(attributes.get("rotation", 0))
        if tag == "box":
            x1, y1, x2, y2 = numbers("xtl", "ytl", "xbr", "ybr")
            box = box_around_rectangle((x1, y1, x2, y2), angle, ((x1 + x2) / 2, (y1 + y2) / 2))
        elif tag == "polygon":
            pairs = [point.split(",") for point in attributes["points"].split(";")]
            box = box_around([(float(x), float(y)) for x, y in pairs])
        elif tag == "ellipse":
            x, y, rx, ry = numbers("cx", "cy", "rx", "ry")
            box = box_around_ellipse((x, y), (rx, ry), angle)
        elif tag == "mask":
            x, y, width, height = numbers("left", "top", "width", "height")
            box = x, y, x + width, y + height
        elif tag == "cuboid":
            box = box_around([numbers(*corner) for corner in _CUBOID])
        else:
            return None
    except (KeyError, ValueError):  # a number is missing or none
        return None
    return four_finite(box)
