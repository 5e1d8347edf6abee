"""What the rest of the project has to know about a family of vision-language models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """One model family, recognised by the ``model_type`` of a checkpoint's configuration.

    Attributes:
        model_type: the value of ``config.model_type``.
        box_format: the family uses (see :mod:`scenerl.box_formats`).
        banned_tokens: tokens that stand for visual input. One of them in a completion makes the model expect an image
            that is not there, so they are never sampled.
        vision_modules: names of the submodules that read images, vision tower and projector: what ``freeze_vision``
            keeps as it is.
        lora_targets: regular expression of the modules that LoRA adapts unless told otherwise: the linear layers of the
            language model. Vision towers have layers of the same names, so the whole path counts.
        load_processor: (folder or hub name, min_pixels, max_pixels, trust_remote_code) to a processor that needs no
            torchvision. Bounds that are None keep the checkpoint's.
        input_wh: (processor, image_wh) to the (width, height) of the resized input in pixels.
        image_tokens: (processor, image_wh) to how many tokens the image takes in the prompt.
    """

    model_type: str
    box_format: str
    banned_tokens: tuple[str, ...]
    vision_modules: tuple[str, ...]
    lora_targets: str
    load_processor: Callable
    input_wh: Callable
    image_tokens: Callable
