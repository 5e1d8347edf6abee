"""One policy update with shared prompts against TRL's own trainer: time, memory, and the limit by counted operations.

    OMP_NUM_THREADS=1 python bench/update.py [--group 8 16] [--completion 240 524] [--rounds 2]

Needs the package with its extra `train`; no checkpoint, no data. An update is the loss of one group and its backward
pass, by the trainers' own code, on a Qwen2-VL small enough for a CPU (text 128 wide, vision 256 wide, 4 layers each)
at the shape of R1-SGG: 512 image tokens and 1,131 of text, completions evenly from half to one and a half times the
mean. Both sides take turns in one process, the best round counts; loss and gradients are compared first. Memory is the
peak of a process of its own over what it held before the update. The limit is the number of operations of TRL's rows
(padded, all pairs of tokens, head on every position, as it runs them here) over the number that is needed (every
prefix and image once, no padding, visible pairs, head where a token is scored).
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from scenerl.models.tiny import SPECIAL_TOKENS, TinyShape, build_model, build_processor, build_tokenizer
from scenerl.training.shared_prefix import SharedPrefixGRPOTrainer

SHAPE = TinyShape(text_width=128, text_layers=4, vision_width=256, vision_layers=4)
GRID = (1, 32, 64)  # patches; four make a token
NUM_TEXT = 1131
VOCABULARY = 2000
CLASSES = {"TRL": GRPOTrainer, "SceneRL": SharedPrefixGRPOTrainer}


def build(kind: str, folder: str):
    tokenizer = build_tokenizer(
        [f"word{number:04d} " for number in range(VOCABULARY)], range(100), vocab_size=VOCABULARY
    )
    args = GRPOConfig(
        output_dir=folder, per_device_train_batch_size=2, num_generations=2, bf16=False, report_to="none", beta=0.0,
        gradient_checkpointing=False,
    )  # fmt: skip
    trainer = CLASSES[kind](
        model=build_model(tokenizer, SHAPE),
        reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
        args=args,
        train_dataset=Dataset.from_dict({"prompt": ["unused"] * 2}),
        processing_class=build_processor(tokenizer, SHAPE),
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer._is_checked = True
    trainer.model.train()
    return trainer


def lengths_of(group: int, mean: int) -> list[int]:
    return [round(mean * (0.5 + index / (group - 1))) for index in range(group)]


def group_of(config, lengths: list[int]) -> dict:
    """One group as TRL's rollout leaves it."""
    generator = torch.Generator().manual_seed(0)
    size, longest, (_, height, width) = len(lengths), max(lengths), GRID

    def text(length: int) -> torch.Tensor:
        return torch.randint(len(SPECIAL_TOKENS), config.text_config.vocab_size, (length,), generator=generator)

    image = torch.full((height * width // 4,), config.image_token_id)
    edges = torch.tensor([config.vision_start_token_id]), torch.tensor([config.vision_end_token_id])
    prompt = torch.cat([text(4), edges[0], image, edges[1], text(NUM_TEXT - 6)])
    mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    completions = torch.stack([text(longest) for _ in lengths]) * mask
    types = torch.zeros(size, len(prompt) + longest, dtype=torch.int)
    types[:, : len(prompt)] = (prompt == config.image_token_id).int()
    return {
        "prompt_ids": prompt.expand(size, -1),
        "prompt_mask": torch.ones(size, len(prompt), dtype=torch.long),
        "completion_ids": completions,
        "completion_mask": mask.long(),
        "advantages": torch.linspace(-1, 1, size),
        "num_items_in_batch": mask.sum(),
        "pixel_values": torch.randn(height * width, 3 * 2 * 14 * 14, generator=generator).repeat(size, 1),
        "image_grid_thw": torch.tensor([GRID] * size),
        "num_images": [1] * size,
        "mm_token_type_ids": types,
    }


def update(trainer, batch: dict) -> tuple[float, float, torch.Tensor]:
    """Seconds, loss and gradient of one update."""
    trainer.model.zero_grad()
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter  # waiting for a core is no work
    started = clock()
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    seconds = clock() - started
    gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
    return seconds, loss.item(), gradient.clone()


def operations(config, lengths: list[int], shared: bool) -> float:
    """Multiplications and additions of a forward pass: of shared rows, or of TRL's."""
    text, vision = config.text_config, config.vision_config
    prompt, patches = NUM_TEXT + GRID[1] * GRID[2] // 4, GRID[1] * GRID[2]
    width, kv = text.hidden_size, text.hidden_size * text.num_key_value_heads // text.num_attention_heads
    token = 2 * (2 * width * width + 2 * width * kv + 3 * width * text.intermediate_size)
    inner = vision.embed_dim * vision.spatial_merge_size**2
    image = 2 * patches * 3 * vision.temporal_patch_size * vision.patch_size**2 * vision.embed_dim
    image += vision.depth * 2 * patches * (4 + 2 * vision.mlp_ratio) * vision.embed_dim**2
    image += vision.depth * 4 * patches**2 * vision.embed_dim
    image += 2 * patches // vision.spatial_merge_size**2 * (inner * inner + inner * width)
    if shared:
        prefix = prompt - 1
        tokens, scored, images = prefix + sum(lengths), sum(lengths), 1
        pairs = prefix * (prefix + 1) / 2 + sum(n * prefix + n * (n + 1) / 2 for n in lengths)
    else:
        row = prompt + max(lengths)
        tokens, scored, images, pairs = (
            len(lengths) * row,
            len(lengths) * (row - 1),
            len(lengths),
            len(lengths) * row**2,
        )
    layers = text.num_hidden_layers * (tokens * token + 4 * pairs * width)
    return images * image + layers + 2 * scored * width * text.vocab_size


def peak_memory(kind: str, group: int, mean: int) -> float:
    """MiB of one update, in a process of its own."""
    command = [sys.executable, __file__, "--measure", kind, "--group", str(group), "--completion", str(mean)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure(kind: str, group: int, mean: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(kind, folder)
        batch = group_of(trainer.model.config, lengths_of(group, mean))
        # the resident size is also the peak so far, unless building the model needed more for a moment
        with open("/proc/self/statm", encoding="ascii") as file:
            before = int(file.read().split()[1]) * resource.getpagesize()
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # forget the peak
        update(trainer, batch)
        with open("/proc/self/status", encoding="ascii") as file:
            peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
        print((peak - before) / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--group", type=int, nargs="+", default=[8, 16], help="completions of the prompt")
    parser.add_argument("--completion", type=int, nargs="+", default=[240, 524], help="their mean length in tokens")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--measure", choices=list(CLASSES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if options.measure:
        measure(options.measure, options.group[0], options.completion[0])
        return
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl"))
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s); ", end="")
    print(f"Python {platform.python_version()}, {versions}; {date.today()}")
    print("| G | mean length | TRL | SceneRL | faster | limit | reached | memory TRL | memory SceneRL | share |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        trainers = {kind: build(kind, folder) for kind in CLASSES}
        config = copy.deepcopy(trainers["TRL"].model.config)
        for group in options.group:
            for mean in options.completion:
                lengths = lengths_of(group, mean)
                batch = group_of(config, lengths)
                rounds = [{kind: update(t, batch) for kind, t in trainers.items()} for _ in range(options.rounds)]
                (_, loss, gradient), (_, ours, our_gradient) = rounds[0]["TRL"], rounds[0]["SceneRL"]
                error = ((our_gradient - gradient).norm() / gradient.norm()).item()
                if abs(ours - loss) > 1e-5 or error > 1e-5:
                    sys.exit(f"not the same update: loss {ours} against {loss}, gradient off by {error:.2g}")
                trl, own = (min(found[kind][0] for found in rounds) for kind in CLASSES)
                limit = operations(config, lengths, shared=False) / operations(config, lengths, shared=True)
                memory = {kind: peak_memory(kind, group, mean) for kind in CLASSES}
                cells = [
                    group, mean, f"{trl:.2f} s", f"{own:.2f} s", f"{trl / own:.1f}", f"{limit:.1f}",
                    f"{trl / own / limit:.2f}", *(f"{value:.0f} MiB" for value in memory.values()),
                    f"{memory['SceneRL'] / memory['TRL']:.2f}",
                ]  # fmt: skip
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
