"""One policy update with shared prompts against TRL's own trainer: time, memory, and the limit by counted operations.

    OMP_NUM_THREADS=1 python bench/update.py [--family qwen2_vl qwen3_5] [--group 8 16] [--completion 240 524]
        [--rounds 2] [--smoke]

Needs the package with its extra `train`; no checkpoint, no data. An update is the loss of one group and its backward
pass, by the trainers' own code, on a model small enough for a CPU (text 128 wide, vision 256 wide, 4 layers each, of
Qwen3.5's text layers three with linear attention) at the shape of R1-SGG: 512 image tokens and 1,131 of text,
completions evenly from half to one and a half times the mean. Qwen2-VL shares prompts both ways, packed and by cache.
Every update runs in a fresh copy of the process (Linux), the sides in turns; the best round counts, and loss and
gradients are compared. Memory is the peak of the copy over what it held before the update. Times are CPU time. The
limit is the number of operations of TRL's rows (padded, all pairs of tokens, head on every position, as it runs them
here) over the number that is needed (every prefix and image once, no padding, visible pairs, head where a token is
scored); Qwen3.5's are not counted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or it complains of the copies

import numpy as np
import torch
from common import print_conditions, print_head, print_row
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from scenerl.tiny.architectures import ARCHITECTURES, TinyShape, build_model
from scenerl.tiny.tokenizer import build_tokenizer, chat_template
from scenerl.training.shared_prefix.trainer import SharedPrefixGRPOTrainer

PACKAGES = ("torch", "transformers", "trl")
CLASSES = {"TRL": GRPOTrainer, "SceneRL": SharedPrefixGRPOTrainer}
WAYS = {"qwen2_vl": ("packed", "by cache"), "qwen3_5": ("by cache",)}
"""How a family's groups share their prompt; what its trainer takes comes first."""
SMALL = ARCHITECTURES["qwen2_vl"]
SHAPE = TinyShape(text_width=128, text_layers=4, vision_width=256, vision_layers=4, max_pixels=1024 * 1024)
VOCABULARY = 2000
TOLERANCE = 1e-5  # of loss and gradient


@dataclass(frozen=True)
class Setting:
    """What an update or a step runs on; tokens, and the image in patches, of which four make a token."""

    group: int = 8
    mean: int = 240
    groups: int = 1
    text: int = 1131
    grid: tuple[int, int, int] = (1, 32, 64)

    @property
    def image(self) -> int:
        return self.grid[1] * self.grid[2] // 4

    @property
    def prompt(self) -> int:
        return self.text + self.image

    @property
    def lengths(self) -> list[int]:
        """Of the completions of each group."""
        return [round(self.mean * (0.5 + index / (self.group - 1))) for index in range(self.group)]


SMOKE = {"text": 16, "grid": (1, 4, 4)}


def use_one_thread() -> str:
    """One thread unless OMP_NUM_THREADS says otherwise; how times are taken, in words."""
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    torch.set_num_threads(threads)
    return f"CPU time, {threads} thread{'s' * (threads > 1)}"


def small_tokenizer():
    """2,000 tokens, among them every number below 100."""
    text = "".join(f"word{number:04d} " for number in range(VOCABULARY))
    return build_tokenizer([text], range(100), vocab_size=VOCABULARY)


def build(kind: str, folder: str, rewards=None, dataset=None, model=None, family="qwen2_vl", **settings):
    """A trainer with a family's small model, or another; without rewards and data one whose updates are fed by hand."""
    tokenizer = small_tokenizer()
    plain = {
        "per_device_train_batch_size": 2, "num_generations": 2, "beta": 0.0, "bf16": False, "use_cpu": True,
        "gradient_checkpointing": False, "report_to": "none",
    }  # fmt: skip
    trainer = CLASSES[kind](
        model=model or build_model(family, tokenizer, SHAPE),
        reward_funcs=rewards or [lambda completions, **_: [0.0] * len(completions)],
        args=GRPOConfig(output_dir=folder, **{**plain, **settings}),
        train_dataset=dataset or Dataset.from_dict({"prompt": ["unused"] * 2}),
        processing_class=SMALL.build_processor(
            SMALL.build_images(SHAPE), tokenizer, chat_template=chat_template(SMALL)
        ),
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer._is_checked = True  # the self-check of a run's first step is no part of the others
    trainer.model.train()
    return trainer


def batch_of(config, setting: Setting) -> dict:
    """Groups as TRL's rollout leaves them."""
    generator = torch.Generator().manual_seed(0)
    lengths, patches = setting.lengths * setting.groups, setting.grid[1] * setting.grid[2]
    size, longest = len(lengths), max(lengths)

    def text(length: int) -> torch.Tensor:
        return torch.randint(len(SMALL.special_tokens), config.text_config.vocab_size, (length,), generator=generator)

    image = torch.full((setting.image,), config.image_token_id)
    start, end = torch.tensor([config.vision_start_token_id]), torch.tensor([config.vision_end_token_id])
    prompts = [torch.cat([text(4), start, image, end, text(setting.text - 6)]) for _ in range(setting.groups)]
    pixels = [torch.randn(patches, 3 * 2 * 14 * 14, generator=generator) for _ in prompts]
    prompt_ids = torch.stack(prompts).repeat_interleave(setting.group, dim=0)
    mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    types = torch.zeros(size, setting.prompt + longest, dtype=torch.int)
    types[:, : setting.prompt] = (prompt_ids == config.image_token_id).int()
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": torch.ones_like(prompt_ids),
        "completion_ids": torch.stack([text(longest) for _ in lengths]) * mask,
        "completion_mask": mask.long(),
        "advantages": torch.linspace(-1, 1, size),
        "num_items_in_batch": mask.sum(),
        "pixel_values": torch.cat([part for own in pixels for part in [own] * setting.group]),
        "image_grid_thw": torch.tensor([setting.grid] * size),
        "num_images": [1] * size,
        "mm_token_type_ids": types,
    }


def update(trainer, batch: dict) -> tuple[float, float]:
    """CPU seconds and loss of one update; it leaves its gradients."""
    trainer.model.zero_grad()
    started = time.process_time()
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    return time.process_time() - started, loss.item()


def gradient(trainer) -> np.ndarray:
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]).numpy()


def compare(ours: tuple[float, np.ndarray], theirs: tuple[float, np.ndarray]) -> None:
    """End the run unless losses and gradients are the same."""
    error = np.linalg.norm(ours[1] - theirs[1]) / np.linalg.norm(theirs[1])
    if not (abs(ours[0] - theirs[0]) <= TOLERANCE and error <= TOLERANCE):
        sys.exit(f"not the same update: loss {ours[0]} against {theirs[0]}, gradient off by {error:.2g}")


def operations(config, setting: Setting, shared: bool) -> float:
    """Multiplications and additions of a forward pass: of shared rows, or of TRL's."""
    text, vision = config.text_config, config.vision_config
    lengths, patches = setting.lengths, setting.grid[1] * setting.grid[2]
    width, kv = text.hidden_size, text.hidden_size * text.num_key_value_heads // text.num_attention_heads
    token = 2 * (2 * width * width + 2 * width * kv + 3 * width * text.intermediate_size)
    inner = vision.embed_dim * vision.spatial_merge_size**2
    image = 2 * patches * 3 * vision.temporal_patch_size * vision.patch_size**2 * vision.embed_dim
    image += vision.depth * 2 * patches * (4 + 2 * vision.mlp_ratio) * vision.embed_dim**2
    image += vision.depth * 4 * patches**2 * vision.embed_dim
    image += 2 * patches // vision.spatial_merge_size**2 * (inner * inner + inner * width)
    if shared:
        prefix = setting.prompt - 1
        tokens, scored, images = prefix + sum(lengths), sum(lengths), 1
        pairs = prefix * (prefix + 1) / 2 + sum(n * prefix + n * (n + 1) / 2 for n in lengths)
    else:
        size, row = len(lengths), setting.prompt + max(lengths)
        tokens, scored, images, pairs = size * row, size * (row - 1), size, size * row**2
    layers = text.num_hidden_layers * (tokens * token + 4 * pairs * width)
    return setting.groups * (images * image + layers + 2 * scored * width * text.vocab_size)


def measure(trainer, setting: Setting) -> tuple[float, float, float, np.ndarray]:
    """Seconds, MiB, loss and gradient of one update."""
    config = trainer.model.config
    update(trainer, batch_of(config, Setting(2, 4, **SMOKE)))  # what is done once, at first use
    batch = batch_of(config, setting)
    # the resident size is also the peak so far, once the peak is forgotten
    with open("/proc/self/statm", encoding="ascii") as file:
        before = int(file.read().split()[1]) * resource.getpagesize()
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    seconds, loss = update(trainer, batch)
    with open("/proc/self/status", encoding="ascii") as file:
        peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    return seconds, (peak - before) / 2**20, loss, gradient(trainer)


def in_copy(trainer, setting: Setting) -> tuple[float, float, float, np.ndarray]:
    """:func:`measure` in a copy of this process as it is now."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(measure(trainer, setting)))
    process.start()
    sender.close()  # so that the end of a copy that breaks is noticed
    try:
        return receiver.recv()
    except EOFError:
        sys.exit(f"the update of {type(trainer).__name__} broke (of memory it may have wanted too much)")
    finally:
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--group", type=int, nargs="+", default=[8, 16], help="completions of the prompt")
    parser.add_argument("--completion", type=int, nargs="+", default=[240, 524], help="their mean length in tokens")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--smoke", action="store_true", help="a few tokens: that it runs, no figures worth keeping")
    options = parser.parse_args()
    if options.smoke:
        options.group, options.completion, options.rounds = [2], [4], 1
    print_conditions(use_one_thread(), PACKAGES)
    print_head(
        "family", "shared", "G", "mean length", "TRL", "SceneRL", "faster", "limit", "reached", "memory TRL",
        "memory SceneRL", "share", left=2,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for family in options.family:
            trainers = {"TRL": build("TRL", folder, family=family)}
            for way in WAYS[family]:
                trainers[way] = build("SceneRL", folder, family=family)
                trainers[way]._packs = way == "packed"
            for group in options.group:
                for mean in options.completion:
                    setting = Setting(group, mean, **(SMOKE if options.smoke else {}))
                    compare_ways(family, trainers, setting, options.rounds)


def compare_ways(family: str, trainers: dict, setting: Setting, rounds: int) -> None:
    """Print a row for each way in which a family shares prompts."""
    found = [{kind: in_copy(trainer, setting) for kind, trainer in trainers.items()} for _ in range(rounds)]
    seconds = {kind: min(round_[kind][0] for round_ in found) for kind in trainers}
    memory = {kind: min(round_[kind][1] for round_ in found) for kind in trainers}
    limit = None
    if family == "qwen2_vl":
        config = trainers["TRL"].model.config
        limit = operations(config, setting, shared=False) / operations(config, setting, shared=True)
    for way in WAYS[family]:
        compare(found[0][way][2:], found[0]["TRL"][2:])
        faster = seconds["TRL"] / seconds[way]
        print_row(
            family, way, setting.group, setting.mean, f"{seconds['TRL']:.2f} s", f"{seconds[way]:.2f} s",
            f"{faster:.1f}", f"{limit:.1f}" if limit else "", f"{faster / limit:.2f}" if limit else "",
            f"{memory['TRL']:.0f} MiB", f"{memory[way]:.0f} MiB",
            f"{memory[way] / memory['TRL']:.2f}" if memory["TRL"] else "",
        )  # fmt: skip


if __name__ == "__main__":
    main()
