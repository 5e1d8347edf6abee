"""The command `grpo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from scenerl.commands.groups import CONSTRAIN_HELP, REWARD, SAMPLING, RewardOptions, TrainingOptions
from scenerl.config.options import Range, option

EXAMPLES = (
    "scenerl grpo --model runs/sft --data data/shapes/train.jsonl --out runs/grpo \\",
    "    --rewards format triplet_f1 --reward_weights 0.5 3 --num_generations 8 --learning_rate 1e-6",
    "scenerl grpo --config my_grpo.yaml --max_steps 200",
)
MOST_USED = (
    "model", "data", "out", "rewards", "format",
    "max_pixels", "use_peft", "load_in_4bit", "global_batch_size", "smoke",
)  # fmt: skip
SPEED, MONITORING = "Speed", "Monitoring"


@dataclass(frozen=True, kw_only=True)
class GRPOOptions(TrainingOptions, RewardOptions):
    """Reinforcement learning with GRPO, on rewards that compare completions with annotations."""

    trl_config: ClassVar = "GRPOConfig"

    rewards: list[str] = option(
        ["format", "node_label", "node_box", "hard_recall"],
        "rewards by name; --reward_weights weighs them, in this order",
        REWARD,
    )
    shared_prefix: Literal["auto", "on", "off"] = option(
        "auto", "run image and prompt once per group of completions; auto: where the model allows it", SPEED
    )
    max_tokens_per_row: PositiveInt | None = option(
        None, "with shared_prefix: split longer groups into several rows, each with its prompt", SPEED
    )
    dynamic_sampling: PositiveInt = option(
        1,
        "DAPO's dynamic sampling: draw further prompts, in at most N rounds a rollout, until as many groups as are "
        "learnt from have rewards that differ; a rollout without any such group ends the run. 1: off",
        SAMPLING,
    )
    keep_top_group_ratio: Annotated[float, Range(gt=0, le=1)] = option(
        1.0,
        "R1-SGG's: learn from this share of the sampled groups, those whose rewards differ most; a rollout samples as "
        "many more. 1: off",
        SAMPLING,
    )
    skip_solved: float | None = option(
        None,
        "curriculum: a prompt is solved when the weighted sum of rewards of all its completions is at least this; "
        "solved N times in a row it is left out the next N times. Default: off",
        SAMPLING,
    )
    constrain: bool = option(False, f"rollouts with {CONSTRAIN_HELP}", SAMPLING)
    vllm_sync: Literal["nccl", "adapter", "checkpoint"] = option(
        "nccl",
        "how a vLLM server gets new weights: by NCCL (CUDA only), or as files: the LoRA adapter, or all weights",
        SAMPLING,
    )
    vllm_sync_folder: Path | None = option(
        None, "where those files are, under this path for the server too; not given: in the run folder", SAMPLING
    )
    constant_reward_window: NonNegativeInt = option(
        20, "warn when a reward has not changed for N steps; 0: never", MONITORING
    )
    rollout_check_tolerance: NonNegativeFloat = option(
        0.05,
        "largest difference between log-probabilities of rollout and trainer; 0: no check",
        MONITORING,
    )
    rollout_check_every: NonNegativeInt = option(
        100, "check that difference at the start and every N steps; 0: only at the start", MONITORING
    )
    sample_log_every: NonNegativeInt = option(
        10, "write completions with their rewards to samples.jsonl every N steps; 0: never", MONITORING
    )
