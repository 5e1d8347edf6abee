"""Small InternVL, SmolVLM and GLM-4.6V models, for tests of the families of which the package builds none."""

from __future__ import annotations

from transformers import (
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from scenerl.models import glm46v, internvl, smolvlm
from scenerl.tiny.architectures import ARCHITECTURES, CHATML, HEAD, Architecture, TinyShape

_TILE_PATCHES = 4  # a tile is this many patches wide and high
_NUM_TILE_TOKENS = _TILE_PATCHES**2 // 4


def tile_of(shape: TinyShape) -> int:
    """Side of a tile in pixels."""
    return _TILE_PATCHES * shape.patch


def _internvl(ids: dict[str, int], config: dict, shape: TinyShape):
    return InternVLForConditionalGeneration(
        InternVLConfig(
            text_config={**config, "model_type": "qwen2"},
            vision_config={
                "hidden_size": shape.vision_width,
                "num_hidden_layers": shape.vision_layers,
                "num_attention_heads": shape.vision_width // HEAD,
                "intermediate_size": shape.vision_width * 2,
                "image_size": [tile_of(shape), tile_of(shape)],
                "patch_size": [shape.patch, shape.patch],
            },
            image_token_id=ids[internvl.IMAGE_TOKEN],
            image_seq_length=_TILE_PATCHES**2 // 4,
            tie_word_embeddings=True,
        )
    )


def _smolvlm(ids: dict[str, int], config: dict, shape: TinyShape):
    return SmolVLMForConditionalGeneration(
        SmolVLMConfig(
            text_config={**config, "model_type": "llama"},
            vision_config={
                "hidden_size": shape.vision_width,
                "num_hidden_layers": shape.vision_layers,
                "num_attention_heads": shape.vision_width // HEAD,
                "intermediate_size": shape.vision_width * 2,
                "image_size": tile_of(shape),
                "patch_size": shape.patch,
            },
            image_token_id=ids[smolvlm.IMAGE_TOKEN],
            scale_factor=2,
            tie_word_embeddings=True,
        )
    )


def _glm46v(ids: dict[str, int], config: dict, shape: TinyShape):
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "partial_rotary_factor": 0.5, "rope_theta": 10000.0}
    return Glm46VForConditionalGeneration(
        Glm46VConfig(
            text_config={**config, "model_type": "glm4v_text", "rope_parameters": rope},
            vision_config={
                "model_type": "glm4v_vision",
                "depth": shape.vision_layers,
                "hidden_size": shape.vision_width,
                "out_hidden_size": shape.text_width,
                "num_heads": shape.vision_width // HEAD,
                "intermediate_size": shape.vision_width * 2,
                "image_size": 8 * shape.patch,
                "patch_size": shape.patch,
            },
            image_token_id=ids[glm46v.IMAGE_TOKEN],
            video_token_id=ids[glm46v.VIDEO_TOKEN],
            image_start_token_id=ids[glm46v.START_TOKEN],
            image_end_token_id=ids[glm46v.END_TOKEN],
            video_start_token_id=ids[glm46v.VIDEO_START],
            video_end_token_id=ids[glm46v.VIDEO_END],
            tie_word_embeddings=True,
        )
    )


def _glm46v_images(shape: TinyShape):
    images = Glm46VImageProcessorPil(patch_size=shape.patch)
    glm46v.set_pixel_bounds(images, shape.min_pixels, shape.max_pixels)
    return images


def _internvl_images(shape: TinyShape):
    images = GotOcr2ImageProcessorPil(size={"height": tile_of(shape), "width": tile_of(shape)}, crop_to_patches=True)
    internvl.set_pixel_bounds(images, None, min(shape.max_pixels, 12 * tile_of(shape) ** 2))
    return images


def _smolvlm_images(shape: TinyShape):
    images = SmolVLMImageProcessorPil(max_image_size={"longest_edge": tile_of(shape)})
    smolvlm.set_pixel_bounds(images, None, min(shape.max_pixels, 4 * tile_of(shape) ** 2))
    return images


ARCHITECTURES |= {
    "glm46v": Architecture(
        (*CHATML, *glm46v.FAMILY.banned_tokens),
        "<|im_end|>",
        f"{glm46v.START_TOKEN}{glm46v.IMAGE_TOKEN}{glm46v.END_TOKEN}",
        _glm46v,
        _glm46v_images,
        glm46v.Glm46VImageTextProcessor,
    ),
    "internvl": Architecture(
        (*CHATML, *internvl.FAMILY.banned_tokens),
        "<|im_end|>",
        internvl.IMAGE_TOKEN,
        _internvl,
        _internvl_images,
        lambda images, tokenizer, chat_template: internvl.InternVLImageTextProcessor(
            images, tokenizer, _NUM_TILE_TOKENS, chat_template=chat_template
        ),
    ),
    "smolvlm": Architecture(
        ("<|im_end|>", "<|im_start|>", "<end_of_utterance>", *smolvlm.FAMILY.banned_tokens),
        "<end_of_utterance>",
        smolvlm.IMAGE_TOKEN,
        _smolvlm,
        _smolvlm_images,
        lambda images, tokenizer, chat_template: smolvlm.SmolVLMImageTextProcessor(
            images, tokenizer, _NUM_TILE_TOKENS, chat_template=chat_template
        ),
    ),
}
