"""As one of several processes: dynamic sampling of groups. Writes what it found as JSON. See test_group_sampling.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from trl import GRPOConfig

from scenerl.training import grpo
from scenerl.training.engine import leave_processes
from scenerl.training.group_sampling import GroupSampling, SolvedPrompts
from training.small_run import QUICK_GRPO, STYLE, examples_of, load_checkpoint


def reward_of(ids, row: int) -> float:
    """Half of the rows have no signal."""
    return float((sum(ids) + row) % 7) if row % 2 else 0.5


def main(rows: str, base: str, out: str, batch: str, size: str) -> None:
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(Path(base))
    fields = {**QUICK_GRPO, "per_device_train_batch_size": int(batch), "num_generations": int(size), "max_steps": 3}
    fields |= {"gradient_accumulation_steps": 2, "use_cpu": True, "ddp_timeout": 600, "learning_rate": 1e-3}
    trainer = grpo.build_trainer(
        checkpoint,
        checkpoint.conversation(STYLE),
        examples_of(Path(rows)),
        GRPOConfig(output_dir=out, **fields),
        ["format"],
        group_sampling=GroupSampling(max_rounds=8, solved=SolvedPrompts(6.5)),
    )
    trainer.reward_funcs[0] = lambda completion_ids, row, **_: list(map(reward_of, completion_ids, row))
    rounds, wrong = [], 0
    choose, sample, score = trainer._sample_groups, trainer._sample_round, trainer._calculate_rewards

    def sample_groups(*args):
        rounds.append([])
        return choose(*args)

    def sample_round(rows, known):
        rounds[-1].append(rows)
        return sample(rows, known)

    def calculate_rewards(inputs, prompts, completions, ids):
        """Each completion that is kept still has the reward of its own row."""
        nonlocal wrong
        rewards = score(inputs, prompts, completions, ids)
        first = trainer.accelerator.process_index * len(ids)
        own = rewards[first : first + len(ids), 0].tolist()
        wrong += sum(
            reward_of(*pair) != value for *pair, value in zip(ids, (r["row"] for r in inputs), own, strict=True)
        )
        return rewards

    trainer._sample_groups, trainer._sample_round = sample_groups, sample_round
    trainer._calculate_rewards = calculate_rewards
    trainer.train()
    model = trainer.accelerator.unwrap_model(trainer.model)
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    log = [
        {key: value for key, value in row.items() if key.startswith("groups/") or key == "frac_reward_zero_std"}
        for row in trainer.state.log_history
        if "loss" in row
    ]
    found = {"rounds": rounds, "wrong": wrong, "log": log, "weights": [weights.sum().item(), weights.norm().item()]}
    Path(out, f"{trainer.accelerator.process_index}.json").write_text(json.dumps(found))
    leave_processes()


if __name__ == "__main__":
    main(*sys.argv[1:])
