"""One policy update at the real size on a GPU, with shared prompts and with TRL's own trainer: time, memory, MFU.

    python bench/gpu.py [--group 8 16] [--completion 240 524] [--rounds 3] [--attention batched flex]
                        [--trl_attention sdpa] [--smoke]

Needs a source checkout, torch with a GPU, transformers and TRL; no checkpoint, no data. The model is Qwen2-VL-2B's
configuration with random weights in bfloat16, under gradient checkpointing; the shape is R1-SGG's, as in
bench/update.py, with whose counts of operations MFU is computed: three times those of the forward pass that is needed
(each image and prompt once, no padding; what checkpointing computes again does not count), over the time and the rate
of a large matrix product on the same GPU in the same run. Times are wall time of a whole update between two
synchronisations, the best round counts; memory is the most that torch held during it over what it held before. On both
sides the loss and the norm of the gradient are printed, which agree as far as bfloat16 goes.

Our side runs with each kind of attention over the packed row: `batched`, the package's, makes the suffixes a batch of
SDPA; `flex` is one call of FlexAttention, compiled for the row's block mask. The faster one should be the package's.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from dataclasses import dataclass

import torch
from common import print_conditions, print_head, print_row
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from update import PACKAGES, SMALL, SMOKE, Setting, batch_of, build, operations, small_tokenizer

from scenerl.training.shared_prefix import attention


@dataclass(frozen=True)
class ModelSize:
    """The shape of a Qwen2-VL: language model, then vision tower."""

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


RELEASED = ModelSize(28, 1536, 8960, 12, 2, 151936, True, 32, 1280, 5120)
"""Qwen/Qwen2-VL-2B-Instruct, from its config.json."""
TINY = ModelSize(2, 256, 512, 2, 1, 2048, True, 2, 128, 512)


def config_of(size: ModelSize) -> Qwen2VLConfig:
    """The released configuration's sizes, with the special tokens of the small tokenizer."""
    ids = dict(zip(SMALL.special_tokens, small_tokenizer().convert_tokens_to_ids(SMALL.special_tokens), strict=True))
    return Qwen2VLConfig(
        text_config={
            "vocab_size": size.vocab,
            "hidden_size": size.width,
            "intermediate_size": size.intermediate,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.kv_heads,
            "max_position_embeddings": 32768,
            "rope_parameters": {"type": "mrope", "rope_type": "default", "mrope_section": [16, 24, 24],
                                "rope_theta": 1e6},
            "tie_word_embeddings": size.tied,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        vision_config={
            "depth": size.vision_layers,
            "embed_dim": size.vision_width,
            "hidden_size": size.width,
            "num_heads": size.vision_width // (80 if size.vision_width % 80 == 0 else 32),
            "mlp_ratio": size.vision_intermediate // size.vision_width,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=size.tied,
    )  # fmt: skip


class FlexAttention:
    """Attention over a packed row by FlexAttention, with the signature of `packed_attention`.

    It has no backward pass on a CPU: there, for the smoke test, the same visibility is a mask for SDPA.
    """

    def __init__(self, device: str) -> None:
        self.device, self.groups, self.mask = device, None, None
        self.attend = torch.compile(flex_attention, dynamic=True)

    def __call__(self, query, key, value, groups, scale):
        if groups != self.groups:  # the same for all layers of a row
            self.groups, self.mask = groups, self.mask_of(groups)
        settings = {"scale": scale, "enable_gqa": query.shape[1] != key.shape[1]}
        if self.device == "cpu":
            return scaled_dot_product_attention(query, key, value, attn_mask=self.mask, **settings)
        return self.attend(query, key, value, block_mask=self.mask, **settings)

    def mask_of(self, groups):
        """A token sees its group's prefix and its own suffix, up to itself."""
        group_of, part_of = [], []
        for number, group in enumerate(groups):
            for part, size in enumerate((group.prefix, *group.suffixes)):
                group_of += [number] * size
                part_of += [part] * size
        of_group, of_part = (torch.tensor(values, device=self.device) for values in (group_of, part_of))

        def visible(batch, head, row, column):
            part = of_part[column]
            same = (of_group[row] == of_group[column]) & ((part == 0) | (part == of_part[row]))
            return same & (row >= column)

        create = create_mask if self.device == "cpu" else create_block_mask
        return create(visible, None, None, len(group_of), len(group_of), device=self.device)


def synchronised(device: str) -> float:
    """The time when the device has done everything asked of it."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def matrix_rate(device: str, side: int) -> float:
    """Multiplications and additions a second of a bfloat16 matrix product, the best of ten."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        started = synchronised(device)
        a @ b
        best = min(best, synchronised(device) - started)
    return 2 * side**3 / best


def held(device: str) -> float:
    return torch.cuda.memory_allocated() / 2**30 if device == "cuda" else 0.0


def measure(kind: str, packed, device: str, size: ModelSize, settings: list[Setting], options) -> list[tuple]:
    """Of each setting: seconds and GiB of the best update, loss, norm of the gradient. None: out of memory."""
    torch.manual_seed(0)
    found = []
    attention.packed_attention = packed
    with torch.device(device):
        model = Qwen2VLForConditionalGeneration(config_of(size)).to(torch.bfloat16)
        model.set_attn_implementation(options.trl_attention if kind == "TRL" else "sdpa")
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(kind, folder, model=model, use_cpu=device == "cpu", bf16=True, gradient_checkpointing=True)
        for setting in settings:
            batch = {key: value.to(device) if isinstance(value, torch.Tensor) else value
                     for key, value in batch_of(model.config, setting).items()}  # fmt: skip
            best, most = float("inf"), 0.0
            try:
                for _ in range(1 + options.rounds):  # the first warms up
                    model.zero_grad()
                    before = held(device)
                    if device == "cuda":
                        torch.cuda.reset_peak_memory_stats()
                    started = synchronised(device)
                    loss = trainer._compute_loss(trainer.model, dict(batch))
                    loss.backward()
                    best = min(best, synchronised(device) - started)
                    if device == "cuda":
                        most = torch.cuda.max_memory_allocated() / 2**30 - before
                norm = torch.stack([p.grad.float().norm() for p in model.parameters() if p.grad is not None]).norm()
                found.append((best, most, loss.item(), norm.item()))
            except torch.OutOfMemoryError:
                found.append(None)
    del trainer, model
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--group", type=int, nargs="+", default=[8, 16], help="completions of the prompt")
    parser.add_argument("--completion", type=int, nargs="+", default=[240, 524], help="their mean length in tokens")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--attention", nargs="+", choices=["batched", "flex"], default=["batched", "flex"])
    parser.add_argument("--trl_attention", default="sdpa", help="attention of TRL's side: sdpa, flash_attention_2 …")
    parser.add_argument("--smoke", action="store_true", help="a few tokens of a tiny model, a CPU will do")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.smoke:
        sys.exit("no GPU here; --smoke only shows that the script runs")
    if options.smoke:
        options.group, options.completion, options.rounds = [2], [4], 1
    if device == "cpu":
        torch.set_num_threads(1)
    size = TINY if options.smoke else RELEASED
    rate = matrix_rate(device, 256 if options.smoke else 8192)
    clock = "wall time, 1 thread"
    if device == "cuda":
        clock = f"{torch.cuda.get_device_name()}, {rate / 1e12:.0f} TFLOP/s in a bfloat16 matrix product, wall time"
    print_conditions(clock, PACKAGES)
    print_head(
        "attention", "G", "mean length", "TRL", "SceneRL", "faster", "MFU TRL", "MFU SceneRL", "memory TRL",
        "memory SceneRL", "loss", "gradient", left=1,
    )  # fmt: skip
    small = SMOKE if options.smoke else {}
    settings = [Setting(group, mean, **small) for group in options.group for mean in options.completion]
    kinds = {"batched": attention.portable_attention, "flex": FlexAttention(device)}
    theirs = measure("TRL", kinds["batched"], device, size, settings, options)
    for name in options.attention:
        for setting, trl, own in zip(
            settings, theirs, measure("SceneRL", kinds[name], device, size, settings, options), strict=True
        ):
            needed = 3 * operations(config_of(size), setting, shared=True)
            seconds = ["out of memory" if side is None else f"{side[0]:.3f} s" for side in (trl, own)]
            mfu = ["" if side is None else f"{needed / side[0] / rate:.3f}" for side in (trl, own)]
            memory = ["" if side is None else f"{side[1]:.2f} GiB" for side in (trl, own)]
            faster = "" if None in (trl, own) else f"{trl[0] / own[0]:.1f}"
            agree = ["" if None in (trl, own) else f"{trl[n]:.5f}, {own[n]:.5f}" for n in (2, 3)]
            print_row(name, setting.group, setting.mean, *seconds, faster, *mfu, *memory, *agree)


if __name__ == "__main__":
    main()
