"""The Qwen-VL architectures at a small size, randomly initialised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from scenerl.models import qwen2_vl

HEAD = 32
"""Size of an attention head."""

_WINDOW_PATCHES = 4  # an attention window is this many patches wide and high


@dataclass(frozen=True, slots=True)
class TinyShape:
    """Sizes of the small model. Widths are multiples of 32, the size of one attention head."""

    text_width: int = 192
    text_layers: int = 4
    vision_width: int = 128
    vision_layers: int = 3
    patch: int = 14
    min_pixels: int = 56 * 56
    max_pixels: int = 448 * 448


@dataclass(frozen=True, slots=True)
class Architecture:
    """How a small model of one family is made.

    Attributes:
        special_tokens: of its tokenizer; the first pads.
        end: the token that ends an answer.
        image: what a chat template writes for an image; the processor puts the right number of tokens in its place.
        build_model: (ids of the special tokens by name, text configuration, shape) to the model.
        build_images: shape to the image processor.
        build_processor: (image processor, tokenizer, chat template) to the processor.
    """

    special_tokens: tuple[str, ...]
    end: str
    image: str
    build_model: Callable
    build_images: Callable
    build_processor: Callable


def text_config(tokenizer, shape: TinyShape, pad: int, end: int) -> dict:
    """What the language models have in common: a small decoder with grouped queries and tied embeddings."""
    heads = shape.text_width // HEAD
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.text_width,
        "intermediate_size": shape.text_width * 3,
        "num_hidden_layers": shape.text_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": True,
        "bos_token_id": pad,
        "eos_token_id": end,
        "pad_token_id": pad,
    }


def _qwen(config_class, model_class, vision: Callable, text: Callable | None = None, **rope) -> Callable:
    """A builder: of what the family adds to the vision and text configurations, and to the rotary embedding's.

    Args:
        vision, text: shape to the family's fields.
    """

    def build(ids: dict[str, int], config: dict, shape: TinyShape):
        mrope = {"type": "mrope", "rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0, **rope}
        return model_class(
            config_class(
                text_config={**config, **(text(shape) if text else {}), "rope_parameters": mrope},
                vision_config={"patch_size": shape.patch, "spatial_merge_size": 2, "temporal_patch_size": 2}
                | vision(shape),
                image_token_id=ids["<|image_pad|>"],
                video_token_id=ids["<|video_pad|>"],
                vision_start_token_id=ids["<|vision_start|>"],
                vision_end_token_id=ids["<|vision_end|>"],
                tie_word_embeddings=True,
            )
        )

    return build


def _vision_2(shape: TinyShape) -> dict:
    return {
        "depth": shape.vision_layers,
        "embed_dim": shape.vision_width,
        "hidden_size": shape.text_width,
        "num_heads": shape.vision_width // HEAD,
        "mlp_ratio": 4,
    }


def _vision_25(shape: TinyShape) -> dict:
    return {
        "depth": shape.vision_layers,
        "hidden_size": shape.vision_width,
        "out_hidden_size": shape.text_width,
        "num_heads": shape.vision_width // HEAD,
        "intermediate_size": shape.vision_width * 2,
        "window_size": _WINDOW_PATCHES * shape.patch,
        "fullatt_block_indexes": [shape.vision_layers - 1],
    }


def _vision_3(shape: TinyShape) -> dict:
    deepstack = list(range(min(shape.vision_layers, shape.text_layers)))
    return {**_vision_35(shape), "deepstack_visual_indexes": deepstack}


def _vision_35(shape: TinyShape) -> dict:
    return {
        "depth": shape.vision_layers,
        "hidden_size": shape.vision_width,
        "out_hidden_size": shape.text_width,
        "num_heads": shape.vision_width // HEAD,
        "intermediate_size": shape.vision_width * 2,
        "num_position_embeddings": 64,
    }


def _text_35(shape: TinyShape) -> dict:
    heads = shape.text_width // HEAD
    return {
        "head_dim": HEAD,
        "full_attention_interval": min(4, shape.text_layers),  # the other layers are linear
        "linear_key_head_dim": HEAD,
        "linear_value_head_dim": HEAD,
        "linear_num_key_heads": max(1, heads // 2),
        "linear_num_value_heads": max(1, heads // 2) * 2,
    }


def _qwen_images(shape: TinyShape):
    return Qwen2VLImageProcessorPil(
        patch_size=shape.patch, merge_size=2, min_pixels=shape.min_pixels, max_pixels=shape.max_pixels
    )


CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN_TOKENS = (*CHATML, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def _qwen_family(build_model: Callable) -> Architecture:
    return Architecture(
        _QWEN_TOKENS,
        "<|im_end|>",
        "<|vision_start|><|image_pad|><|vision_end|>",
        build_model,
        _qwen_images,
        qwen2_vl.Qwen2VLImageTextProcessor,
    )


ARCHITECTURES: dict[str, Architecture] = {
    "qwen2_vl": _qwen_family(_qwen(Qwen2VLConfig, Qwen2VLForConditionalGeneration, _vision_2)),
    "qwen2_5_vl": _qwen_family(_qwen(Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, _vision_25)),
    "qwen3_vl": _qwen_family(
        _qwen(
            Qwen3VLConfig,
            Qwen3VLForConditionalGeneration,
            _vision_3,
            lambda shape: {"head_dim": HEAD},
            mrope_interleaved=True,
        )
    ),
    "qwen3_5": _qwen_family(
        _qwen(
            Qwen3_5Config,
            Qwen3_5ForConditionalGeneration,
            _vision_35,
            _text_35,
            mrope_interleaved=True,
            mrope_section=[3, 3, 2],
            partial_rotary_factor=0.5,
        )
    ),
}
"""``model_type`` to how a small model of it is made."""


def build_model(model_type: str, tokenizer, shape: TinyShape, seed: int = 0):
    """A randomly initialised model for ``tokenizer``, the same for the same seed."""
    architecture = ARCHITECTURES[model_type]
    names = architecture.special_tokens
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(list(names)), strict=True))
    pad, end = ids[names[0]], ids[architecture.end]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = architecture.build_model(ids, text_config(tokenizer, shape, pad, end), shape)
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = pad
    return model
