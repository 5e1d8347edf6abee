"""As one of several processes: checks that fail in one of them, and training with and without shared prompts.

Writes what it found as JSON. See its tests.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from trl import GRPOConfig, GRPOTrainer

from scenerl.errors import UserError
from scenerl.training import rollout_check
from scenerl.training.datasets import grpo_dataset
from scenerl.training.engine import leave_processes
from scenerl.training.shared_prefix.trainer import SharedPrefixGRPOTrainer
from training.small_run import QUICK_GRPO, STYLE, examples_of, load_checkpoint


def reward(completion_ids, **_):
    return [float(sum(ids) % 7) for ids in completion_ids]


def build(shared: str, rows: str, base: str, out: str) -> SharedPrefixGRPOTrainer:
    checkpoint = load_checkpoint(Path(base))
    with torch.no_grad():
        for parameter in checkpoint.model.parameters():
            if parameter.ndim > 1:
                parameter *= 6
    fields = {**QUICK_GRPO, "max_steps": 3, "per_device_train_batch_size": 3, "num_generations": 2}
    return SharedPrefixGRPOTrainer(
        model=checkpoint.model,
        reward_funcs=[reward],
        args=GRPOConfig(output_dir=out, use_cpu=True, ddp_timeout=60, remove_unused_columns=False, **fields),
        train_dataset=grpo_dataset(examples_of(Path(rows)), checkpoint.conversation(STYLE)),
        processing_class=checkpoint.processor,
        shared_prefix=shared,
        max_tokens_per_row=27,  # as some rows are longer, processes would run different numbers of them
    )


def failing_in_one(trainer: SharedPrefixGRPOTrainer) -> Iterator[str]:
    """What this process raises where a check fails in the last process only."""
    plain, score = GRPOTrainer._get_per_token_logps_and_entropies, rollout_check._score
    if trainer.accelerator.is_last_process:
        GRPOTrainer._get_per_token_logps_and_entropies = lambda *args, **fields: (plain(*args, **fields)[0] - 1, None)
        rollout_check._score = lambda *args: [[-99.0] * len(row) for row in score(*args)]
    dataset = trainer.train_dataset
    for check in (lambda: rollout_check.check_rollout(trainer, [dataset[0], dataset[1]]), trainer.train):
        try:
            check()
        except UserError as error:
            yield str(error)
    GRPOTrainer._get_per_token_logps_and_entropies, rollout_check._score = plain, score


def main(rows: str, base: str, out: str) -> None:
    torch.set_num_threads(1)
    words = (rows, base, out)
    found = {"raised": list(failing_in_one(build("on", *words)))}
    for shared in ("on", "off"):
        trainer = build(shared, *words)
        trainer.train()
        model = trainer.accelerator.unwrap_model(trainer.model)
        weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        found[shared] = {
            "processes": trainer.accelerator.num_processes,
            "log": [
                {key: row[key] for key in ("loss", "reward", "grad_norm")} for row in trainer.state.log_history[:-1]
            ],
            "weights": [weights.sum().item(), weights.norm().item()],
        }
    Path(out, f"{trainer.accelerator.process_index}.json").write_text(json.dumps(found))
    leave_processes()


if __name__ == "__main__":
    main(*sys.argv[1:])
