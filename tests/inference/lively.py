"""An untrained checkpoint whose answers differ from image to image and end at different lengths."""

from __future__ import annotations

from pathlib import Path

import torch

from scenerl.models.loading import load
from training.small_run import save_base


def save_lively(folder: Path, examples) -> Path:
    """A checkpoint as :func:`training.small_run.save_base` makes it, with weights so large that every input counts.

    The usual small ones repeat one token whatever the image, and many tokens are nearly equally likely, so that two
    engines could agree or differ by chance.
    """
    save_base(folder, examples)
    model = load(folder, dtype="float32").model
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim >= 2:
                weights.copy_(torch.randn(weights.shape, generator=generator) * 0.12)
    model.save_pretrained(folder)
    return folder
