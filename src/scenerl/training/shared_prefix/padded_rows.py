"""Padded batches of TRL taken apart, to find the completions that share a prompt and its images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.utils import split_pixel_values_by_grid

from scenerl.errors import UserError
from scenerl.training.shared_prefix.packing import runs


@dataclass(frozen=True, slots=True)
class PaddedRows:
    """A batch of TRL without padding, on the CPU.

    Attributes:
        prompts, types: token ids and token types (0 text, 1 image) of each row's prompt (P,).
        completions: token ids (C,) of each row.
        pixels, grids: each row's patches (n, D) and image sizes (k, 3), or None where it has no image.
    """

    prompts: list[torch.Tensor]
    types: list[torch.Tensor]
    completions: list[torch.Tensor]
    pixels: list[torch.Tensor | None]
    grids: list[torch.Tensor | None]

    @classmethod
    def unpad(
        cls, input_ids, attention_mask, num_completion, mm_token_type_ids, pixel_values, image_grid_thw, num_images
    ) -> PaddedRows:
        """Remove the padding.

        Args:
            input_ids, attention_mask: (B, P + C), prompts and completions padded anywhere.
            num_completion: C.
            mm_token_type_ids: (B, P + C), or None where nothing has images.
            pixel_values, image_grid_thw: as the processor gives them for all rows, or lists of each row's own.
            num_images: (B) images of each row; not needed with lists.

        Raises:
            UserError: a prompt is empty or ends with an image, or a completion holds an image or a gap.
        """
        images = split_images(
            {"pixel_values": pixel_values, "image_grid_thw": image_grid_thw, "num_images": num_images}
        )
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
        nothing = [None] * count
        grids = images["image_grid_thw"] or nothing
        pixels = images["pixel_values"] or nothing
        has_image = [grid is not None and len(grid) > 0 for grid in grids]
        return cls(
            prompts,
            types,
            completions,
            [value if has else None for value, has in zip(pixels, has_image, strict=True)],
            [value if has else None for value, has in zip(grids, has_image, strict=True)],
        )

    def positions(self, row: int, backbone) -> torch.Tensor:
        """M-RoPE positions (3, P) of a row's prompt.

        Raises:
            ValueError: image tokens and images differ in number.
        """
        prompt, types, grid = self.prompts[row], self.types[row], self.grids[row]
        merge = backbone.config.vision_config.spatial_merge_size
        sizes = [] if grid is None else (grid.prod(dim=-1) // merge**2).tolist()
        if int(types.count_nonzero()) != sum(sizes) or 0 in sizes:
            raise ValueError(
                f"a prompt holds {int(types.count_nonzero())} image tokens, but its images make {sizes}, a number each"
            )
        if grid is None:
            return torch.arange(len(prompt)).expand(3, -1)
        index, _ = backbone.get_rope_index(
            prompt[None], mm_token_type_ids=types[None], image_grid_thw=grid.cpu(), attention_mask=None
        )
        return index[:, 0]

    def same_prompt(self, a: int, b: int) -> bool:
        return (
            torch.equal(self.prompts[a], self.prompts[b])
            and torch.equal(self.types[a], self.types[b])
            and _equal(self.grids[a], self.grids[b])
            and _equal(self.pixels[a], self.pixels[b])
        )

    def groups(self, rows: range) -> list[range]:
        """Neighbouring rows with the same prompt and images."""
        keys = []
        for row in rows:
            keys.append(keys[-1] if keys and self.same_prompt(row - 1, row) else row)
        return [range(rows[run.start], rows[run.start] + len(run)) for run in runs(keys)]


def _equal(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))


def split_images(images: dict[str, Any]) -> dict[str, Any]:
    """Pixels and grids as lists with one entry per row; a buffered batch has them already."""
    if images["pixel_values"] is None or isinstance(images["pixel_values"], list):
        return images
    return split_pixel_values_by_grid(images)


def join_images(images: dict[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`split_images`."""
    return {
        key: torch.cat(value) if key != "num_images" and isinstance(value, list) else value
        for key, value in images.items()
    }


def share_images(batch: dict[str, Any]) -> dict[str, Any]:
    """Let neighbouring rows with equal images share one tensor."""
    shared = dict(batch)
    for key in ("pixel_values", "image_grid_thw"):
        values = batch.get(key)
        if values is not None:
            kept: list[torch.Tensor] = []
            for value in values:
                kept.append(kept[-1] if kept and torch.equal(kept[-1], value) else value.clone())
            shared[key] = kept
    return shared
