"""SmolVLM and SmolVLM2 (Marafioti et al. 2025): tiles of 384 or 512 pixels and a thumbnail of the whole.

Box format: the family was trained on none, as its training data hold no boxes (arXiv 2504.05299); here it is integers
0-1000 relative to the image, which fine-tuning has to teach. Every image is scaled until its longer side is
``size.longest_edge``, then stretched to whole tiles; ``max_pixels`` sets that side, and there is no lower bound.
"""

from __future__ import annotations

import math

from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor, get_image_prompt_string
from transformers.processing_utils import ProcessorMixin

from scenerl.errors import UserError
from scenerl.models.family import Family
from scenerl.models.processors import WithoutVideo, loader, lora_targets, tile_count

IMAGE_TOKEN, VIDEO_TOKEN = "<image>", "<video>"
AROUND_TOKEN, GLOBAL_TOKEN = "<fake_token_around_image>", "<global-img>"
MOST_TILES = 6
"""Tokenizers of the family have tokens for so many rows and columns."""

TILE_TOKENS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))


class SmolVLMImageTextProcessor(WithoutVideo, SmolVLMProcessor):
    """The family's processor without its video half, which also needs num2words."""

    settings = ("image_seq_len",)

    def __init__(self, image_processor=None, tokenizer=None, image_seq_len=169, chat_template=None, **kwargs):
        self.image_seq_len = image_seq_len
        self.image_token, self.video_token = IMAGE_TOKEN, VIDEO_TOKEN
        self.fake_image_token, self.global_image_token = AROUND_TOKEN, GLOBAL_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.end_of_utterance_token = tokenizer.eos_token
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    def apply_chat_template(self, conversation, chat_template=None, **kwargs):
        return ProcessorMixin.apply_chat_template(self, conversation, chat_template, **kwargs)


def set_pixel_bounds(image_processor, min_pixels: int | None, max_pixels: int | None) -> None:
    """Set the side that images are scaled to, a multiple of the tile's, from a bound of pixels.

    Raises:
        UserError: the bound allows no tile, or a lower bound is given.
    """
    if min_pixels is not None:
        raise UserError("min_pixels: this family scales every image to one size; give max_pixels")
    if max_pixels is not None:
        tile = image_processor.max_image_size["longest_edge"]
        side = min(MOST_TILES, math.isqrt(tile_count(max_pixels, tile, "max_pixels")))
        image_processor.size = {"longest_edge": side * tile}


def _tiles(processor, image_wh: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of tiles; (0, 0) for an image that is one tile without a thumbnail."""
    _, rows, columns = processor.image_processor.get_number_of_image_patches(image_wh[1], image_wh[0])
    return rows, columns


def input_wh(processor, image_wh: tuple[int, int]) -> tuple[int, int]:
    """Size of the grid of tiles that the image is stretched to."""
    tile = processor.image_processor.max_image_size["longest_edge"]
    rows, columns = _tiles(processor, image_wh)
    return max(columns, 1) * tile, max(rows, 1) * tile


def image_tokens(processor, image_wh: tuple[int, int]) -> int:
    """``image_seq_len`` tokens for each tile and the thumbnail, and the separators between them."""
    text = get_image_prompt_string(
        *_tiles(processor, image_wh), processor.image_seq_len, AROUND_TOKEN, IMAGE_TOKEN, GLOBAL_TOKEN
    )
    return len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])


FAMILY = Family(
    model_type="smolvlm",
    box_format="norm1000",
    banned_tokens=(IMAGE_TOKEN, VIDEO_TOKEN, AROUND_TOKEN, GLOBAL_TOKEN, *TILE_TOKENS),
    vision_modules=("model.vision_model", "model.connector"),
    lora_targets=lora_targets("text_model"),
    load_processor=loader(SmolVLMImageTextProcessor, SmolVLMImageProcessorPil, IMAGE_TOKEN, set_pixel_bounds),
    input_wh=input_wh,
    image_tokens=image_tokens,
)
