"""Label Studio's own JSON ("JSON" and "JSON-MIN"): the only export of it that has the relations between regions.

``[{"id", "data": {"image"}, "annotations": [{"result": [{"id", "type": "rectanglelabels", "original_width",
"original_height", "value": {"x", "y", "width", "height", "rotation", "rectanglelabels": [label]}}, {"type": "relation",
"from_id", "to_id", "direction", "labels": [predicate]}]}]}]``, coordinates in percent of the image. JSON-MIN has the
values in lists beside ``image``, without ids and relations.

A file with relations becomes scene graphs, one without or with ``query=`` detection. Polygons, ellipses and turned
rectangles count by the upright box around them; brushes and key points have none and are errors of their image, as are
regions without a label and images that were annotated while turned. A region of several labels has the first. Of
several annotations of a task the ground truth counts, else the last; tasks without one are left out. An image id is the
task's. Images are those of ``image`` in ``data``, or of the first text there that names one.

Source ``label_studio:FILE``, then ``images`` (a folder such as Label Studio's ``media/upload``), ``query``,
``negatives`` and ``seed`` as for COCO.

Source: Label Studio's documentation, "Label Studio JSON format of annotated tasks"; RelationStore.js; label-studio-sdk,
``converter/converter.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from scenerl.answers.elements import excerpt, normal_text
from scenerl.data.arguments import path_and_settings
from scenerl.data.coco import QUERIES, QueryChooser
from scenerl.data.images import image_size
from scenerl.data.instances import Instances, tidy_id
from scenerl.data.photos import is_photo
from scenerl.data.published import ImageFolders, image_folders, refuse_split
from scenerl.data.records import MissingFile, Record, build_example, four_finite
from scenerl.data.shapes import box_around, box_around_ellipse, box_around_rectangle
from scenerl.errors import DataError, counted
from scenerl.json_files import iter_list
from scenerl.types import Box

EXPECTED = "Label Studio's JSON: a list of tasks with data and annotations"
_WITH_BOX = ("rectangle", "polygon", "ellipse")


class _Task(NamedTuple):
    """A task as :func:`~scenerl.data.records.build_example` wants it."""

    where: str
    image_id: object
    size: tuple[object, object]
    labels: list[str]
    boxes: list[Box]
    relations: list[tuple[int, str, int]]
    image: Path | MissingFile | None
    errors: list[str]
    warnings: list[str]


def is_task(entry: object) -> bool:
    """Whether the first entry of a list is a task, of JSON or JSON-MIN."""
    keys = entry.keys() if isinstance(entry, Mapping) else set()
    return "annotation_id" in keys or ("data" in keys and bool(keys & {"annotations", "completions", "predictions"}))


def read(argument: str, split: str | None = None) -> Iterator[Record]:
    """The annotated images of a file as records.

    Raises:
        DataError: the file cannot be read, is of another kind, or has no task with an annotation.
    """
    defaults = {"images": "", "query": "auto", "negatives": 5, "seed": 0}
    path, settings = path_and_settings(argument, "label_studio", defaults, {"query": ("auto", *QUERIES)})
    refuse_split(split, f"label_studio:{path}")
    folders = image_folders(settings["images"], path.parent, ["images", "../images"], path.parent)
    tasks, left_out = [], 0
    for n, entry in enumerate(iter_list(path, EXPECTED)):
        if not is_task(entry):
            raise DataError(f"{path}, entry {n}: found {excerpt(entry)}; expected {EXPECTED}")
        task = _task(entry, f"{path}, entry {n}", folders)
        left_out += task is None
        tasks += [task] if task else []
    if not tasks:
        raise DataError(f"{path}: no task has an annotation (of {left_out})")
    if left_out:
        tasks[0].warnings.append(f"of the file, {counted(left_out, 'task')} without an annotation left out")
    is_graph = settings["query"] == "auto" and any(task.relations for task in tasks)
    labels = dict.fromkeys(label for task in tasks for label in task.labels)
    query = "all" if settings["query"] == "auto" else settings["query"]
    chooser = QueryChooser(
        Instances(path, names=dict(enumerate(labels))), query, settings["negatives"], settings["seed"]
    )
    for task in tasks:
        record = build_example(
            task.where,
            task.image_id,
            task.size,
            task.labels,
            task.boxes,
            task.relations if is_graph else (),
            query=None if is_graph else chooser.choose(str(task.image_id), set(task.labels)),
            image=task.image,
        )
        errors = (*task.errors, *record.errors)
        yield Record(task.where, None if errors else record.example, errors, (*task.warnings, *record.warnings))


def _task(entry: Mapping, where: str, folders: ImageFolders) -> _Task | None:
    """One task; None where nobody has annotated it."""
    warnings: list[str] = []
    if "annotation_id" in entry:  # JSON-MIN
        data: object = entry
        results = [{"value": value, **value} for listed in entry.values() for value in _mappings(listed)]
    else:
        data = entry["data"]
        done = [one for one in _mappings(entry.get("annotations", entry.get("completions"))) if _counts(one)]
        if not done:
            return None
        if len(done) > 1:
            warnings.append(f"{counted(len(done) - 1, 'other annotation')} of the image passed over")
        results = _mappings(max(done, key=_rank)["result"])
    names = [*_image_names(data), entry.get("file_upload")]
    image = folders.find_named(*names)
    image_id = tidy_id(entry.get("id")) or next((Path(name).name for name in names if isinstance(name, str)), None)
    sides = ((one.get("original_width"), one.get("original_height")) for one in results)
    size = next((size for size in sides if None not in size), None)
    errors = []
    if size is None and isinstance(image, Path):
        try:
            size = image_size(image, f"image {image_id!r}")
        except DataError as error:
            errors.append(str(error))
    task = _Task(where, image_id, size or (None, None), [], [], [], image, errors, warnings)
    _add_regions(task, results)
    return task


def _add_regions(task: _Task, results: Sequence[Mapping]) -> None:
    """Add what the results say of regions, then the relations between them."""
    place: dict[object, int] = {}
    labelled = {one.get("id") for one in results if _labels(one)}
    for n, result in enumerate(results):
        labels, shown = _labels(result), f"result {n}: a region"
        if not labels and result.get("type") in _WITH_BOX and result.get("id") not in labelled:
            task.errors.append(f"{shown} without a label: {excerpt(result.get('value'))}")
        if not labels:
            continue
        box = _box(result.get("value"), task.size)
        if box is None:
            task.errors.append(
                f"{shown} of {excerpt(labels[0])} has no box; allowed: {', '.join(_WITH_BOX)}, with numbers, found "
                f"{excerpt(result.get('value'))}"
            )
        elif result.get("image_rotation"):
            task.errors.append(
                f"{shown} was drawn while the image was turned by {excerpt(result['image_rotation'])} degrees; turn it "
                "back in Label Studio"
            )
        elif (number := result.get("id")) is not None and number in place:
            task.warnings.append(f"{shown} has another label already, {excerpt(labels[0])} left out")
        else:
            if len(labels) > 1:
                task.warnings.append(f"{shown} has several labels, of which the first counts: {excerpt(labels)}")
            place[n if number is None else number] = len(task.labels)
            task.labels.append(normal_text(labels[0]))
            task.boxes.append(box)
    for result in results:
        if result.get("type") != "relation":
            continue
        ends = place.get(result.get("from_id")), place.get(result.get("to_id"))
        predicates = _texts(result.get("labels"))
        if None in ends or not predicates:
            task.warnings.append(f"a relation without a label or without its regions is left out: {excerpt(result)}")
            continue
        back = result.get("direction")
        for predicate in predicates:
            task.relations.extend([(ends[0], predicate, ends[1])] * (back != "left"))
            task.relations.extend([(ends[1], predicate, ends[0])] * (back in ("left", "bi")))


def _labels(result: Mapping) -> list[str]:
    """The labels of a region: of ``rectanglelabels``, ``polygonlabels``, …, or ``labels``."""
    value = result.get("value")
    if not isinstance(value, Mapping):
        return []
    return next((texts for key, listed in value.items() if key.endswith("labels") and (texts := _texts(listed))), [])


def _box(value: Mapping, size: tuple[object, object]) -> Box | None:
    """The upright box around a region, in pixels; None where it has none."""
    try:
        sx, sy = (side / 100 for side in size)
        if "points" in value:
            return four_finite(box_around([(x * sx, y * sy) for x, y in value["points"]]))
        x, y, angle = value["x"] * sx, value["y"] * sy, value.get("rotation") or 0
        if "radiusX" in value:
            radii = value["radiusX"] * sx, value["radiusY"] * sy
            return four_finite(box_around_ellipse((x, y), radii, angle))
        box = x, y, x + value["width"] * sx, y + value["height"] * sy
        return four_finite(box_around_rectangle(box, angle, (x, y)))  # turned about its own corner
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _counts(annotation: Mapping) -> bool:
    """Whether an annotation was finished, rather than skipped."""
    skipped = annotation.get("was_cancelled") or annotation.get("skipped")
    return isinstance(annotation.get("result"), list) and not skipped


def _rank(annotation: Mapping) -> tuple[bool, str]:
    time = annotation.get("updated_at") or annotation.get("created_at")
    return bool(annotation.get("ground_truth")), str(time or "")


def _image_names(data: object) -> list[str]:
    """The text that names the image, none where it is in the text itself."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)} if isinstance(data, Mapping) else {}
    photos = [text for text in texts.values() if is_photo(urlsplit(text).path) or is_photo(text)]
    names = [texts["image"]] if "image" in texts else photos[:1]
    return [name for name in names if not name.startswith("data:")]


def _mappings(value: object) -> list[Mapping]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str) and text.strip()] if isinstance(value, list) else []
