"""What tests with a real vLLM share: small runs of GRPO, and how far its log-probabilities are from the trainer's."""

from __future__ import annotations

from pathlib import Path

import torch
from trl import GRPOConfig
from trl.data_utils import prepare_multimodal_messages

from scenerl import cli
from scenerl.training import grpo, rollout_check
from training.small_run import QUICK, QUICK_GRPO, STYLE, load_checkpoint, read_rows, words

EXACT = 1e-4
"""Nats by which the log-probability of any token may differ."""


def fine_tuned(base, rows, out: Path, steps: int) -> Path:
    """A checkpoint that has learnt a part of the answer format, or all of it in 80 steps."""
    fields = {**QUICK, "max_steps": steps, "logging_steps": 20, "learning_rate": 5e-3, "per_device_train_batch_size": 6}
    command = ["sft", "--model", str(base), "--data", str(rows), "--out", str(out), "--format", "compact"]
    assert cli.main([*command, "--grid", "20", *words(fields)]) == 0
    return out


def build(folder, out, examples, peft_config=None, vllm_sync="nccl", **fields):
    """A trainer whose rollouts are vLLM's, as ``fields`` of GRPOConfig say."""
    checkpoint = load_checkpoint(folder)
    fields = {**QUICK_GRPO, "use_vllm": True, "max_completion_length": 24, **fields}
    args = GRPOConfig(output_dir=str(out), **fields)
    conversation = checkpoint.conversation(STYLE)
    trainer = grpo.build_trainer(
        checkpoint, conversation, examples, args, ["format"], peft_config=peft_config, vllm_sync=vllm_sync
    )
    trainer.model.eval()
    return trainer


def difference(trainer, sync: bool = False) -> float:
    """The largest difference, in nats, between vLLM's and the trainer's log-probabilities of sampled tokens."""
    if sync:
        trainer.vllm_generation.sync_weights()
    trainer._last_loaded_step = trainer.state.global_step  # the trainer makes no sync of its own
    rows = [trainer.train_dataset[index] for index in range(4)]
    prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]
    ids, images, fields = trainer._tokenize_prompts(prompts)
    answers, rollout = rollout_check._sample_vllm(trainer, ids, images, fields)
    assert sum(map(len, answers)) >= 40
    assert not set(trainer.checkpoint.banned_ids) & {token for answer in answers for token in answer}
    with torch.no_grad():
        scored = rollout_check._score(trainer, ids, answers, fields)
    pairs = [pair for ours, theirs in zip(rollout, scored, strict=True) for pair in zip(ours, theirs, strict=True)]
    return max(abs(a - b) for a, b in pairs)


@torch.no_grad()
def shake(model, part: str, size: float = 0.05) -> None:
    """Change the matrices whose names hold ``part``."""
    generator = torch.Generator().manual_seed(5)
    for name, weights in model.named_parameters():
        if part in name and weights.ndim >= 2:
            weights += torch.randn(weights.shape, generator=generator) * size


def grpo_words(model, rows, out, **fields) -> list[str]:
    """The command line of a run that checks every rollout, and whose rewards vary if the model knows the format."""
    ours = {"max_completion_length": 96, "max_steps": 8, "num_generations": 4, "per_device_train_batch_size": 8}
    fields = {**QUICK_GRPO, "use_vllm": True, **ours, "learning_rate": 1e-3, "rollout_check_every": 1, **fields}
    command = ["grpo", "--model", str(model), "--data", str(rows), "--out", str(out)]
    rewards = ["--rewards", "node_label", "node_box", "hard_recall", "--rollout_check_tolerance", str(EXACT)]
    return [*command, *rewards, *words(fields)]


def grpo_run(model, rows, out, **fields) -> list[dict]:
    """The rows of the log of such a run."""
    assert cli.main(grpo_words(model, rows, out, **fields)) == 0
    return [row for row in read_rows(out / "log.jsonl") if "reward" in row]
