"""Inputs and outputs of ``generate`` in a rollout: padding, prompts and their images, ends of completions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import make_flat_list_of_images
from trl.trainer.utils import pad

from scenerl.training.shared_prefix.padded_rows import IMAGE_FIELDS, split_images


def left_padded(
    prompt_ids: Sequence[Sequence[int]], fields: dict[str, Any], pad_id: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Prompts as a batch padded on the left.

    Args:
        prompt_ids: token ids of each prompt.
        fields: the processor's other outputs: per-token lists, or arrays over all images.

    Returns:
        ``input_ids`` and ``attention_mask`` (B, P), and the fields as tensors.
    """
    masks = [[1] * len(ids) for ids in prompt_ids]
    inputs = {"input_ids": padded(prompt_ids, pad_id, "left"), "attention_mask": padded(masks, 0, "left")}
    for key, value in fields.items():
        is_per_token = isinstance(value, list) and isinstance(value[0], list)
        inputs[key] = padded(value, 0, "left") if is_per_token else _tensor(value)
    return {key: value.to(device) for key, value in inputs.items()}


def padded(rows: Sequence[Sequence[int]], value: int, side: str = "right") -> torch.Tensor:
    """Rows of whole numbers as one tensor, filled up with a value."""
    return pad([torch.tensor(row, dtype=torch.long) for row in rows], value, side)


def select_prompts(
    fields: dict[str, Any], kept: Sequence[int], num_images: Sequence[int], num_image_tokens: Sequence[int]
) -> dict[str, Any]:
    """The processor's fields of some prompts.

    Args:
        kept: which prompts.
        num_images, num_image_tokens: (B) images of each prompt of the batch, and the tokens that stand for them.
    """
    if len(kept) == len(num_images):
        return fields
    images = {key: _tensor(fields[key]) for key in IMAGE_FIELDS if key in fields}
    if images:
        images["num_images"] = list(num_images)
        pixels = images["pixel_values"]
        if pixels.ndim == 4:  # tiles of all images, each as many tokens
            per_tile = sum(num_image_tokens) // len(pixels)
            images["num_tiles"] = [count // per_tile for count in num_image_tokens]
        images = split_images(images)
        fields = {**fields, **{key: images[key] for key in IMAGE_FIELDS if key in fields}}
    chosen = {key: [value[row] for row in kept] for key, value in fields.items()}
    return {key: torch.cat(value) if isinstance(value[0], torch.Tensor) else value for key, value in chosen.items()}


def _tensor(value) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.tensor(np.array(value))


def cut_at_stop(tokens: torch.Tensor, stop_ids: Collection[int]) -> list[list[int]]:
    """Each row of (B, T) up to its first stop token, that one included."""
    stops = set(stop_ids)
    rows = tokens.tolist()
    return [row[: next((k + 1 for k, token in enumerate(row) if token in stops), len(row))] for row in rows]


def ensure_eos(
    completions: Sequence[list[int]], logps: Sequence[list[float]] | None, eos: int
) -> tuple[list[list[int]], list[list[float]] | None]:
    """An engine's completions, with the end token in place of each empty one.

    Engines leave out the token that ends a completion, while TRL reads the last token of each. The end token gets
    probability 1: the engine had nothing else to write.
    """
    filled = [completion or [eos] for completion in completions]
    if logps is None:
        return filled, None
    return filled, [own or [0.0] * len(completion) for own, completion in zip(logps, filled, strict=True)]


class _OncePerImage:
    """An image processor that processes each image once and remembers the result."""

    def __init__(self, processor):
        self._processor = processor
        # id to the image, kept alive so that no other gets its id, and result
        self._seen: dict[int, tuple[Any, Any]] = {}

    def __getattr__(self, name: str):
        return getattr(self._processor, name)

    def __call__(self, images, return_tensors=None, **kwargs) -> BatchFeature:
        images = make_flat_list_of_images(images)
        new = {id(image): image for image in images if id(image) not in self._seen}
        for key, image in new.items():
            self._seen[key] = image, self._processor([image], **kwargs)
        outputs = [self._seen[id(image)][1] for image in images]
        data = {key: torch.cat([torch.as_tensor(output[key]) for output in outputs]) for key in outputs[0]}
        return BatchFeature(data, tensor_type=return_tensors)


@contextmanager
def once_per_image(processor):
    """While TRL prepares a batch, process each image once: TRL processes the image of every completion, and twice.

    For image processors whose fields are flat over images, as the Qwen-VL families' are; others pad a batch.
    """
    images = getattr(processor, "image_processor", None)
    if images is None or "image_grid_thw" not in images.model_input_names:
        yield
        return
    processor.image_processor = _OncePerImage(images)
    try:
        yield
    finally:
        processor.image_processor = images
