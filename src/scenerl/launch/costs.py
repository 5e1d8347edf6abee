"""What one row of tokens costs a model: operations, activations, adapters. ``bench/plan.py`` measures the same."""

from __future__ import annotations

from scenerl.launch.sizes import ModelSize

LAYER_WIDTHS, LAYER_INTERMEDIATES = 10, 4
"""Tensors of the model's width, and of its MLP's, that a layer keeps for its backward pass, per token."""


def forward_flops(size: ModelSize, text: float, image: float, scored: float, context: float) -> float:
    """Floating-point operations of one forward pass; a multiplication with its addition counts two.

    Args:
        text: tokens that the language model reads, image tokens among them.
        image: image tokens; the vision tower works on four patches for each, which all see each other.
        scored: tokens that the head is run on.
        context: tokens of a whole row; on average half of it is seen.
    """
    patches = 4 * image
    matrices = size.layer_parameters * text + size.embedding * scored + size.vision_parameters * patches
    attention = size.layers * size.width * text * context + 2 * size.vision_layers * size.vision_width * patches**2
    return 2 * (matrices + attention)


def layer_bytes(size: ModelSize, text: float, itemsize: int) -> float:
    """Bytes of activations that one layer of the language model keeps for its backward pass."""
    return text * (LAYER_WIDTHS * size.width + LAYER_INTERMEDIATES * size.intermediate) * itemsize


def lora_parameters(size: ModelSize, rank: int) -> int:
    """Parameters of adapters on every linear layer of the language model."""
    head = size.width // size.heads
    sides = 2 * 2 * size.width + 2 * (size.width + size.kv_heads * head) + 3 * (size.width + size.intermediate)
    return size.layers * rank * sides
