"""GLM-4.6V and its Flash of 9 B weights (Z.ai 2025), dense: any resolution in patches of 14, made to answer with boxes.

Boxes: integers 0-1000 relative to the image (Z.ai's own tool for grounding, ``zai-org/glm-skills``). The family counts
an image as two frames, so that the bounds in its files are twice ours, which are of one.
"""

from __future__ import annotations

from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil, smart_resize
from transformers.models.glm46v.processing_glm46v import Glm46VProcessor
from transformers.processing_utils import ProcessorMixin

from scenerl.models import qwen2_vl
from scenerl.models.family import Family
from scenerl.models.processors import WithoutVideo, loader, lora_targets, without_thinking

IMAGE_TOKEN, VIDEO_TOKEN = "<|image|>", "<|video|>"
START_TOKEN, END_TOKEN = "<|begin_of_image|>", "<|end_of_image|>"
VIDEO_START, VIDEO_END = "<|begin_of_video|>", "<|end_of_video|>"


class Glm46VImageTextProcessor(WithoutVideo, Glm46VProcessor):
    """The family's processor without its video half."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        self.image_token, self.video_token = IMAGE_TOKEN, VIDEO_TOKEN
        self.image_token_id, self.video_token_id, self.video_start_id, self.video_end_id = (
            tokenizer.convert_tokens_to_ids([IMAGE_TOKEN, VIDEO_TOKEN, VIDEO_START, VIDEO_END])
        )
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def set_pixel_bounds(image_processor, min_pixels: int | None, max_pixels: int | None) -> None:
    """Set how many pixels a resized input may have; None leaves a bound as it is."""
    frames = image_processor.temporal_patch_size
    bounds = (None if bound is None else frames * bound for bound in (min_pixels, max_pixels))
    qwen2_vl.set_pixel_bounds(image_processor, *bounds)


def input_wh(processor, image_wh: tuple[int, int]) -> tuple[int, int]:
    """Size of the resized input: both sides multiples of patch size times merge size, within the pixel bounds."""
    images = processor.image_processor
    height, width = smart_resize(
        images.temporal_patch_size,
        image_wh[1],
        image_wh[0],
        temporal_factor=images.temporal_patch_size,
        factor=images.patch_size * images.merge_size,
        min_pixels=images.size["shortest_edge"],
        max_pixels=images.size["longest_edge"],
    )
    return width, height


def image_tokens(processor, image_wh: tuple[int, int]) -> int:
    """One token for each square of patch size times merge size."""
    return qwen2_vl.num_squares(processor.image_processor, input_wh(processor, image_wh))


FAMILY = Family(
    model_type="glm46v",
    box_format="norm1000",
    banned_tokens=(IMAGE_TOKEN, VIDEO_TOKEN, START_TOKEN, END_TOKEN, VIDEO_START, VIDEO_END),
    vision_modules=("model.visual",),
    lora_targets=lora_targets("language_model", r"mlp\.gate_up_proj"),
    load_processor=without_thinking(
        loader(Glm46VImageTextProcessor, Glm46VImageProcessorPil, IMAGE_TOKEN, set_pixel_bounds)
    ),
    input_wh=input_wh,
    image_tokens=image_tokens,
)
