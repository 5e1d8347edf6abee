"""Padded batches of TRL taken apart, to find the completions that share a prompt and its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.utils import split_pixel_values_by_grid

from scenerl.errors import UserError
from scenerl.training.shared_prefix.packing import runs

MODEL_FIELDS = ("pixel_values", "image_grid_thw", "pixel_attention_mask")
"""What a model may take of images: pixels as patches, as tiles, or as tiles padded to one number per row."""

IMAGE_FIELDS = (*MODEL_FIELDS, "num_images", "num_tiles")
"""What TRL's batches hold of images."""


@dataclass(frozen=True, slots=True)
class PaddedRows:
    """A batch of TRL without padding, on the CPU.

    Attributes:
        prompts, types: token ids and token types (0 text, 1 image) of each row's prompt (P,). Families without M-RoPE
            have no types.
        completions: token ids (C,) of each row.
        images: each row's inputs of the model for its images; empty where it has none.
    """

    prompts: list[torch.Tensor]
    types: list[torch.Tensor]
    completions: list[torch.Tensor]
    images: list[dict[str, torch.Tensor]]

    @classmethod
    def unpad(cls, input_ids, attention_mask, num_completion, mm_token_type_ids, **images) -> PaddedRows:
        """Remove the padding.

        Args:
            input_ids, attention_mask: (B, P + C), prompts and completions padded anywhere.
            num_completion: C.
            mm_token_type_ids: (B, P + C), or None where nothing has images.
            images: the :data:`IMAGE_FIELDS`, as the processor gives them for all rows, or lists of each row's own.

        Raises:
            UserError: a prompt is empty or ends with an image, or a completion holds an image or a gap.
        """
        count = len(input_ids)
        ids, masks = input_ids.cpu(), attention_mask.bool().cpu()
        kinds = torch.zeros_like(ids) if mm_token_type_ids is None else mm_token_type_ids.cpu()
        prompts, types, completions = [], [], []
        for row_ids, row_mask, row_kinds in zip(ids, masks, kinds, strict=True):
            mask = row_mask[:-num_completion]
            prompts.append(row_ids[:-num_completion][mask])
            types.append(row_kinds[:-num_completion][mask])
            seen = row_mask[-num_completion:]
            length = int(seen.sum())
            completions.append(row_ids[-num_completion:][:length])
            if not len(prompts[-1]) or types[-1][-1] or row_kinds[-num_completion:].any() or not seen[:length].all():
                raise UserError(
                    "shared_prefix: a prompt must end with text, and a completion must be text without gaps; train "
                    "with --shared_prefix off"
                )
        split = split_images(images)
        fields = {key: split[key] for key in MODEL_FIELDS if split.get(key) is not None}
        return cls(
            prompts,
            types,
            completions,
            [
                {key: values[row] for key, values in fields.items()} if fields and split["num_images"][row] else {}
                for row in range(count)
            ],
        )

    def positions(self, row: int, backbone) -> torch.Tensor:
        """M-RoPE positions (3, P) of a row's prompt; (P,) for models that have one axis.

        Raises:
            ValueError: image tokens and images differ in number.
        """
        prompt, types, grid = self.prompts[row], self.types[row], self.images[row].get("image_grid_thw")
        places = torch.arange(len(prompt))
        if not hasattr(backbone, "get_rope_index"):
            return places
        merge = backbone.config.vision_config.spatial_merge_size
        sizes = [] if grid is None else (grid.prod(dim=-1) // merge**2).tolist()
        if int(types.count_nonzero()) != sum(sizes) or 0 in sizes:
            raise ValueError(
                f"a prompt holds {int(types.count_nonzero())} image tokens, but its images make {sizes}, a number each"
            )
        if grid is None:
            return places.expand(3, -1)
        index, _ = backbone.get_rope_index(
            prompt[None], mm_token_type_ids=types[None], image_grid_thw=grid.cpu(), attention_mask=None
        )
        return index[:, 0]

    def images_of(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """The model's inputs for the images of some rows."""
        chosen = [self.images[row] for row in rows if self.images[row]]
        return {key: torch.cat([own[key] for own in chosen]) for key in chosen[0]} if chosen else {}

    def same_prompt(self, a: int, b: int) -> bool:
        return (
            torch.equal(self.prompts[a], self.prompts[b])
            and torch.equal(self.types[a], self.types[b])
            and self.images[a].keys() == self.images[b].keys()
            and all(_equal(value, self.images[b][key]) for key, value in self.images[a].items())
        )

    def groups(self, rows: range) -> list[range]:
        """Neighbouring rows with the same prompt and images."""
        keys = []
        for row in rows:
            keys.append(keys[-1] if keys and self.same_prompt(row - 1, row) else row)
        return [range(rows[run.start], rows[run.start] + len(run)) for run in runs(keys)]


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a is b or torch.equal(a, b)


def split_images(batch: dict[str, Any]) -> dict[str, Any]:
    """Image fields as lists with one entry per row; a buffered batch has them already.

    As TRL's ``split_pixel_values_by_grid``, which leaves tiles padded to one number per row as they are.
    """
    pixels = batch.get("pixel_values")
    if pixels is None or isinstance(pixels, list):
        return batch
    if pixels.ndim == 5:
        padded = [key for key in ("pixel_values", "pixel_attention_mask") if batch.get(key) is not None]
        return {**batch, **{key: list(batch[key].split(1)) for key in padded}}
    return {**batch, **split_pixel_values_by_grid({key: value for key, value in batch.items() if value is not None})}


def join_images(images: dict[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`split_images`."""
    return {
        key: torch.cat(value) if key in MODEL_FIELDS and isinstance(value, list) else value
        for key, value in images.items()
    }


def share_images(batch: dict[str, Any]) -> dict[str, Any]:
    """Let neighbouring rows with equal images share one tensor."""
    shared = dict(batch)
    for key in MODEL_FIELDS:
        values = batch.get(key)
        if values is not None:
            kept: list[torch.Tensor] = []
            for value in values:
                kept.append(kept[-1] if kept and torch.equal(kept[-1], value) else value.clone())
            shared[key] = kept
    return shared
