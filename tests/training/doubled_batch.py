"""Trains a few steps as one of several processes and saves the weights. See test_doubled_batch.py."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from trl import GRPOConfig, SFTConfig

from scenerl.training import grpo, sft
from scenerl.training.engine import leave_processes
from training.small_run import QUICK, QUICK_GRPO, STYLE, examples_of, load_checkpoint

# Plain SGD moves a weight in proportion to its gradient. AdamW divides by the gradient's size, which makes steps of
# full length out of the rounding of gradients that are zero.
FIELDS = {**QUICK, "max_steps": 4, "optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0, "use_cpu": True}


def given_completions(trainer) -> None:
    """Let every rollout give completions that depend on nothing but its number and the row in the whole batch."""
    rollouts = 0

    def provided(prompt_ids, *_, **__):
        nonlocal rollouts
        rollouts += 1
        first = trainer.accelerator.process_index * len(prompt_ids)
        draws = [random.Random(f"{rollouts} {first + row}") for row in range(len(prompt_ids))]
        return [[draw.randrange(5, 60) for _ in range(draw.randint(1, 8))] for draw in draws], None

    trainer._generate_single_turn = provided


def weights_of(trainer) -> dict[str, torch.Tensor]:
    model = trainer.accelerator.unwrap_model(trainer.model)
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def main(command: str, rows: str, base: str, out: str, batch: str) -> None:
    torch.set_num_threads(1)
    checkpoint, examples = load_checkpoint(Path(base)), examples_of(Path(rows))
    conversation = checkpoint.conversation(STYLE)
    fields = {**FIELDS, "per_device_train_batch_size": int(batch)}
    if command == "sft":
        trainer = sft.build_trainer(
            checkpoint, conversation, examples, SFTConfig(output_dir=out, max_length=None, **fields)
        )
    else:
        args = GRPOConfig(output_dir=out, **{**QUICK_GRPO, **fields, "beta": 0.1})
        trainer = grpo.build_trainer(
            checkpoint, conversation, examples, args, ["cosine_length"], constant_reward_window=0
        )
        given_completions(trainer)
    before = weights_of(trainer)
    trainer.train()
    if trainer.accelerator.is_main_process:
        metadata = {"processes": str(trainer.accelerator.num_processes)}
        for name, weights in (("before", before), ("after", weights_of(trainer))):
            save_file(weights, Path(out) / f"{name}.safetensors", metadata=metadata)
    leave_processes()


if __name__ == "__main__":
    main(*sys.argv[1:])
