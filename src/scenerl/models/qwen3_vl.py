"""Qwen3-VL (Bai et al. 2025): Qwen2-VL's input in patches of 16, and features of several layers of the tower.

Boxes: integers 0-1000 relative to the image again (the model's cookbook of 2-D grounding).
"""

from __future__ import annotations

from dataclasses import replace

from scenerl.models import qwen2_vl

FAMILY = replace(qwen2_vl.FAMILY, model_type="qwen3_vl")
