"""Qwen2-VL (Wang et al. 2024): boxes as integers 0-1000 relative to the image, any resolution in patches of 14.

Boxes: the model was trained on them as ``(x1, y1), (x2, y2)`` scaled to [0, 1000) (arXiv 2409.12191, section 2.2).
"""

from __future__ import annotations

from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.processing_utils import ProcessorMixin

from scenerl.errors import UserError
from scenerl.models.family import Family
from scenerl.models.processors import WithoutVideo, loader, lora_targets

IMAGE_TOKEN = "<|image_pad|>"
VIDEO_TOKEN = "<|video_pad|>"


class Qwen2VLImageTextProcessor(WithoutVideo, Qwen2VLProcessor):
    """The processor of Qwen2-VL, Qwen2.5-VL and Qwen3-VL without its video half; they differ in the size of patches."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        self.image_token = IMAGE_TOKEN
        self.video_token = VIDEO_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        # Qwen2VLProcessor.__init__ insists on a video processor; everything it sets besides is above
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def set_pixel_bounds(image_processor, min_pixels: int | None, max_pixels: int | None) -> None:
    """Set how many pixels a resized input may have; None leaves a bound as it is."""
    for key, value in (("shortest_edge", min_pixels), ("longest_edge", max_pixels)):
        if value is not None:
            image_processor.size[key] = value
    low, high = image_processor.size["shortest_edge"], image_processor.size["longest_edge"]
    if low > high:
        raise UserError(f"min_pixels {low} is larger than max_pixels {high}")


def input_wh(processor, image_wh: tuple[int, int]) -> tuple[int, int]:
    """Size of the resized input: both sides multiples of patch size times merge size, within the pixel bounds.

    Raises:
        UserError: one side is more than 200 times the other, which the family does not take.
    """
    images = processor.image_processor
    height, width = smart_resize(
        image_wh[1],
        image_wh[0],
        factor=images.patch_size * images.merge_size,
        min_pixels=images.size["shortest_edge"],
        max_pixels=images.size["longest_edge"],
    )
    return width, height


def image_tokens(processor, image_wh: tuple[int, int]) -> int:
    """One token for each square of patch size times merge size."""
    return num_squares(processor.image_processor, input_wh(processor, image_wh))


def num_squares(images, input_wh: tuple[int, int]) -> int:
    """How many squares of patch size times merge size a resized input has."""
    width, height = input_wh
    return width * height // (images.patch_size * images.merge_size) ** 2


load_processor = loader(Qwen2VLImageTextProcessor, Qwen2VLImageProcessorPil, IMAGE_TOKEN, set_pixel_bounds)

FAMILY = Family(
    model_type="qwen2_vl",
    box_format="norm1000",
    banned_tokens=(IMAGE_TOKEN, VIDEO_TOKEN, "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    vision_modules=("model.visual",),  # its merger is the projector
    lora_targets=lora_targets("language_model"),
    load_processor=load_processor,
    input_wh=input_wh,
    image_tokens=image_tokens,
)
