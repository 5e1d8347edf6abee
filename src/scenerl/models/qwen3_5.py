"""Qwen3.5 (Qwen team 2026), dense: Qwen3-VL's input and a language model whose layers are mostly linear attention.

Frame: integers 0-1000 relative to the image, as Qwen3-VL. Its chat template opens a passage of thinking, in the larger
models unless told otherwise. What a model may write before its answer is the response template's business here, so
thinking is off unless a call says ``enable_thinking=True``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from scenerl.models import qwen2_vl
from scenerl.models.processors import WithoutVideo, lora_targets

_NO_THINKING = "{%- set enable_thinking = enable_thinking | default(false) %}\n"


def load_processor(name: str | Path, *args, **kwargs) -> WithoutVideo:
    """As Qwen2-VL's; prompts end with an empty passage of thinking."""
    processor = qwen2_vl.load_processor(name, *args, **kwargs)
    template = processor.chat_template
    if "enable_thinking" in template and not template.startswith(_NO_THINKING):
        processor.chat_template = _NO_THINKING + template
    return processor


FAMILY = replace(
    qwen2_vl.FAMILY,
    model_type="qwen3_5",
    lora_targets=lora_targets("language_model", linear_attention=True),
    load_processor=load_processor,
)
