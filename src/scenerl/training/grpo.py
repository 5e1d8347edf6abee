"""The ``grpo`` command: build TRL's GRPOTrainer with our rewards and run it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from trl import GRPOConfig

from scenerl.answers.dialogue import Conversation
from scenerl.config import resolve_extra
from scenerl.errors import UserError
from scenerl.models.loading import Checkpoint
from scenerl.rewards import REWARDS, RewardOptions, reward_options_of, select_rewards
from scenerl.training import smoke
from scenerl.training.adapters import lora_config
from scenerl.training.cards import Carded
from scenerl.training.constrained import ConstrainedRollouts, send_grammar, unsupported_reason
from scenerl.training.datasets import grpo_dataset
from scenerl.training.logs import LogFile, quiet_console
from scenerl.training.resume import Resumable, fit
from scenerl.training.rollout_check import check_rollout
from scenerl.training.setup import open_run
from scenerl.training.shared_prefix import SharedPrefixGRPOTrainer
from scenerl.training.trl_rewards import RewardBatch
from scenerl.training.watch import ConstantRewardWatch
from scenerl.types import Example

SAMPLES_NAME = "samples.jsonl"
_log = logging.getLogger(__name__)


class SceneGRPOTrainer(Resumable, Carded, SharedPrefixGRPOTrainer):
    """TRL's trainer, with shared prompts, whose checkpoints give weights and rollouts back."""

    def save_rollout(self, checkpoint: Path) -> None:
        """Write where in a rollout training stands, and the completions that are still to be learnt from."""
        is_used_up = self._step % (self.args.steps_per_generation * self.num_iterations) == 0
        batches = None if is_used_up else self._buffered_inputs
        torch.save({"step": self._step, "batches": batches, "cut": self._cut}, self._rollout_path(checkpoint))

    def load_rollout(self, checkpoint: Path) -> None:
        """Go on where :meth:`save_rollout` was; TRL alone would sample anew, and from another step on.

        So does a run that goes on with another number of processes, among which its batches are cut otherwise.
        """
        path = self._rollout_path(checkpoint)
        if not path.is_file():  # checkpoints of earlier versions have none, nor has a process that is new
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state.get("cut", self._cut) == self._cut:  # earlier versions do not say
            self._step = state["step"]
            self._buffered_inputs = send_to_device(state["batches"], self.accelerator.device)

    @property
    def _cut(self) -> list[int]:
        """Among how many processes a rollout is divided, and into how many batches in each."""
        return [self.accelerator.num_processes, self.args.steps_per_generation]

    def _rollout_path(self, checkpoint: Path) -> Path:
        return checkpoint / f"rollout_{self.accelerator.process_index}.pt"


def ban_vision_tokens(args: GRPOConfig, banned_ids: Sequence[int]) -> None:
    """Let no rollout sample a token that stands for visual input: the next forward pass would look for its image."""
    kwargs = dict(args.generation_kwargs or {})
    if args.use_vllm:
        kwargs["logit_bias"] = {**kwargs.get("logit_bias", {}), **dict.fromkeys(banned_ids, -100.0)}
    else:
        kwargs["suppress_tokens"] = sorted({*kwargs.get("suppress_tokens", []), *banned_ids})
    args.generation_kwargs = kwargs


def check_rewards(rewards: Sequence[str], weights: Sequence[float] | None) -> None:
    """Raise ValueError unless the names are rewards, and as many as the weights where weights are given."""
    if not select_rewards(rewards):
        raise UserError(f"rewards: none given; allowed: {', '.join(REWARDS)}")
    if weights is not None and len(weights) != len(rewards):
        raise UserError(
            f"reward_weights: {len(weights)} weights for {len(rewards)} rewards ({', '.join(rewards)}); give one each"
        )


def check_batch(args: GRPOConfig, num_examples: int) -> None:
    """Raise ValueError where the data cannot fill one batch of prompts: TRL leaves incomplete ones out."""
    num_prompts = args.generation_batch_size // args.num_generations
    if num_examples < num_prompts:
        raise UserError(
            f"the data set has {num_examples} examples, but a rollout takes {num_prompts} different prompts "
            f"({args.generation_batch_size} completions in groups of {args.num_generations}); lower "
            "per_device_train_batch_size or raise num_generations"
        )


def check_prompts(
    checkpoint: Checkpoint, conversation: Conversation, examples: Sequence[Example], max_completion_length: int
) -> None:
    """Raise ValueError for the first example whose prompt and answer do not fit the model, or whose image is too small.

    Nothing is opened: image tokens follow from the sizes, and each distinct text is counted once.
    """
    processor, limit = checkpoint.processor, checkpoint.model.config.get_text_config().max_position_embeddings
    text_lengths: dict[Any, int] = {}
    gives_objects = conversation.output_format.provided is not None  # then each prompt is another
    for example in examples:
        asked = example.image_id if gives_objects else example.query
        if asked not in text_lengths:
            text = processor.apply_chat_template(
                conversation.prompt(example, None), add_generation_prompt=True, tokenize=False
            )
            text_lengths[asked] = len(processor.tokenizer(text)["input_ids"]) - 1  # less the place of the image
        width, height = conversation.input_wh(example)
        num_image = checkpoint.family.image_tokens(processor, example.image_wh)
        if not num_image:
            raise UserError(f"image {example.image_id!r}: {width} x {height} pixels make no token")
        num_text = text_lengths[asked]
        needed = num_text + num_image + max_completion_length
        if needed > limit:
            raise UserError(
                f"image {example.image_id!r}: {num_text} tokens of text, {num_image} of the image and "
                f"{max_completion_length} of the answer are {needed}, but the model takes {limit}; lower max_pixels or "
                "max_completion_length, or shorten the vocabulary"
            )


def build_trainer(
    checkpoint: Checkpoint,
    conversation: Conversation,
    examples: Sequence[Example],
    args: GRPOConfig,
    rewards: Sequence[str],
    reward_options: RewardOptions | None = None,
    constant_reward_window: int = 20,
    sample_log_every: int = 10,
    shared_prefix: str = "auto",
    max_tokens_per_row: int | None = None,
    peft_config=None,
    constrain: bool = False,
) -> SceneGRPOTrainer:
    """A trainer that improves a checkpoint's model by the named rewards, weighted by ``args.reward_weights``.

    Args:
        rewards: names from :data:`scenerl.rewards.REWARDS`.
        constant_reward_window: steps after which a constant reward is reported; 0 for never.
        sample_log_every: steps between samples of completions in ``samples.jsonl``; 0 for never.
        shared_prefix: run each image and prompt once per group in the update (see
            :class:`~scenerl.training.shared_prefix.SharedPrefixGRPOTrainer`).
        max_tokens_per_row: of a row in that update (see there).
        peft_config: PEFT's configuration of the adapter to train; None: the weights themselves.
        constrain: hold the rollouts' answers to their format (see :mod:`scenerl.training.constrained`).

    Raises:
        UserError: a name is no reward, weights and rewards differ in number, there are too few examples, or a prompt
            does not fit the model.
    """
    check_rewards(rewards, args.reward_weights)
    check_batch(args, len(examples))
    check_prompts(checkpoint, conversation, examples, args.max_completion_length)
    args.remove_unused_columns = False  # the data set's one stored column is an index; the rest is made on access
    ban_vision_tokens(args, checkpoint.banned_ids)
    if constrain and args.use_vllm:
        send_grammar(args, conversation, examples)
    elif constrain and (why := unsupported_reason(args)):
        raise UserError(f"constrain: not possible: {why}")
    batch = RewardBatch(
        rewards,
        examples,
        conversation,
        reward_options or RewardOptions(),
        stop_ids=checkpoint.stop_ids,
        watch=ConstantRewardWatch(rewards, constant_reward_window, _log.warning) if constant_reward_window else None,
        samples_path=Path(args.output_dir) / SAMPLES_NAME,
        sample_every=sample_log_every,
    )
    trainer = SceneGRPOTrainer(
        model=checkpoint.model,
        reward_funcs=batch.functions(),
        args=args,
        train_dataset=grpo_dataset(examples, conversation),
        processing_class=checkpoint.processor,
        callbacks=[LogFile(args.output_dir)],
        shared_prefix=shared_prefix,
        max_tokens_per_row=max_tokens_per_row,
        peft_config=peft_config,
    )
    trainer.checkpoint, trainer.output_format = checkpoint, conversation.output_format
    if constrain and not args.use_vllm:
        trainer.constraint = ConstrainedRollouts(
            checkpoint, conversation, examples, trainer.eos_token_ids, args.max_completion_length
        )
    quiet_console(trainer)
    return trainer


def rollout_path(trainer: SharedPrefixGRPOTrainer) -> str:
    """In words, what samples a trainer's answers and how often it reads their prompts."""
    if trainer.use_vllm:
        return f"vLLM ({trainer.vllm_mode}); its own prefix caching keeps it from reading a group's prompt anew"
    if trainer.shares_rollout:
        return "in process; every image and prompt is read once per group"
    return "in process; every prompt is read once per completion"


def rollout_form(trainer: SharedPrefixGRPOTrainer) -> str:
    """In words, what a trainer's answers are held to."""
    if trainer.use_vllm:
        return "held to a grammar" if "structured_outputs" in (trainer.args.generation_kwargs or {}) else "free"
    return "constrained" if trainer.constraint else "free"


def train(
    checkpoint: Checkpoint,
    conversation: Conversation,
    examples: Sequence[Example],
    args: GRPOConfig,
    rewards: Sequence[str],
    rollout_check_tolerance: float = 0.05,
    **settings: Any,
) -> SceneGRPOTrainer:
    """Check the rollout, train, going on from the newest checkpoint in ``args.output_dir``, and save the final model.

    Raises:
        RolloutMismatch: rollout and trainer disagree about log-probabilities (a ValueError).
    """
    Path(args.output_dir).mkdir(parents=True, exist_ok=True)
    trainer = build_trainer(checkpoint, conversation, examples, args, rewards, **settings)
    _log.info("rollouts: %s answers, %s", rollout_form(trainer), rollout_path(trainer))
    if rollout_check_tolerance:
        difference = check_rollout(trainer, tolerance=rollout_check_tolerance)
        _log.info("rollout and trainer agree: log-probabilities differ by %.2g per token", difference)
    fit(trainer)
    return trainer


def run(options, extra: Mapping[str, Any]) -> None:
    """The command. ``extra`` holds the fields given for TRL's GRPOConfig."""
    options, extra = smoke.shrink(options, extra)
    check_rewards(options.rewards, resolve_extra(GRPOConfig, extra, own=type(options)).get("reward_weights"))
    reward_options = reward_options_of(options)
    checkpoint, conversation, examples, args = open_run(options, extra, GRPOConfig)
    train(
        checkpoint,
        conversation,
        examples,
        args,
        options.rewards,
        rollout_check_tolerance=options.rollout_check_tolerance,
        reward_options=reward_options,
        constant_reward_window=options.constant_reward_window,
        sample_log_every=options.sample_log_every,
        shared_prefix=options.shared_prefix,
        max_tokens_per_row=options.max_tokens_per_row,
        peft_config=lora_config(options, checkpoint),
        constrain=options.constrain,
    )
