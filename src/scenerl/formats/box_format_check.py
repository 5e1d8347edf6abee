"""Boxes in the wrong frame give themselves away: by where they lie, and by what fits the ground truth better.

Nothing is converted on suspicion; the suspicion is reported.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scenerl.box_formats import extent_wh
from scenerl.boxes import Array, as_boxes, iou_matrix, rescale
from scenerl.types import Example, ParseResult

ALTERNATIVES = ("pixels", "norm1000", "norm1")
IMAGES = 200
"""Images that are looked at."""
_MARGIN = 1.05
_OUTSIDE = 0.2  # share of boxes outside their image that is worth a word
_GAIN = 0.15  # how much better another frame has to fit


def check_box_format(examples: Sequence[Example], results: Sequence[ParseResult], box_format: str) -> list[str]:
    """What is suspicious about the predicted boxes, if anything, as sentences.

    Args:
        examples: ground truth. results: what was read, in original pixels. frame: the frame that the boxes were taken
            to be in; ``resized`` is checked for boxes outside the image only.
    """
    chosen = [
        (example, as_boxes([entry.box for entry in result.graph.objects]))
        for example, result in zip(examples, results, strict=True)
        if result.graph and result.graph.objects and min(example.image_wh) > 0
    ]
    chosen = chosen[:: max(1, len(chosen) // IMAGES)]
    if not chosen:
        return []
    boxes = np.concatenate([rescale(found, example.image_wh, (1.0, 1.0)) for example, found in chosen])
    outside = float(((boxes > _MARGIN) | (boxes < 1.0 - _MARGIN)).any(axis=1).mean())
    warnings = []
    if outside > _OUTSIDE:
        warnings.append(f"{outside:.0%} of the predicted boxes leave their image; is {box_format!r} their frame?")
    if box_format in ALTERNATIVES:
        fits = {name: _fit(chosen, box_format, name) for name in ALTERNATIVES}
        best = max(fits, key=fits.get)
        if fits[best] > fits[box_format] + _GAIN:
            warnings.append(
                f"predicted boxes were read as {box_format!r}, where they overlap a target by "
                f"{fits[box_format]:.2f} on average; "
                f"read as {best!r} it would be {fits[best]:.2f}"
            )
    return warnings


def _fit(chosen: Sequence[tuple[Example, Array]], box_format: str, other: str) -> float:
    """Mean over predicted boxes of the best IoU with any target, had they been read in the frame ``other``."""
    best = []
    for example, boxes in chosen:
        raw = rescale(boxes, example.image_wh, extent_wh(box_format, example.image_wh))
        again = rescale(raw, extent_wh(other, example.image_wh), example.image_wh)
        iou = iou_matrix(again, as_boxes([entry.box for entry in example.graph.objects]))
        best.append(iou.max(axis=1, initial=0.0))
    return float(np.concatenate(best).mean())
