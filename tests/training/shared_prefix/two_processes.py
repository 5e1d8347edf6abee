"""Trains with and without shared prompts as one of several processes; prints what both said as JSON. See its test."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from trl import GRPOConfig

from scenerl.training.datasets import grpo_dataset
from scenerl.training.shared_prefix.trainer import SharedPrefixGRPOTrainer
from training.small_run import QUICK_GRPO, STYLE, examples_of, load_checkpoint


def reward(completion_ids, **_):
    return [float(sum(ids) % 7) for ids in completion_ids]


def main(rows: str, base: str, out: str) -> None:
    torch.set_num_threads(1)
    found = {}
    for shared in ("on", "off"):
        checkpoint = load_checkpoint(Path(base))
        with torch.no_grad():
            for parameter in checkpoint.model.parameters():
                if parameter.ndim > 1:
                    parameter *= 6
        fields = {**QUICK_GRPO, "max_steps": 3, "per_device_train_batch_size": 3, "num_generations": 2}
        trainer = SharedPrefixGRPOTrainer(
            model=checkpoint.model,
            reward_funcs=[reward],
            args=GRPOConfig(output_dir=out, use_cpu=True, remove_unused_columns=False, **fields),
            train_dataset=grpo_dataset(examples_of(Path(rows)), checkpoint.conversation(STYLE)),
            processing_class=checkpoint.processor,
            shared_prefix=shared,
            max_tokens_per_row=27,  # as some rows are longer, processes would run different numbers of them
        )
        trainer.train()
        weights = torch.cat([parameter.detach().flatten() for parameter in checkpoint.model.parameters()])
        found[shared] = {
            "processes": trainer.accelerator.num_processes,
            "log": [
                {key: row[key] for key in ("loss", "reward", "grad_norm")} for row in trainer.state.log_history[:-1]
            ],
            "weights": [weights.sum().item(), weights.norm().item()],
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
