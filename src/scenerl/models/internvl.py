"""InternVL 3 (Zhu et al. 2025) in transformers' own format, as ``OpenGVLab/InternVL3-1B-hf``: tiles of 448 x 448.

Boxes: integers 0-1000 relative to the image (the project's own evaluation of referring expressions divides by 1000,
``internvl_chat/eval/refcoco/evaluate_grounding.py``). An image is stretched to the grid of tiles whose shape is
nearest, and a thumbnail of the whole follows where the grid has more than one tile. The pixel bounds are bounds of the
grid: ``max_pixels`` 401408 is two tiles and the thumbnail.
"""

from __future__ import annotations

import math
import re

from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.processing_utils import ProcessorMixin

from scenerl.errors import UserError
from scenerl.models.family import Family
from scenerl.models.processors import WithoutVideo, loader, lora_targets, tile_count

IMAGE_TOKEN = "<IMG_CONTEXT>"
START_TOKEN, END_TOKEN, VIDEO_TOKEN = "<img>", "</img>", "<video>"
_PATTERN = re.compile(f"(?P<image>{re.escape(IMAGE_TOKEN)})|(?P<video>{re.escape(VIDEO_TOKEN)})")


class InternVLImageTextProcessor(WithoutVideo, InternVLProcessor):
    """The family's processor without its video half."""

    settings = ("image_seq_length",)

    def __init__(self, image_processor=None, tokenizer=None, image_seq_length=256, chat_template=None, **kwargs):
        self.image_seq_length = image_seq_length
        self.image_token, self.video_token = IMAGE_TOKEN, VIDEO_TOKEN
        self.start_image_token, self.end_image_token = START_TOKEN, END_TOKEN
        self.image_token_id, self.start_image_token_id, self.end_image_token_id = tokenizer.convert_tokens_to_ids(
            [IMAGE_TOKEN, START_TOKEN, END_TOKEN]
        )
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)
        self.multimodal_pattern = _PATTERN


def set_pixel_bounds(image_processor, min_pixels: int | None, max_pixels: int | None) -> None:
    """Set how many pixels the grid of tiles may have; None leaves a bound as it is.

    Raises:
        UserError: no number of tiles fits.
    """
    image_processor.crop_to_patches = True
    tile = image_processor.size["height"]
    if max_pixels is not None:
        image_processor.max_patches = tile_count(max_pixels, tile, "max_pixels")
    if min_pixels is not None:
        image_processor.min_patches = math.ceil(min_pixels / tile**2)
    low, high = image_processor.min_patches, image_processor.max_patches
    if low > high:
        raise UserError(f"min_pixels needs {low} tiles of {tile} x {tile} pixels, max_pixels allows {high}")


def input_wh(processor, image_wh: tuple[int, int]) -> tuple[int, int]:
    """Size of the grid of tiles that the image is stretched to."""
    images = processor.image_processor
    width, height = images.size["width"], images.size["height"]
    columns, rows = get_optimal_tiled_canvas(
        (image_wh[1], image_wh[0]), (height, width), images.min_patches, images.max_patches
    )
    return columns * width, rows * height


def image_tokens(processor, image_wh: tuple[int, int]) -> int:
    """256 tokens for each tile and the thumbnail, one before and one after."""
    tiles = processor.image_processor.get_number_of_image_patches(image_wh[1], image_wh[0])
    return 2 + tiles * processor.image_seq_length


FAMILY = Family(
    model_type="internvl",
    box_format="norm1000",
    banned_tokens=(IMAGE_TOKEN, START_TOKEN, END_TOKEN, VIDEO_TOKEN),
    vision_modules=("model.vision_tower", "model.multi_modal_projector"),
    lora_targets=lora_targets("language_model"),
    load_processor=loader(InternVLImageTextProcessor, GotOcr2ImageProcessorPil, IMAGE_TOKEN, set_pixel_bounds),
    input_wh=input_wh,
    image_tokens=image_tokens,
)
