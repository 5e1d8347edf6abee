"""Signs that predictions were read in the wrong output format or box format: warnings; nothing is converted.

Answers read in the wrong output format all fail, and parse well in their own. Boxes read in the wrong box format leave
the image, or overlap the ground truth much better in another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scenerl.answers import OutputFormat, parse_answer
from scenerl.answers.formats import FORMATS
from scenerl.box_formats import extent_wh
from scenerl.boxes import Array, as_boxes, iou_matrix, rescale
from scenerl.types import Example, ParseResult

ANSWERS = 20
"""Answers that are tried in other formats."""
_ANY_SIZE = (1000.0, 1000.0)  # boxes do not matter there

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
    for name in FORMATS:
        other = replace(output_format, format=name, objects=None, predicates=None, box_format="norm1000", provided=None)
        results = [parse_answer(answer, other, _ANY_SIZE) for answer in tried if name != output_format.format]
        readable = sum(bool(result.graph and result.graph.objects) for result in results)
        if 2 * readable > len(tried):
            return [
                f"no answer could be read as {output_format.format!r}; as {name!r}, {readable} of {len(tried)} that "
                f"were tried can be read: is --format {name} meant?"
            ]
    return []


def check_box_format(examples: Sequence[Example], results: Sequence[ParseResult], box_format: str) -> list[str]:
    """Warnings about the predicted boxes.

    Args:
        examples: ground truth.
        results: what was predicted for each, in pixels of the original image.
        box_format: what the boxes were taken to be in; with ``resized``, only boxes outside the image are looked for.
    """
    usable = [
        (example, result.graph)
        for example, result in zip(examples, results, strict=True)
        if result.graph and result.graph.objects and min(example.image_wh) > 0
    ]
    if not usable:
        return []
    chosen = [
        (example, as_boxes([item.box for item in graph.objects]))
        for example, graph in usable[:: max(1, len(usable) // IMAGES)]
    ]
    boxes = np.concatenate([rescale(found, example.image_wh, (1.0, 1.0)) for example, found in chosen])
    outside = float(((boxes > _MARGIN) | (boxes < 1.0 - _MARGIN)).any(axis=1).mean())
    warnings = []
    if outside > _OUTSIDE:
        warnings.append(f"{outside:.0%} of the predicted boxes leave their image; is {box_format!r} their box format?")
    if box_format in ALTERNATIVES:
        fits = {name: _fit(chosen, box_format, name) for name in ALTERNATIVES}
        best = max(fits, key=fits.get)
        if fits[best] > fits[box_format] + _GAIN:
            warnings.append(
                f"predicted boxes were read as {box_format!r}, where they overlap a target by "
                f"{fits[box_format]:.2f} on average; read as {best!r} it would be {fits[best]:.2f}"
            )
    return warnings


def _fit(chosen: Sequence[tuple[Example, Array]], box_format: str, other: str) -> float:
    """Mean over predicted boxes of the best IoU with any target, had they been read in the box format ``other``."""
    best = []
    for example, boxes in chosen:
        raw = rescale(boxes, example.image_wh, extent_wh(box_format, example.image_wh))
        again = rescale(raw, extent_wh(other, example.image_wh), example.image_wh)
        iou = iou_matrix(again, as_boxes([item.box for item in example.graph.objects]))
        best.append(iou.max(axis=1, initial=0.0))
    return float(np.concatenate(best).mean())
