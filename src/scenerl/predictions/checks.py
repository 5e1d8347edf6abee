"""Signs that predictions were read in the wrong output format or box format: warnings; nothing is converted.

Answers read in the wrong output format all fail, and parse well in their own. Boxes read in the wrong box format leave
the image, or overlap the ground truth much better in another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scenerl.answers import OutputFormat
from scenerl.answers.recognise import AnswerAndQuery, closest, explained
from scenerl.box_formats import extent_wh
from scenerl.boxes import Array, as_boxes, iou_matrix, rescale
from scenerl.errors import counted
from scenerl.types import INVALID_ISSUES, Example, ParseResult

ANSWERS = 20
"""Answers that are tried in other formats."""

ALTERNATIVES = ("pixels", "norm1000", "norm1")
IMAGES = 200
"""Images whose boxes are checked."""
_MARGIN = 1.05
_OUTSIDE = 0.2  # share of boxes outside their image that is worth a warning
_GAIN = 0.15  # how much better another box format has to fit


def check_format(failed: Sequence[str], output_format: OutputFormat) -> list[str]:
    """A warning where most of the answers parse in another format, else nothing.

    Args:
        failed: answers, all of which failed to parse; a few of them will do.
        output_format: how they were parsed.
    """
    tried = failed[:ANSWERS]
    for name, readable in explained((answer, None) for answer in tried).items():
        if name != output_format.format and 2 * readable > len(tried):
            return [
                f"no answer could be read as {output_format.format!r}; as {name!r}, {readable} of {len(tried)} that "
                f"were tried can be read: is --format {name} meant?"
            ]
    return []


def is_unread(result: ParseResult) -> bool:
    """Whether nothing of an answer could be used: it failed, or its elements are all invalid."""
    if not result.ok:
        return True
    return not result.graph.objects and any(issue.kind in INVALID_ISSUES for issue in result.issues)


def why_unread(answers: Sequence[AnswerAndQuery], results: Sequence[ParseResult], output_format: OutputFormat) -> str:
    """The likeliest reason why answers could not be read, as the end of a sentence.

    Args:
        answers: those that could not be read, a few of which are tried in other formats.
        results: what they parsed to.
        output_format: how.
    """
    tried = answers[:ANSWERS]
    for name, readable in explained(tried).items():
        if name != output_format.format and 2 * readable > len(tried):
            return f"{readable} of {len(tried)} that were tried can be read as {name!r}: is format {name} meant?"
    kinds = Counter(result.issues[0].kind if result.ok else result.status for result in results)
    kind, count = kinds.most_common(1)[0]
    if kind == "truncated":
        return f"{count} break off: was the token limit (max_new_tokens) too low?"
    if kind == "no_answer":
        return f"{counted(count, 'row')} without an answer"
    if kind == "no_area":
        return (
            f"the boxes of {count} have no area: are their corners in another order, or are they x, y, width, height?"
        )
    looks = Counter(closest(*answer, output_format.format) for answer in tried)
    text, count = looks.most_common(1)[0]
    return f"of {len(tried)} that were tried, {count} look alike: {text}"


@dataclass(frozen=True, slots=True)
class BoxFormatFound:
    """The box format in which predicted boxes fit their images and the ground truth best, and why; where that is not
    clear, the one they were read in, if it is possible."""

    name: str
    reason: str
    is_clear: bool


Extent = Callable[[str, tuple[int, int]], tuple[float, float]]
"""Name of a box format and size of an image to the (width, height) that the whole image has in it."""


def find_box_format(
    examples: Sequence[Example],
    results: Sequence[ParseResult],
    box_format: str,
    alternatives: Sequence[str] = ALTERNATIVES,
    extent: Extent = extent_wh,
) -> BoxFormatFound:
    """The box format of boxes whose answers do not state it.

    One that leaves more than a fifth of the boxes outside their image is out. Of the others it is the one in which
    boxes overlap their targets best; it is clear where no other comes within 0.15 of its mean IoU.

    Args:
        examples: ground truth.
        results: what was predicted for each, read in ``box_format``.
        box_format: one of the alternatives.
        alternatives: names of box formats.
        extent: their meaning.
    """
    chosen = _with_boxes(examples, results)
    fits = {
        name: (_outside(chosen, box_format, name, extent), _fit(chosen, box_format, name, extent))
        for name in alternatives
    }
    if not chosen:
        return BoxFormatFound(box_format, "there is no box to tell it by", False)
    inside = {name: fit for name, (outside, fit) in fits.items() if outside <= _OUTSIDE}
    if not inside:
        return BoxFormatFound(box_format, "in no box format do the boxes lie in their images", False)
    best = max(inside, key=inside.get)
    others = [fit for name, fit in inside.items() if name != best]
    shown = ", ".join(
        f"{name} {fit:.2f}" if outside <= _OUTSIDE else f"{name} leaves the image"
        for name, (outside, fit) in fits.items()
    )
    is_clear = all(inside[best] > fit + _GAIN for fit in others)
    if not is_clear and box_format in inside:
        best = box_format
    return BoxFormatFound(best, f"mean IoU with the best target: {shown}", is_clear)


def check_box_format(examples: Sequence[Example], results: Sequence[ParseResult], box_format: str) -> list[str]:
    """Warnings about the predicted boxes.

    Args:
        examples: ground truth.
        results: what was predicted for each, in pixels of the original image.
        box_format: what the boxes were taken to be in; with ``resized``, only boxes outside the image are looked for.
    """
    chosen = _with_boxes(examples, results)
    if not chosen:
        return []
    outside = _outside(chosen, box_format, box_format)
    warnings = []
    if outside > _OUTSIDE:
        warnings.append(f"{outside:.0%} of the predicted boxes leave their image; is {box_format!r} their box format?")
    if box_format in ALTERNATIVES:
        fits = {name: _fit(chosen, box_format, name) for name in ALTERNATIVES}
        swapped = _fit(
            [(example, _exchanged(example, boxes, box_format)) for example, boxes in chosen], box_format, box_format
        )
        if swapped > max(fits.values()) + _GAIN:
            warnings.append(
                f"predicted boxes overlap a target by {fits[box_format]:.2f} on average; with x and y exchanged it "
                f"would be {swapped:.2f}"
            )
        best = max(fits, key=fits.get)
        if fits[best] > fits[box_format] + _GAIN:
            warnings.append(
                f"predicted boxes were read as {box_format!r}, where they overlap a target by "
                f"{fits[box_format]:.2f} on average; read as {best!r} it would be {fits[best]:.2f}"
            )
    return warnings


Chosen = Sequence[tuple[Example, Array]]
"""Examples with their predicted boxes."""


def _with_boxes(examples: Sequence[Example], results: Sequence[ParseResult]) -> Chosen:
    """Those of a size that have predicted boxes, at most about :data:`IMAGES`."""
    usable = [
        (example, result.graph)
        for example, result in zip(examples, results, strict=True)
        if result.graph and result.graph.objects and min(example.image_wh) > 0
    ]
    return [
        (example, as_boxes([item.box for item in graph.objects]))
        for example, graph in usable[:: max(1, len(usable) // IMAGES)]
    ]


def _again(example: Example, boxes: Array, box_format: str, other: str, extent: Extent) -> Array:
    """Boxes that were read in one box format as they are in another; ``resized`` counts as it was read."""
    if box_format == other:
        return boxes
    raw = rescale(boxes, example.image_wh, extent(box_format, example.image_wh))
    return rescale(raw, extent(other, example.image_wh), example.image_wh)


def _exchanged(example: Example, boxes: Array, box_format: str) -> Array:
    """Boxes with x and y exchanged, in the numbers of the box format."""
    width, height = (1.0, 1.0) if box_format in ("pixels", "resized") else example.image_wh
    return rescale(boxes, (width, height), (1.0, 1.0))[:, [1, 0, 3, 2]] * [width, height, width, height]


def _outside(chosen: Chosen, box_format: str, other: str, extent: Extent = extent_wh) -> float:
    """The share of predicted boxes that leave their image, had they been read in the box format ``other``."""
    if not chosen:
        return 0.0
    again = [
        rescale(_again(example, boxes, box_format, other, extent), example.image_wh, (1.0, 1.0))
        for example, boxes in chosen
    ]
    boxes = np.concatenate(again)
    return float(((boxes > _MARGIN) | (boxes < 1.0 - _MARGIN)).any(axis=1).mean())


def _fit(chosen: Chosen, box_format: str, other: str, extent: Extent = extent_wh) -> float:
    """Mean over predicted boxes of the best IoU with any target, had they been read in the box format ``other``."""
    best = []
    for example, boxes in chosen:
        iou = iou_matrix(
            _again(example, boxes, box_format, other, extent), as_boxes([item.box for item in example.graph.objects])
        )
        best.append(iou.max(axis=1, initial=0.0))
    return float(np.concatenate(best).mean()) if best else 0.0
