"""Dense vision warm-up: a randomly initialised vision tower learns where objects are before language training starts.

Each image token predicts the class of the object that covers most of its cell (or background) and that object's box,
each coordinate as a choice among bins, which is how a language model says it: as a choice among tokens. Real
checkpoints bring a trained tower and need none of this; a random one learns boxes from text alone very slowly (figures
in docs/log.md).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from scenerl.boxes import as_boxes, rescale
from scenerl.data.images import open_image
from scenerl.errors import UserError
from scenerl.types import Example

_LEAST_COVER = 0.05  # share of a cell that an object must cover to be its class


def cell_targets(
    example: Example, classes: Sequence[str], grid_wh: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The class and box that each image token predicts.

    Args:
        example: boxes in original pixels.
        classes: class names; class c is target c + 1, background is 0.
        grid_wh: number of image tokens across and down.

    Returns:
        Classes (H * W) as int64 and boxes (H * W, 4) in [0, 1] of the image, row by row; boxes of background cells
        are 0.
    """
    width, height = grid_wh
    labels = torch.zeros(height, width, dtype=torch.long)
    boxes = torch.zeros(height, width, 4)
    if not example.graph.objects:
        return labels.flatten(), boxes.reshape(-1, 4)
    unit_N4 = rescale(as_boxes([obj.box for obj in example.graph.objects]), example.image_wh, (1.0, 1.0))
    x, y = np.arange(width), np.arange(height)
    # covered share of every cell by every object: the product of the overlaps along x and along y
    left, right = unit_N4[:, None, 0] * width, unit_N4[:, None, 2] * width
    top, bottom = unit_N4[:, None, 1] * height, unit_N4[:, None, 3] * height
    cover_x = np.clip(np.minimum(right, x + 1) - np.maximum(left, x), 0, 1)
    cover_y = np.clip(np.minimum(bottom, y + 1) - np.maximum(top, y), 0, 1)
    cover = torch.from_numpy(cover_y[:, :, None] * cover_x[:, None, :])
    best, owner = cover.max(dim=0)
    index = torch.tensor([classes.index(obj.label) + 1 for obj in example.graph.objects])
    covered = best > _LEAST_COVER
    labels[covered] = index[owner[covered]]
    boxes[covered] = torch.from_numpy(unit_N4).float()[owner[covered]]
    return labels.flatten(), boxes.reshape(-1, 4)


def warm_up_vision(
    model,
    processor,
    examples: Sequence[Example],
    steps: int = 300,
    batch_size: int = 64,
    bins: int = 25,
    learning_rate: float = 2e-3,
    seed: int = 0,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train ``model``'s vision tower in place on dense targets; the heads used for it are thrown away.

    Args:
        examples: images with boxes; all classes that occur in them become classes of the warm-up.
        bins: number of intervals a side of the image is cut into; best is the number of quantisation steps.
        progress: called after each step with the step's number and its metrics.

    Returns:
        The last step's metrics: ``class_loss``, ``box_l1`` (mean absolute error, share of the image), ``accuracy``.

    Raises:
        UserError: there is no example, or none has an object.
    """
    classes = sorted({obj.label for example in examples for obj in example.graph.objects})
    if not classes:
        raise UserError("the vision warm-up needs examples with objects; there are none")
    tower = model.model.visual
    merge = processor.image_processor.merge_size
    metrics: dict[str, float] = {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        width = model.config.text_config.hidden_size
        class_head, box_head = nn.Linear(width, len(classes) + 1), nn.Linear(width, 4 * (bins + 1))
        learner = nn.ModuleDict({"tower": tower, "class_head": class_head, "box_head": box_head})
        optimizer = torch.optim.AdamW(learner.parameters(), lr=learning_rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step + 1, steps))
        rng = random.Random(seed)
        for step in range(1, steps + 1):
            batch = [examples[rng.randrange(len(examples))] for _ in range(batch_size)]
            inputs = processor.image_processor(images=[open_image(e) for e in batch], return_tensors="pt")
            grids = inputs["image_grid_thw"]
            targets = [
                cell_targets(example, classes, (int(w) // merge, int(h) // merge))
                for example, (_, h, w) in zip(batch, grids.tolist(), strict=True)
            ]
            labels, boxes = torch.cat([t[0] for t in targets]), torch.cat([t[1] for t in targets])
            features = tower(inputs["pixel_values"], grid_thw=grids).pooler_output
            class_logits, bin_logits = class_head(features), box_head(features).unflatten(-1, (4, bins + 1))
            covered = labels > 0
            class_loss = F.cross_entropy(class_logits, labels)
            targets_C4 = (boxes[covered] * bins).round().long()
            box_loss = F.cross_entropy(bin_logits[covered].flatten(0, 1), targets_C4.flatten(), reduction="sum")
            (class_loss + box_loss / max(1, targets_C4.numel())).backward()
            torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            metrics = {
                "class_loss": class_loss.item(),
                "box_l1": _mean((bin_logits[covered].argmax(-1) - targets_C4).abs() / bins),
                "accuracy": (class_logits.argmax(-1) == labels).float().mean().item(),
            }
            if progress:
                progress(step, metrics)
    return metrics


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate in a step: a rise over 30 steps, then half a cosine down to 5 %."""
    return min(1.0, step / 30) * (0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.05)


def _mean(values: torch.Tensor) -> float:
    return values.mean().item() if values.numel() else 0.0
