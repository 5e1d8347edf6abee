"""Shapes of models and speeds of GPUs: what the estimates of :mod:`scenerl.launch.plan` start from.

Shapes are those of the released ``config.json`` files. ``tests/launch`` builds each architecture from its shape on
torch's meta device, with the classes of transformers, and compares the number of parameters with what is computed here.
Speeds are the makers' figures: dense bfloat16 without sparsity, and the bandwidth of the GPU's own memory.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelSize:
    """The shape of a vision-language model of the Qwen-VL line.

    Attributes:
        model_type: as in ``config.json``.
        layers, width, intermediate, heads, kv_heads: of the language model.
        vocab: rows of the embedding.
        tied: whether the head shares the embedding's weights.
        vision_layers, vision_width, vision_intermediate: of the vision tower, on patches of 14 x 14 pixels.
        gated_vision: whether its MLPs have three matrices without a second norm's bias (Qwen2.5-VL) or two with biases.
    """

    model_type: str
    layers: int
    width: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int
    tied: bool
    vision_layers: int
    vision_width: int
    vision_intermediate: int
    gated_vision: bool

    @property
    def embedding(self) -> int:
        """Parameters of the embedding."""
        return self.vocab * self.width

    @property
    def layer_parameters(self) -> int:
        """Parameters of the language model without embedding and head."""
        head = self.width // self.heads
        attention = 2 * self.width * self.width + 2 * self.width * self.kv_heads * head  # q and o, k and v
        attention += self.width + 2 * self.kv_heads * head  # biases of q, k and v
        return self.layers * (attention + 3 * self.width * self.intermediate + 2 * self.width) + self.width

    @property
    def vision_parameters(self) -> int:
        """Parameters of the vision tower with its merger, which makes one token of 2 x 2 patches."""
        wide, deep = self.vision_width, self.vision_intermediate
        attention = 4 * wide * wide + 4 * wide  # with biases
        if self.gated_vision:  # RMS norms; gate, up and down with biases
            block = attention + 3 * wide * deep + 2 * deep + wide + 2 * wide
            norm = wide
        else:  # layer norms; two matrices with biases
            block = attention + 2 * wide * deep + deep + wide + 4 * wide
            norm = 2 * wide
        patches = 3 * 2 * 14 * 14 * wide
        merger = norm + (4 * wide) * (4 * wide) + 4 * wide + 4 * wide * self.width + self.width
        return patches + self.vision_layers * block + merger

    @property
    def parameters(self) -> int:
        """All parameters; a tied head is counted once."""
        return self.layer_parameters + self.vision_parameters + self.embedding * (1 if self.tied else 2)

    @property
    def kv_bytes(self) -> int:
        """Bytes of one token in the key-value cache, in 16 bits."""
        return 2 * 2 * self.layers * self.kv_heads * (self.width // self.heads)


MODELS: dict[str, ModelSize] = {
    "Qwen/Qwen2-VL-2B-Instruct": ModelSize(
        "qwen2_vl", 28, 1536, 8960, 12, 2, 151936, True, 32, 1280, 5120, gated_vision=False
    ),
    "Qwen/Qwen2-VL-7B-Instruct": ModelSize(
        "qwen2_vl", 28, 3584, 18944, 28, 4, 152064, False, 32, 1280, 5120, gated_vision=False
    ),
    "Qwen/Qwen2.5-VL-3B-Instruct": ModelSize(
        "qwen2_5_vl", 36, 2048, 11008, 16, 2, 151936, True, 32, 1280, 3420, gated_vision=True
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": ModelSize(
        "qwen2_5_vl", 28, 3584, 18944, 28, 4, 152064, False, 32, 1280, 3420, gated_vision=True
    ),
}
"""Hub name to shape."""

SHORT_NAMES = {
    "qwen2vl2b": "Qwen/Qwen2-VL-2B-Instruct",
    "qwen2vl7b": "Qwen/Qwen2-VL-7B-Instruct",
    "qwen25vl3b": "Qwen/Qwen2.5-VL-3B-Instruct",
    "qwen25vl7b": "Qwen/Qwen2.5-VL-7B-Instruct",
}
"""What recipes' names call them; a recipe that starts from another's output has no hub name in it."""


def size_named(name: str) -> ModelSize | None:
    """The shape of a model by its hub name, or by the short name in that of a recipe's output; None: in no table."""
    if name in MODELS:
        return MODELS[name]
    words = f"_{name.rpartition('/')[2]}_"
    return next((MODELS[hub] for short, hub in SHORT_NAMES.items() if f"_{short}_" in words), None)


@dataclass(frozen=True)
class GPU:
    """Speeds of a GPU.

    Attributes:
        tflops: dense, in bfloat16.
        bandwidth: of its memory, GB/s.
        link: to the other GPUs of its machine, GB/s in each direction.
    """

    tflops: float
    bandwidth: float
    link: float


GPUS: dict[str, GPU] = {
    "rtx-3090": GPU(71, 936, 10),
    "rtx-4090": GPU(165, 1008, 10),
    "a100-80gb": GPU(312, 2039, 300),
    "h100-80gb": GPU(989, 3350, 450),
    "gh200": GPU(989, 4000, 450),
}
"""Name to speeds, from NVIDIA's data sheets (GeForce: tensor cores that add up in 32 bits). GeForce cards reach each
other through the host; 10 GB/s is an assumption, a third of what PCIe 4.0 x16 has."""
