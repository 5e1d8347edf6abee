"""Scene-Graph-Benchmark's results as arrays: ``custom_prediction.json`` with ``custom_data_info.json`` beside it.

Predictions: ``{"0": {"bbox": [xyxy], "bbox_labels", "bbox_scores", "rel_pairs", "rel_labels", "rel_scores",
"rel_all_scores"?}}``, sorted by score. The info file holds ``idx_to_files``, ``ind_to_classes`` and
``ind_to_predicates``, whose entry 0 is the background. An ``.npz`` of the same keys is read too: rows of all images one
after another, ``bbox_image`` and ``rel_image`` with each row's place in ``image_id``, and the two lists of names.

The benchmark writes boxes in pixels of the resized input and states its size nowhere: the shorter side is 600 and the
longer one 1000 at most, or 800 and 1333, as its configurations say. Evaluators of its results, ours too, would take
them for pixels of the original image, so :func:`to_original_pixels` finds out which fits.

Source: Scene-Graph-Benchmark.pytorch, ``engine/inference.py`` and ``data/transforms/transforms.py``.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from scenerl.answers.elements import excerpt
from scenerl.box_formats import extent_wh
from scenerl.boxes import as_boxes, rescale
from scenerl.data.ground_truth import Names
from scenerl.data.records import four_finite
from scenerl.errors import DataError, counted
from scenerl.json_files import read_json
from scenerl.predictions.checks import find_box_format
from scenerl.predictions.contents import NumberedGraph, Predictions, RawPrediction, part, places
from scenerl.predictions.row import LAST, decode_score
from scenerl.types import Example, ParseResult

INFO = "custom_data_info.json"
KEYS = ("bbox", "bbox_labels", "bbox_scores", "rel_pairs", "rel_labels", "rel_scores")
NAMES = ("ind_to_classes", "ind_to_predicates")
ALL = "rel_all_scores"
_DAMAGE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What numpy raises on a damaged archive; MemoryError where a header states more numbers than there are."""
TOP = 100
"""Relations without the graph constraint that are kept of ``rel_all_scores``, as the benchmark's own evaluator does."""


def read(path: Path, names: Names) -> Predictions:
    """Either file. A relation's score is the product of its own and of both objects', as the benchmark ranks them.

    With ``rel_all_scores`` (a score per predicate, 0 the background) the 100 best predicates of all pairs are read,
    which ng-R@K needs, and the best of every pair, which R@K needs; else one predicate per pair.
    """
    predictions = Predictions(path)
    for image_id, entry, classes, predicates in _images(path):
        where = f"{path}: image {excerpt(image_id)}"
        lists = _lists(entry, where)
        graph, scores = NumberedGraph(), {}
        for n, (raw, label) in enumerate(zip(lists["bbox"], lists["bbox_labels"], strict=True)):
            box = four_finite(raw)
            if box is None:
                predictions.notes.add("bad_boxes", f"{where}, bbox[{n}]")
                continue
            scores[n] = decode_score(lists["bbox_scores"][n], where, predictions.notes)
            graph.add_object(n, _name(classes, label, where), box, scores[n])
        pairs = [places(raw, 2, f"{where}, rel_pairs[{n}]") for n, raw in enumerate(lists["rel_pairs"])]
        usable = [n for n, ends in enumerate(pairs) if scores.keys() >= {*ends}]
        for n in sorted(set(range(len(pairs))).difference(usable)):
            predictions.notes.add("lost_relations", f"{where}, rel_pairs[{n}]")
        ends = [_product(*(scores[end] for end in pairs[n])) for n in usable]
        choose = _from_all_scores if ALL in lists else _from_labels
        for place, predicate, score in choose(lists, usable, ends, predictions, where):
            subject, object_ = pairs[usable[place]]
            graph.add_relation(subject, _name(predicates, predicate, where), object_, score)
        predictions.add(image_id, RawPrediction(where, result=ParseResult("ok", graph.graph())))
    return predictions.require_some()


INPUT_SIDES = {"resized": (600, 1000), "resized to 800-1333": (800, 1333)}
"""Sizes of the resized input: the length of the shorter side, and what the longer side may have at most. The first is
that of the benchmark's relation models, the other that of its default configuration."""


def input_wh(image_wh: tuple[int, int], shorter: int, longest: int) -> tuple[int, int]:
    """Size to which the benchmark resizes an image.

    >>> input_wh((800, 400), 600, 1000), input_wh((400, 500), 600, 1000)
    ((1000, 500), (600, 750))
    """
    small, large = sorted(image_wh)
    if large / small * shorter > longest:
        shorter = round(longest * small / large)
    side = int(shorter * large / small)
    return (shorter, side) if image_wh[0] < image_wh[1] else (side, shorter)


def _extent(name: str, image_wh: tuple[int, int]) -> tuple[float, float]:
    return input_wh(image_wh, *INPUT_SIDES[name]) if name in INPUT_SIDES else extent_wh(name, image_wh)


def to_original_pixels(predictions: Predictions, examples: Sequence[Example], box_format: str | None) -> list[str]:
    """Convert the boxes of :func:`read` to pixels of the original image, in place, and say in what they were.

    Args:
        examples: ground truth.
        box_format: what the boxes are in. None: pixels of the original image or of the resized input, in which they
            overlap the ground truth best; of the resized input where that is not clear. With ``resized`` only its size
            is found out.

    Raises:
        DataError: the box format needs image sizes that the ground truth lacks.
    """
    known = [example for example in examples if example.image_id in predictions.entries]
    entries = [predictions.entries[example.image_id] for example in known]
    sentence = []
    if box_format in (None, "resized"):
        names = [*(["pixels"] if box_format is None else []), *INPUT_SIDES]
        found = find_box_format(known, [entry.result for entry in entries], "pixels", names, _extent)
        box_format = found.name if found.is_clear else "resized"
        doubt = "" if found.is_clear else ", which is not certain: say it with --frame pixels or resized"
        sentence = [f"boxes read as {box_format} ({found.reason}){doubt}"]
    if box_format == "pixels":
        return sentence
    for example, entry in zip(known, entries, strict=True):
        graph = entry.result.graph
        if not graph.objects:
            continue
        if not all(example.image_wh):
            raise DataError(
                f"{entry.where}: boxes in {box_format!r} need the image's width and height, which the data lacks; "
                "--frame pixels takes them as they stand"
            )
        extent = _extent(box_format, example.image_wh)
        boxes = rescale(as_boxes([item.box for item in graph.objects]), extent, example.image_wh).tolist()
        objects = tuple(item._replace(box=tuple(box)) for item, box in zip(graph.objects, boxes, strict=True))
        result = replace(entry.result, graph=replace(graph, objects=objects))
        predictions.entries[example.image_id] = replace(entry, result=result)
    return sentence


def _from_labels(
    lists: Mapping[str, list], usable: Sequence[int], ends: Sequence[float], predictions: Predictions, where: str
) -> list[tuple[int, object, float]]:
    """One predicate per pair: (place in ``usable``, predicate, score), best first."""
    found = [
        (
            place,
            lists["rel_labels"][n],
            _product(ends[place], decode_score(lists["rel_scores"][n], where, predictions.notes)),
        )
        for place, n in enumerate(usable)
    ]
    return sorted(found, key=lambda item: -item[2])


def _from_all_scores(
    lists: Mapping[str, list], usable: Sequence[int], ends: Sequence[float], predictions: Predictions, where: str
) -> list[tuple[int, int, float]]:
    """The same from a score per pair and predicate: the best of all, and the best of every pair."""
    if not usable:
        return []
    try:
        matrix = np.array([lists[ALL][n] for n in usable], dtype=float)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: {ALL} must be lists of numbers, one per pair and of one length") from error
    if matrix.ndim != 2 or matrix.shape[1] < 2:
        raise DataError(f"{where}: {ALL} must hold the background and a predicate at least for each pair")
    scores = matrix[:, 1:]  # without the background
    good = np.isfinite(scores)
    for _ in range(int((~good).sum())):
        predictions.notes.add("bad_scores", where)
    ends_P1 = np.array(ends)[:, None]
    product = np.where(good & (ends_P1 != LAST), np.where(good, scores, 0.0) * ends_P1, LAST)
    width = product.shape[1]
    order = np.argsort(-product.ravel(), kind="stable")
    best = np.arange(len(product)) * width + product.argmax(axis=1)
    kept = np.zeros(product.size, bool)
    kept[order[:TOP]] = kept[best] = True
    return [(int(n) // width, int(n) % width + 1, float(product.flat[n])) for n in order[kept[order]]]


def _lists(entry: object, where: str) -> dict[str, list]:
    """The lists of an image, those of its objects and those of its relations of one length each."""
    lists = {key: part(entry, key, list, where) for key in KEYS}
    if isinstance(entry, Mapping) and entry.get(ALL) is not None:
        lists[ALL] = part(entry, ALL, list, where)
    for key, listed in lists.items():
        first = "bbox" if key.startswith("bbox") else "rel_pairs"
        if len(listed) != len(lists[first]):
            raise DataError(f"{where}: {len(listed)} {key} but {len(lists[first])} {first}; they belong together")
    return lists


def _images(path: Path) -> Iterator[tuple[str, Mapping, list, list]]:
    if path.suffix == ".npz":
        yield from _from_npz(path)
        return
    value = read_json(path, "Scene-Graph-Benchmark's custom_prediction.json")
    info = read_json(path.with_name(INFO), "the names that belong to custom_prediction.json")
    classes, predicates = (part(info, key, list, str(path.with_name(INFO))) for key in NAMES)
    files = part(info, "idx_to_files", list, str(path.with_name(INFO)))
    if not isinstance(value, Mapping):
        raise DataError(f"{path}: expected a JSON object of images, found {excerpt(value)}")
    for index, entry in value.items():
        if not re.fullmatch("[0-9]{1,9}", index) or int(index) >= len(files):
            raise DataError(f"{path}: image {excerpt(index)} is not in idx_to_files ({counted(len(files), 'file')})")
        yield PurePosixPath(str(files[int(index)])).stem, entry, classes, predicates


def _from_npz(path: Path) -> Iterator[tuple[str, Mapping, list, list]]:
    """Flat arrays: ``bbox_image`` and ``rel_image`` hold the index into ``image_id`` of each object and relation."""
    try:
        with np.load(path, allow_pickle=False) as file:
            archive = dict(file)
    except _DAMAGE as error:
        raise DataError(f"{path}: cannot be read as an .npz of arrays: {error}") from error
    missing = [key for key in ("image_id", *NAMES, "bbox_image", "rel_image", *KEYS) if key not in archive]
    if missing:
        raise DataError(f"{path}: lacks {', '.join(missing)}")
    if any(archive[key].ndim != 1 for key in ("image_id", *NAMES, "bbox_image", "rel_image")):
        raise DataError(f"{path}: image_id, {', '.join(NAMES)}, bbox_image and rel_image must be flat lists")
    classes, predicates = (archive[key].tolist() for key in NAMES)
    for key in (*KEYS, *([ALL] if ALL in archive else [])):
        index = "bbox_image" if key.startswith("bbox") else "rel_image"
        if archive[key].shape[:1] != archive[index].shape:
            raise DataError(
                f"{path}: {key} must have a row for each entry of {index}, found shape {archive[key].shape}"
            )
    for n, image_id in enumerate(archive["image_id"].tolist()):
        objects, relations = archive["bbox_image"] == n, archive["rel_image"] == n
        entry = {key: archive[key][objects if key.startswith("bbox") else relations].tolist() for key in KEYS}
        if ALL in archive:
            entry[ALL] = archive[ALL][relations].tolist()
        yield str(image_id), entry, classes, predicates


def _product(*scores: float | None) -> float:
    """The product of scores; where one is missing or no number, the last place."""
    return LAST if any(score is None or score == LAST for score in scores) else math.prod(scores)


def _name(listed: list, number: object, where: str) -> str:
    if type(number) is not int or not 0 <= number < len(listed):
        raise DataError(f"{where}: number {excerpt(number)} is beyond the {counted(len(listed), 'name')}")
    return str(listed[number])
