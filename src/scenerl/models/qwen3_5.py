"""Qwen3.5 (Qwen team 2026), dense: Qwen3-VL's input and a language model whose layers are mostly linear attention.

Boxes: integers 0-1000 relative to the image, as Qwen3-VL.
"""

from __future__ import annotations

from dataclasses import replace

from scenerl.models import qwen2_vl
from scenerl.models.processors import lora_targets, without_thinking

FAMILY = replace(
    qwen2_vl.FAMILY,
    model_type="qwen3_5",
    lora_targets=lora_targets("language_model", r"linear_attn\.(in_proj_qkv|in_proj_z|in_proj_b|in_proj_a|out_proj)"),
    load_processor=without_thinking(qwen2_vl.load_processor),
)
