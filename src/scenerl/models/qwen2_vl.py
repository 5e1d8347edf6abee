"""Qwen2-VL (Wang et al. 2024): boxes as integers 0-1000 relative to the image, any resolution in patches of 14."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.processing_utils import ProcessorMixin

from scenerl.models.family import Family

IMAGE_TOKEN = "<|image_pad|>"
VIDEO_TOKEN = "<|video_pad|>"


class Qwen2VLImageTextProcessor(Qwen2VLProcessor):
    """The family's processor without its video half, which alone would need torchvision.

    Saved in the standard files (tokenizer, chat template, ``preprocessor_config.json``), so other tools load the folder
    as an ordinary Qwen2-VL checkpoint.
    """

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        self.image_token = IMAGE_TOKEN
        self.video_token = VIDEO_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        # Qwen2VLProcessor.__init__ insists on a video processor; everything it sets besides is above
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        if push_to_hub:
            raise ValueError("push the whole checkpoint folder instead: huggingface-cli upload NAME FOLDER")
        self.tokenizer.chat_template = self.chat_template
        self.tokenizer.save_pretrained(save_directory)
        self.image_processor.save_pretrained(save_directory)


def load_processor(
    name: str | Path, min_pixels: int | None = None, max_pixels: int | None = None
) -> Qwen2VLImageTextProcessor:
    """The processor of a checkpoint folder or hub name; pixel bounds given here replace the checkpoint's.

    Raises:
        ValueError: there is no chat template, or the tokenizer has no token for an image.
    """
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    image_processor = Qwen2VLImageProcessorPil.from_pretrained(name)
    set_pixel_bounds(image_processor, min_pixels, max_pixels)
    template = tokenizer.chat_template
    if template is None:  # older checkpoints keep it in a file of the processor
        template = Qwen2VLProcessor.get_processor_dict(name)[0].get("chat_template")
    if template is None:
        raise ValueError("no chat template: neither chat_template.jinja nor an entry of tokenizer_config.json")
    if tokenizer.convert_tokens_to_ids(IMAGE_TOKEN) in (None, tokenizer.unk_token_id):
        raise ValueError(f"the tokenizer has no token {IMAGE_TOKEN}")
    return Qwen2VLImageTextProcessor(image_processor, tokenizer, chat_template=template)


def set_pixel_bounds(image_processor, min_pixels: int | None, max_pixels: int | None) -> None:
    """Set how many pixels a resized input may have; None leaves a bound as it is."""
    for key, value in (("shortest_edge", min_pixels), ("longest_edge", max_pixels)):
        if value is not None:
            image_processor.size[key] = value
    low, high = image_processor.size["shortest_edge"], image_processor.size["longest_edge"]
    if low > high:
        raise ValueError(f"min_pixels {low} is larger than max_pixels {high}")


def input_wh(processor, image_wh: tuple[int, int]) -> tuple[int, int]:
    """Size of the resized input: both sides multiples of patch size times merge size, within the pixel bounds.

    Raises:
        ValueError: one side is more than 200 times the other, which the family does not take.
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


FAMILY = Family(
    model_type="qwen2_vl",
    frame="norm1000",
    banned_tokens=(IMAGE_TOKEN, VIDEO_TOKEN, "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    vision_tower="model.visual",
    load_processor=load_processor,
    input_wh=input_wh,
)
