"""Box formats: the coordinates that models and files use, converted to and from pixels of the original image.

The conversion happens once on each side: when a prompt's example or a training answer is written, and when an answer
is parsed. Everything between works in original pixels.
"""

from __future__ import annotations

import numpy as np

from scenerl.boxes import Array, rescale
from scenerl.errors import UserError

BOX_FORMATS = {
    "pixels": "pixels of the original image",
    "norm1000": "0 to 1000 relative to the image (Qwen2-VL, Qwen3-VL)",
    "norm1": "0 to 1 relative to the image",
    "resized": "pixels of the resized input the model sees (Qwen2.5-VL); needs its size",
}
"""Name of a box format to its meaning."""


def extent_wh(
    box_format: str, image_wh: tuple[float, float], input_wh: tuple[float, float] | None = None
) -> tuple[float, float]:
    """The (width, height) that the whole image has in ``box_format``.

    Args:
        box_format: a name from :data:`BOX_FORMATS`.
        image_wh: size of the original image in pixels.
        input_wh: size of the resized input in pixels; required by ``resized``.

    Raises:
        UserError: an unknown box format, or ``resized`` without ``input_wh``.
    """
    if box_format == "pixels":
        return image_wh
    if box_format == "norm1000":
        return 1000.0, 1000.0
    if box_format == "norm1":
        return 1.0, 1.0
    if box_format == "resized":
        if input_wh is None:
            raise UserError("box format 'resized' needs the size of the resized input (input_wh)")
        return input_wh
    raise UserError(f"unknown box format {box_format!r}; allowed: {', '.join(BOX_FORMATS)}")


def to_pixels(
    boxes, box_format: str, image_wh: tuple[float, float], input_wh: tuple[float, float] | None = None
) -> Array:
    """Boxes (..., 4) in ``box_format`` to pixels of the original image, as float64, neither rounded nor clipped."""
    return rescale(boxes, extent_wh(box_format, image_wh, input_wh), image_wh)


def from_pixels(
    boxes, box_format: str, image_wh: tuple[float, float], input_wh: tuple[float, float] | None = None
) -> Array:
    """Boxes (..., 4) in pixels of the original image to ``box_format``.

    Rounded to whole units, as models write them, except in ``norm1`` (four decimals): the round trip stays within half
    a unit of the box format.
    """
    converted = rescale(boxes, image_wh, extent_wh(box_format, image_wh, input_wh))
    return np.round(converted, 4 if box_format == "norm1" else 0)
