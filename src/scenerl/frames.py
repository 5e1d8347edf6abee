"""Coordinate frames that models and files speak, converted to and from pixels of the original image.

The conversion happens once on each side: when a prompt's example or a training answer is written, and when an answer
is parsed. Everything between works in original pixels.
"""

from __future__ import annotations

import numpy as np

from scenerl.boxes import Array, rescale

FRAMES = {
    "pixels": "pixels of the original image",
    "norm1000": "0 to 1000 relative to the image (Qwen2-VL, Qwen3-VL)",
    "norm1": "0 to 1 relative to the image",
    "resized": "pixels of the resized input the model sees (Qwen2.5-VL); needs its size",
}
"""Frame name to meaning."""


def frame_wh(
    frame: str, image_wh: tuple[float, float], input_wh: tuple[float, float] | None = None
) -> tuple[float, float]:
    """The (width, height) that the whole image has in ``frame``.

    Args:
        frame: a name from :data:`FRAMES`.
        image_wh: size of the original image in pixels.
        input_wh: size of the resized input in pixels; required by ``resized``.

    Raises:
        ValueError: an unknown frame, or ``resized`` without ``input_wh``.
    """
    if frame == "pixels":
        return image_wh
    if frame == "norm1000":
        return 1000.0, 1000.0
    if frame == "norm1":
        return 1.0, 1.0
    if frame == "resized":
        if input_wh is None:
            raise ValueError("frame 'resized' needs the size of the resized input (input_wh)")
        return input_wh
    raise ValueError(f"unknown frame {frame!r}; allowed: {', '.join(FRAMES)}")


def frame_to_pixels(
    boxes, frame: str, image_wh: tuple[float, float], input_wh: tuple[float, float] | None = None
) -> Array:
    """Boxes (..., 4) in ``frame`` to pixels of the original image, as float64, neither rounded nor clipped."""
    return rescale(boxes, frame_wh(frame, image_wh, input_wh), image_wh)


def pixels_to_frame(
    boxes, frame: str, image_wh: tuple[float, float], input_wh: tuple[float, float] | None = None
) -> Array:
    """Boxes (..., 4) in pixels of the original image to ``frame``.

    Rounded to whole units, as models write them, except in ``norm1`` (four decimals): the round trip stays within half
    a unit of the frame.
    """
    converted = rescale(boxes, image_wh, frame_wh(frame, image_wh, input_wh))
    return np.round(converted, 4 if frame == "norm1" else 0)
