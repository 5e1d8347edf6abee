"""What a rollout hands to the model and takes from it: images, padding, picking prompts, ends of answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import make_flat_list_of_images


def left_padded(
    prompt_ids: Sequence[Sequence[int]], fields: dict[str, Any], pad_id: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Prompts as a batch padded on the left.

    Args:
        prompt_ids: token ids of each prompt.
        fields: what the processor gives besides: per-token lists, or arrays over all images.

    Returns:
        ``input_ids`` and ``attention_mask`` (B, P), and the fields as tensors.
    """
    width = max(map(len, prompt_ids))
    ids_PT = [[pad_id] * (width - len(ids)) + list(ids) for ids in prompt_ids]
    mask_PT = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompt_ids]
    inputs = {
        "input_ids": torch.tensor(ids_PT, device=device),
        "attention_mask": torch.tensor(mask_PT, device=device),
    }
    for key, value in fields.items():
        if _is_per_token(value):
            inputs[key] = torch.tensor([[0] * (width - len(v)) + list(v) for v in value], device=device)
        else:  # pixels and their grid, flattened over the images: a tensor, or arrays
            inputs[key] = _tensor(value).to(device)
    return inputs


def _is_per_token(value) -> bool:
    return isinstance(value, list) and isinstance(value[0], list)


def fields_of(fields: dict[str, Any], kept: Sequence[int], num_images: Sequence[int]) -> dict[str, Any]:
    """The processor's fields of some prompts.

    Args:
        kept: which prompts.
        num_images: how many images each prompt of the batch has.
    """
    if "image_grid_thw" not in fields:
        return {key: [value[row] for row in kept] for key, value in fields.items()}
    grids = _tensor(fields["image_grid_thw"])
    sizes = [int(part.prod(dim=-1).sum()) for part in grids.split(list(num_images))]
    images = torch.cat([part for row, part in enumerate(_indices(num_images)) if row in set(kept)])
    patches = torch.cat([part for row, part in enumerate(_indices(sizes)) if row in set(kept)])
    chosen = {}
    for key, value in fields.items():
        if _is_per_token(value):
            chosen[key] = [value[row] for row in kept]
        else:
            chosen[key] = _tensor(value)[images if key == "image_grid_thw" else patches]
    return chosen


def _tensor(value) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.tensor(np.array(value))


def _indices(sizes: Sequence[int]) -> Sequence[torch.Tensor]:
    return torch.arange(sum(sizes)).split(list(sizes))


def cut_at_stop(tokens: torch.Tensor, stop_ids: Collection[int]) -> list[list[int]]:
    """Each row of (B, T) up to its first stop token, that one included."""
    stops = set(stop_ids)
    rows = tokens.tolist()
    return [row[: next((k + 1 for k, token in enumerate(row) if token in stops), len(row))] for row in rows]


def with_an_end(
    answers: Sequence[list[int]], logps: Sequence[list[float]] | None, end: int
) -> tuple[list[list[int]], list[list[float]] | None]:
    """Answers of an engine in which an empty one consists of its end token.

    Engines leave out the token that ends an answer, or are stopped before the first; TRL reads the last token of each.
    The end has probability 1 there: the engine had said all it could.
    """
    filled = [answer or [end] for answer in answers]
    if logps is None:
        return filled, None
    return filled, [own or [0.0] * len(answer) for own, answer in zip(logps, filled, strict=True)]


class _OncePerImage:
    """An image processor that does an image once however often it is asked for it; keeps what it has seen."""

    def __init__(self, processor):
        self._processor = processor
        self._seen: dict[int, tuple[Any, Any]] = {}  # image, kept alive so that its id stays its own; what came out

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
    """While TRL prepares a batch: it asks for every completion's image, and twice.

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
