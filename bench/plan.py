"""What `scenerl plan` computes against what small models do: parameters, operations, kept activations, time.

    OMP_NUM_THREADS=1 python bench/plan.py [--tokens 256] [--rounds 3] [--smoke]

Needs the package with its extra `train`; no checkpoint, no data. Qwen2-VL and Qwen2.5-VL architectures small enough for
a CPU, with random weights. Operations are counted by torch's counter while forward and backward run; kept activations
are the tensors that autograd saves, without weights, each storage once; both are the same on every machine. Time is CPU
time of a forward and backward pass, the best of the rounds; the last column says how it grows against the formula: the
model with the most operations over the one with the fewest, divided by the same ratio of the formula.
"""

from __future__ import annotations

import argparse
import time

import torch
from common import print_conditions, print_head, print_row
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig, Qwen2VLConfig

from scenerl.launch.costs import forward_flops, layer_bytes
from scenerl.launch.sizes import ModelSize

PACKAGES = ("torch", "transformers")
SIZES = {
    "small": ModelSize("qwen2_vl", 2, 128, 512, 4, 2, 1000, True, 2, 64, 256, gated_vision=False),
    "wide": ModelSize("qwen2_vl", 2, 256, 1024, 8, 2, 1000, True, 2, 128, 512, gated_vision=False),
    "deep": ModelSize("qwen2_vl", 6, 128, 512, 4, 2, 1000, True, 6, 64, 256, gated_vision=False),
    "small 2.5": ModelSize("qwen2_5_vl", 2, 128, 512, 4, 2, 1000, True, 2, 64, 192, gated_vision=True),
    "wide 2.5": ModelSize("qwen2_5_vl", 4, 256, 1024, 8, 4, 1000, False, 4, 128, 384, gated_vision=True),
}
GRID = (1, 16, 16)  # patches; four make a token


def build(size: ModelSize, attention: str = "sdpa", device: str = "cpu"):
    """A model of this shape with random weights, by the classes of transformers."""
    text = {
        "hidden_size": size.width, "num_hidden_layers": size.layers, "intermediate_size": size.intermediate,
        "num_attention_heads": size.heads, "num_key_value_heads": size.kv_heads, "vocab_size": size.vocab,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": _sections(size)},
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    if size.gated_vision:
        vision = {
            "depth": size.vision_layers, "hidden_size": size.vision_width, "num_heads": 16 if device == "meta" else 2,
            "intermediate_size": size.vision_intermediate, "out_hidden_size": size.width,
            "fullatt_block_indexes": list(range(size.vision_layers)),
        }  # fmt: skip
        kind = Qwen2_5_VLConfig
    else:
        vision = {
            "depth": size.vision_layers, "embed_dim": size.vision_width, "num_heads": 16 if device == "meta" else 2,
            "mlp_ratio": size.vision_intermediate // size.vision_width, "hidden_size": size.width,
        }  # fmt: skip
        kind = Qwen2VLConfig
    ids = {"image_token_id": 3, "video_token_id": 4, "vision_start_token_id": 5, "vision_end_token_id": 6}
    config = kind(text_config=text, vision_config=vision, tie_word_embeddings=size.tied, **ids)
    config._attn_implementation = attention
    with torch.device(device):
        torch.manual_seed(0)
        return AutoModelForImageTextToText.from_config(config)


def _sections(size: ModelSize) -> list[int]:
    half = size.width // size.heads // 2
    return [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]


def inputs_for(size: ModelSize, tokens: int) -> dict[str, torch.Tensor]:
    """One row: an image and text, ``tokens`` in all."""
    num_image = GRID[1] * GRID[2] // 4
    ids = torch.cat([torch.tensor([5]), torch.full((num_image,), 3), torch.arange(tokens - num_image - 1) % 900 + 50])
    pixels = torch.randn(GRID[1] * GRID[2], 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(0))
    return {
        "input_ids": ids[None],
        "attention_mask": torch.ones(1, tokens, dtype=torch.long),
        "mm_token_type_ids": (ids == 3).long()[None],
        "pixel_values": pixels,
        "image_grid_thw": torch.tensor([GRID]),
    }


def counted_flops(size: ModelSize, tokens: int) -> tuple[int, int]:
    """Operations of a forward pass and of a backward pass. Attention is written out, so that all pairs are counted."""
    model, inputs = build(size, "eager"), inputs_for(size, tokens)
    with FlopCounterMode(display=False) as forward:
        loss = model(**inputs, labels=inputs["input_ids"]).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def formula_flops(size: ModelSize, tokens: int) -> float:
    """The formula for all pairs of tokens: half of them, as it is meant, of a row twice as long."""
    return forward_flops(size, tokens, GRID[1] * GRID[2] // 4, tokens, 2 * tokens)


def kept_bytes(size: ModelSize, tokens: int) -> int:
    """Bytes that autograd saves in a forward pass, weights left out."""
    model, inputs = build(size), inputs_for(size, tokens)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes(), tensor  # kept alive, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(**inputs, labels=inputs["input_ids"])
    return sum(nbytes for nbytes, _ in kept.values())


def kept_per_layer(size: ModelSize, tokens: int) -> float:
    """Bytes that one more layer of the language model keeps."""
    from dataclasses import replace

    return (kept_bytes(replace(size, layers=size.layers + 2), tokens) - kept_bytes(size, tokens)) / 2


def seconds(size: ModelSize, tokens: int, rounds: int) -> float:
    model, inputs = build(size), inputs_for(size, tokens)
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    options = parser.parse_args()
    tokens = 96 if options.smoke else options.tokens
    torch.set_num_threads(1)
    print_conditions("CPU time, one thread", PACKAGES)
    print_head(
        "model", "parameters", "of formula", "forward", "of formula", "backward", "of forward", "kept / layer",
        "of formula", "seconds", "per operation", left=1,
    )  # fmt: skip
    base = None
    for name, size in SIZES.items() if not options.smoke else [("small", SIZES["small"])]:
        parameters = sum(parameter.numel() for parameter in build(size).parameters())
        forward, backward = counted_flops(size, tokens)
        kept = kept_per_layer(size, tokens)
        took = seconds(size, tokens, options.rounds)
        rate = took / formula_flops(size, tokens)
        base = base or rate
        print_row(
            name, f"{parameters:,}", f"{parameters / size.parameters:.3f}", f"{forward / 1e9:.3f} G",
            f"{forward / formula_flops(size, tokens):.3f}", f"{backward / 1e9:.3f} G", f"{backward / forward:.2f}",
            f"{kept / 2**20:.2f} MiB", f"{kept / layer_bytes(size, tokens, 4):.2f}", f"{took:.3f}",
            f"{rate / base:.2f}",
        )  # fmt: skip


if __name__ == "__main__":
    main()
