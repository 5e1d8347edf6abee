"""The text of the target answer: what SFT imitates, and what the parser reads back without loss but rounding."""

from __future__ import annotations

import numpy as np

from scenerl.answers.elements import clean_label, excerpt
from scenerl.answers.formats import FORMATS, TRAINED
from scenerl.answers.output_format import OutputFormat
from scenerl.answers.template import TAGS, TEMPLATES
from scenerl.box_formats import extent_wh
from scenerl.boxes import as_boxes, rescale
from scenerl.errors import UserError
from scenerl.types import SceneGraph


def _checked(raw: str, what: str, vocabulary: tuple[str, ...] | None) -> str:
    label = clean_label(raw)
    if label is None or any(tag in label for tag in TAGS):
        raise UserError(f"{what} {excerpt(raw)} cannot be written: empty, too long, or with line breaks or tags")
    if vocabulary is not None and label not in vocabulary:
        raise UserError(f"{what} {excerpt(raw)} is not in the closed vocabulary of {len(vocabulary)}")
    return label


def box_coordinates(
    boxes, output_format: OutputFormat, image_wh: tuple[float, float], input_wh: tuple[float, float] | None = None
) -> list[list[int | float]]:
    """Boxes as the numbers that an answer holds.

    Each coordinate is rounded to the nearest multiple of the step, so it moves by at most half a step. A side shorter
    than that would vanish; it becomes one step wide where it is, so its ends move by at most one step.

    Args:
        boxes: (N, 4) in pixels of the original image.
        image_wh: size of the original image in pixels.
        input_wh: size of the resized input in pixels, for the box format ``resized``.

    Returns:
        N lists of four ints (four-decimal floats in ``norm1``).

    Raises:
        UserError: a box that is not finite or has no area.
    """
    size = extent_wh(output_format.box_format, image_wh, input_wh)
    boxes = as_boxes(boxes)
    for box in boxes:
        if not (np.isfinite(box).all() and box[2] > box[0] and box[3] > box[1]):
            raise UserError(f"box {box.tolist()} cannot be written: it is not finite or has no area")
    unit = 1e-4 if output_format.box_format == "norm1" else 1.0
    exact = rescale(boxes, image_wh, size) / (unit * output_format.step)
    steps = np.rint(exact)
    vanished = steps[:, 2:] <= steps[:, :2]
    steps[:, :2] = np.where(vanished, np.floor((exact[:, :2] + exact[:, 2:]) / 2), steps[:, :2])
    steps[:, 2:] = np.where(vanished, steps[:, :2] + 1, steps[:, 2:])
    if output_format.box_format == "norm1":
        return [[round(step * unit * output_format.step, 4) + 0.0 for step in row] for row in steps.tolist()]
    return [[int(step) * output_format.step for step in row] for row in steps.tolist()]


def write_answer(
    graph: SceneGraph,
    output_format: OutputFormat,
    image_wh: tuple[float, float],
    input_wh: tuple[float, float] | None = None,
    reasoning: str | None = None,
) -> str:
    """The target answer for ``graph``, response template included.

    What the parser would drop is not written: relations of an object with itself and repeated relations. ``detections``
    has no place for relations and leaves all of them out. White space around labels goes.

    Args:
        graph: boxes in pixels of the original image.
        image_wh: size of the original image in pixels.
        input_wh: size of the resized input in pixels, for the box format ``resized``.
        reasoning: text between the think tags; None leaves them empty. Only with the template ``think``.

    Returns:
        Text from which :func:`~scenerl.answers.parse_answer` reads the graph back.

    Raises:
        UserError: a label or predicate that is empty, holds line breaks or tags, or is outside the closed vocabulary;
            a predicate that the format cannot hold; a format that is only read; a box that is not finite or has no
            area; reasoning where it has no place.

    >>> from scenerl.types import Relation, SceneObject
    >>> dog, ball = SceneObject("dog", (10, 20, 50, 80)), SceneObject("ball", (60, 70, 70, 80))
    >>> graph = SceneGraph((dog, ball), (Relation(0, "chasing", 1),))
    >>> print(write_answer(graph, OutputFormat("compact"), (100, 100)))
    dog 100 200 500 800
    ball 600 700 700 800
    <BLANKLINE>
    1 chasing 2
    end
    """
    fmt = FORMATS[output_format.format]
    if fmt.write is None:
        raise UserError(f"the format {output_format.format!r} is only read; write {', '.join(TRAINED)}")
    labels = [_checked(item.label, "object label", output_format.objects) for item in graph.objects]
    boxes = box_coordinates([item.box for item in graph.objects], output_format, image_wh, input_wh)
    relations = []
    if fmt.graph:
        relations = [
            (relation.subject, _checked(relation.predicate, "predicate", output_format.predicates), relation.object)
            for relation in graph.relations
            if relation.subject != relation.object
        ]
    body = fmt.write(labels, boxes, list(dict.fromkeys(relations)))
    return TEMPLATES[output_format.template].wrap(body, reasoning)
