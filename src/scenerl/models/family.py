"""What the rest of the project has to know about a family of vision-language models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """One model family, recognised by the ``model_type`` of a checkpoint's configuration.

    Attributes:
        model_type: the value of ``config.model_type``.
        frame: the coordinate frame the family speaks (see :mod:`scenerl.frames`).
        banned_tokens: tokens that stand for visual input. One of them in a completion makes the model expect an image
            that is not there, so they are never sampled.
        vision_tower: name of the submodule that reads images.
        load_processor: folder or hub name, and the processor's pixel bounds (None keeps the checkpoint's), to a
            processor that needs no torchvision.
        input_wh: (processor, image_wh) to the (width, height) of the resized input in pixels.
    """

    model_type: str
    frame: str
    banned_tokens: tuple[str, ...]
    vision_tower: str
    load_processor: Callable
    input_wh: Callable
