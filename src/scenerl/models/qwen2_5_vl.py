"""Qwen2.5-VL (Bai et al. 2025): Qwen2-VL's input, but boxes in pixels of the resized input.

Boxes: absolute coordinates at the size that the model sees (arXiv 2502.13923, section 2.1.2), so that what a number
means depends on the pixel bounds: training and prediction must be given the same.
"""

from __future__ import annotations

from dataclasses import replace

from scenerl.models import qwen2_vl

FAMILY = replace(
    qwen2_vl.FAMILY,
    model_type="qwen2_5_vl",
    box_format="resized",
)
