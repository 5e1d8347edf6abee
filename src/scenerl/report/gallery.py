"""The gallery: test images with their ground truth and every stage's answer beside it, as plain values."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from scenerl.boxes import as_boxes, clip
from scenerl.data.images import open_image
from scenerl.data.jsonl import DataError
from scenerl.report.hits import FALSE, HIT, REPEAT, Hits, compare
from scenerl.report.predictions import Prediction
from scenerl.report.text import cut, short
from scenerl.types import ISSUES, Example, SceneGraph

IMAGE_SIDE = 400
"""Longest side of an embedded image, in pixels."""

SHOWN_WIDTH, SHOWN_HEIGHT = 260, 340
"""About the size an image has on the page, in CSS pixels; text in drawings is scaled to it."""

DEFAULT_IMAGES = 48
MAX_BOXES, MAX_RELATIONS, MAX_ISSUES = 100, 60, 20
NUM_COLORS = 8
DENSE_FONT = 0.75
"""Size of the numbers at boxes where there are too many boxes to write labels, relative to the text of labels."""


@dataclass(frozen=True, slots=True)
class BoxMark:
    """A box to draw, in pixels of the original image, clipped to it. ``number`` counts from 1 in the panel; ``tag`` is
    what is written at the box, ``font`` its height in pixels of the original image."""

    number: int
    label: str
    tag: str
    color: int
    found: bool
    xywh: tuple[float, float, float, float]
    tag_xy: tuple[float, float]
    tag_wh: tuple[float, float]
    font: float


@dataclass(frozen=True, slots=True)
class RelationLine:
    """A relation in words. ``subject`` and ``object`` are (number, label); ``state`` is hit, repeat, false, miss or
    target; ``found_by`` is, for a target, whether each stage found it; ``missing_in`` names targets that lack it."""

    subject: tuple[int, str]
    predicate: str
    object: tuple[int, str]
    state: str
    score: float | None = None
    found_by: tuple[bool, ...] = ()
    missing_in: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph over the image. ``status`` is ok, a failure's name, or "missing" for an image without a prediction.

    Counts are of everything there is; the lists are bounded.
    """

    name: str
    index: int
    status: str
    boxes: tuple[BoxMark, ...] = ()
    relations: tuple[RelationLine, ...] = ()
    missed: tuple[RelationLine, ...] = ()
    num_objects: int = 0
    num_found_objects: int = 0
    num_relations: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    issues: tuple[tuple[str, str, str, str], ...] = ()
    num_issues: int = 0
    answer: str | None = None
    answer_note: str = ""
    num_tokens: int | None = None
    truncated: bool = False


DrawBoxes = Callable[[SceneGraph, Sequence[bool]], tuple[BoxMark, ...]]
"""A graph and whether each object is found, to the marks to draw; all panels of a card share one."""


@dataclass(frozen=True, slots=True)
class Card:
    """One image: ``uri`` is its data URI, None where it could not be read (``problem`` says why)."""

    number: int
    image_id: str
    image_wh: tuple[int, int]
    uri: str | None
    problem: str
    target: Panel
    stages: tuple[Panel, ...]
    query: tuple[str, ...] = ()


def choose(image_ids: Sequence[str], failed: Mapping[str, Sequence[str]], num_images: int, seed: int) -> list[str]:
    """A random sample of the images, in data order. Of every stage the first failed answer is among them, so that the
    gallery shows what a failure looks like.

    Args:
        image_ids: all test images.
        failed: stage name to the images on which its answer failed.
    """
    if len(image_ids) <= num_images:
        return list(image_ids)
    known = set(image_ids)
    first_failed = (next((image_id for image_id in images if image_id in known), None) for images in failed.values())
    chosen = list(dict.fromkeys(image_id for image_id in first_failed if image_id is not None))[:num_images]
    others = [image_id for image_id in image_ids if image_id not in set(chosen)]
    chosen += random.Random(seed).sample(others, num_images - len(chosen))
    order = {image_id: place for place, image_id in enumerate(image_ids)}
    return sorted(chosen, key=order.__getitem__)


def make_card(
    number: int,
    example: Example,
    target_name: str,
    predictions: Sequence[tuple[str, int, Prediction | None]],
    other_targets: Sequence[tuple[str, SceneGraph]] = (),
) -> Card:
    """One image with its panels.

    Args:
        example: the image and the ground truth that hits are counted against.
        predictions: (stage name, palette index, its answer) per stage.
        other_targets: other annotations of the same image; target relations that they lack are marked.
    """
    try:
        uri, problem = encode_image(open_image(example)), ""
    except DataError as error:
        # The folder says nothing to a reader elsewhere.
        folder = f"{example.image.parent}/" if isinstance(example.image, Path) else ""
        uri, problem = None, short(str(error).replace(folder, "") if folder else str(error), 200)
    font = 11.0 / min(SHOWN_WIDTH / example.width, SHOWN_HEIGHT / example.height)
    empty = SceneGraph()
    hits = [
        compare(prediction.graph if prediction and prediction.graph else empty, example.graph)
        for _, _, prediction in predictions
    ]
    labels = dict.fromkeys(item.label for item in example.graph.objects)
    for _, _, prediction in predictions:
        if prediction and prediction.graph:
            labels.update(dict.fromkeys(item.label for item in prediction.graph.objects))
    colors = {label: place % NUM_COLORS for place, label in enumerate(labels)}

    def boxes(graph: SceneGraph, found: Sequence[bool]) -> tuple[BoxMark, ...]:
        return _box_marks(graph, found, colors, example.image_wh, font)

    target = _target_panel(target_name, example.graph, hits, boxes, other_targets)
    stages = tuple(
        _stage_panel(name, index, prediction, hit, example.graph, boxes)
        for (name, index, prediction), hit in zip(predictions, hits, strict=True)
    )
    query = tuple(short(label) for label in example.query or ())
    return Card(number, short(example.image_id), example.image_wh, uri, problem, target, stages, query)


def encode_image(image: Image.Image) -> str:
    """An image as a WebP data URI, its longest side at most IMAGE_SIDE pixels."""
    image = image.convert("RGB")
    image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=82, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _target_panel(
    name: str,
    graph: SceneGraph,
    hits: Sequence[Hits],
    boxes: DrawBoxes,
    other_targets: Sequence[tuple[str, SceneGraph]],
) -> Panel:
    in_others = [(other, compare(other_graph, graph).found) for other, other_graph in other_targets]
    lines = tuple(
        _line(
            graph,
            n,
            "target",
            found_by=tuple(hit.found[n] for hit in hits),
            missing_in=tuple(other for other, found in in_others if not found[n]),
        )
        for n in range(min(len(graph.relations), MAX_RELATIONS))
    )
    return Panel(
        name,
        -1,
        "ok",
        boxes(graph, [True] * len(graph.objects)),
        lines,
        num_objects=len(graph.objects),
        num_relations=len(graph.relations),
    )


def _stage_panel(
    name: str, index: int, prediction: Prediction | None, hits: Hits, target: SceneGraph, boxes: DrawBoxes
) -> Panel:
    missed = [n for n, found in enumerate(hits.found) if not found]
    missed_lines = tuple(_line(target, n, "miss") for n in missed[:MAX_RELATIONS])
    counts = {
        HIT: hits.relations.count(HIT),
        REPEAT: hits.relations.count(REPEAT),
        FALSE: hits.relations.count(FALSE),
        "miss": len(missed),
    }
    if prediction is None:
        return Panel(name, index, "missing", missed=missed_lines, counts=counts)
    graph = prediction.graph or SceneGraph()
    answer, note = (None, "") if prediction.answer is None else cut(prediction.answer)
    issues = tuple(
        (short(issue.kind), short(issue.where), short(issue.detail, 160), ISSUES.get(issue.kind, ""))
        for issue in prediction.issues[:MAX_ISSUES]
    )
    return Panel(
        name,
        index,
        short(prediction.status),
        boxes(graph, hits.objects),
        tuple(_line(graph, n, hits.relations[n]) for n in range(min(len(graph.relations), MAX_RELATIONS))),
        missed_lines,
        num_objects=len(graph.objects),
        num_found_objects=sum(hits.objects),
        num_relations=len(graph.relations),
        counts=counts,
        issues=issues,
        num_issues=len(prediction.issues),
        answer=answer,
        answer_note=note,
        num_tokens=prediction.num_tokens,
        truncated=prediction.finish_reason == "length",
    )


def _line(graph: SceneGraph, n: int, state: str, **more: tuple) -> RelationLine:
    relation = graph.relations[n]
    subject, predicate, object_ = graph.triplet(relation)
    return RelationLine(
        (relation.subject + 1, short(subject)),
        short(predicate),
        (relation.object + 1, short(object_)),
        state,
        relation.score,
        **more,
    )


def _box_marks(
    graph: SceneGraph, found: Sequence[bool], colors: Mapping[str, int], image_wh: tuple[int, int], font: float
) -> tuple[BoxMark, ...]:
    width, height = image_wh
    clipped = clip(as_boxes([item.box for item in graph.objects]), image_wh).round(1)
    tag_labels = len(graph.objects) <= 8
    font *= 1.0 if tag_labels else DENSE_FONT
    marks = []
    for n, (item, (x1, y1, x2, y2)) in enumerate(zip(graph.objects[:MAX_BOXES], clipped.tolist(), strict=False)):
        if not (x2 > x1 and y2 > y1):
            continue
        tag = f"{n + 1} {short(item.label, 14)}" if tag_labels else f"{n + 1}"
        tag_width = (0.64 * len(tag) + 0.6) * font
        above = y1 - 1.35 * font
        score = "" if item.score is None else f", score {item.score:.2f}"
        marks.append(
            BoxMark(
                number=n + 1,
                label=short(item.label) + score,
                tag=tag,
                color=colors[item.label],
                found=bool(found[n]),
                xywh=(x1, y1, round(x2 - x1, 1), round(y2 - y1, 1)),
                tag_xy=(round(max(min(x1, width - tag_width), 0.0), 1), round(above if above >= 0 else y1, 1)),
                tag_wh=(round(tag_width, 1), round(1.35 * font, 1)),
                font=round(font, 2),
            )
        )
    return tuple(marks)
