"""Qwen3-VL (Bai et al. 2025): Qwen2-VL's input in patches of 16, and features of several layers of the tower.

Frame: integers 0-1000 relative to the image again (arXiv 2511.21631, section on grounding; the model's cookbook).
"""

from __future__ import annotations

from dataclasses import replace

from scenerl.models import qwen2_vl

FAMILY = replace(
    qwen2_vl.FAMILY,
    model_type="qwen3_vl",
    fsdp_wrap=("Qwen3VLTextDecoderLayer", "Qwen3VLVisionBlock"),
)
