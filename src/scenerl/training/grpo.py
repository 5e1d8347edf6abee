"""The ``grpo`` command: build TRL's GRPOTrainer with our rewards and run it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from trl import GRPOConfig

from scenerl.answers.dialogue import Conversation
from scenerl.config import resolve_extra
from scenerl.errors import UserError
from scenerl.models.loading import Checkpoint
from scenerl.rewards import RewardOptions, check_rewards, reward_options_of, select_rewards
from scenerl.training import smoke
from scenerl.training.adapters import lora_config
from scenerl.training.checkpoints import CheckpointMixin, fit
from scenerl.training.checks import check_batch, check_own_rewards, check_prompts
from scenerl.training.constrained import ConstrainedRollouts, send_grammar, unsupported_reason
from scenerl.training.datasets import grpo_dataset
from scenerl.training.engine import leave_processes
from scenerl.training.group_sampling import GroupSampling, GroupSamplingMixin, SolvedPrompts
from scenerl.training.logs import LogFile, quiet_console
from scenerl.training.mixture import Mixture, Part
from scenerl.training.reward_monitor import RewardMonitor
from scenerl.training.rewards import RewardBatch
from scenerl.training.rollout_check import check_rollout
from scenerl.training.setup import open_run, trl_checks
from scenerl.training.shared_prefix.trainer import SharedPrefixGRPOTrainer
from scenerl.training.validation import Validation, ValidationMixin
from scenerl.training.vllm_engine import VLLMEngine, check_tiles, engine_in, set_importance_sampling
from scenerl.training.vllm_server import VLLMServer
from scenerl.types import Example

SAMPLES_NAME = "samples.jsonl"
_log = logging.getLogger(__name__)


class SceneGRPOTrainer(ValidationMixin, GroupSamplingMixin, CheckpointMixin, SharedPrefixGRPOTrainer):
    """TRL's trainer with shared prompts, chosen groups, checks of its rollouts, and checkpoints that hold rollouts.

    Attributes:
        rollout_check_tolerance: for :func:`~scenerl.training.rollout_check.check_rollout`; 0: no check.
        rollout_check_every: steps between two checks; 0: only the first rollout is checked.
    """

    rollout_check_tolerance: float = 0
    rollout_check_every: int = 0
    _next_check: int | None = 0
    _sampled_before: dict[str, Any] | None = None

    def _generate_and_score_completions(self, inputs):
        """As TRL; before the first rollout, and again from time to time, check sampler against trainer.

        By then the model is where it is trained, sharded or not. The check includes a row of the rollout before, whose
        image the sampler may remember with features of older weights.
        """
        if self.model.training and self.rollout_check_tolerance:
            if self._next_check is not None and self.state.global_step >= self._next_check:
                rows = [self._sampled_before or inputs[-1], inputs[0]]  # as many in every process
                difference = check_rollout(self, rows, self.rollout_check_tolerance)
                _log.info("rollout and trainer agree: log-probabilities differ by %.2g per token", difference)
                every = self.rollout_check_every
                self._next_check = self.state.global_step + every if every else None
            self._sampled_before = inputs[-1]
        return super()._generate_and_score_completions(inputs)

    def save_rollout(self, checkpoint: Path) -> None:
        """Write the position in a rollout, and the completions that are still to be learnt from."""
        super().save_rollout(checkpoint)
        is_used_up = self._step % (self.args.steps_per_generation * self.num_iterations) == 0
        batches = None if is_used_up else self._buffered_inputs
        torch.save({"step": self._step, "batches": batches, "batched": self._batched}, self._rollout_path(checkpoint))

    def load_rollout(self, checkpoint: Path) -> None:
        """Go on from what :meth:`save_rollout` wrote; TRL alone would sample anew, and at another step.

        So does a run that goes on with another number of processes, as its rollouts are batched differently.
        """
        super().load_rollout(checkpoint)
        path = self._rollout_path(checkpoint)
        if not path.is_file():  # of a process that is new
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state.get("batched", self._batched) == self._batched:
            self._step = state["step"]
            self._buffered_inputs = send_to_device(state["batches"], self.accelerator.device)

    @property
    def _batched(self) -> list[int]:
        """Number of processes that share a rollout, and of batches in each."""
        return [self.accelerator.num_processes, self.args.steps_per_generation]

    def _rollout_path(self, checkpoint: Path) -> Path:
        return checkpoint / f"rollout_{self.accelerator.process_index}.pt"


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
    rollout_check_tolerance: float = 0.05,
    rollout_check_every: int = 100,
    vllm_sync: str = "nccl",
    vllm_sync_folder: Path | None = None,
    validation: Validation | None = None,
    mixture: Mixture | None = None,
    group_sampling: GroupSampling | None = None,
) -> SceneGRPOTrainer:
    """A trainer that improves a checkpoint's model by the named rewards, weighted by ``args.reward_weights``.

    Args:
        rewards: names from :data:`scenerl.rewards.REWARDS`, or functions of one's own (``FILE.py:NAME``).
        constant_reward_window: rollouts after which a constant reward is reported; 0 for never.
        sample_log_every: steps between samples of completions in ``samples.jsonl``; 0 for never.
        shared_prefix, max_tokens_per_row: run each image and prompt once per group, see
            :class:`~scenerl.training.shared_prefix.trainer.SharedPrefixGRPOTrainer`.
        peft_config: PEFT's configuration of the adapter to train; None: all weights are trained.
        constrain: hold completions to the output format, see :mod:`scenerl.training.constrained`.
        rollout_check_tolerance, rollout_check_every: see :class:`SceneGRPOTrainer`.
        vllm_sync, vllm_sync_folder: how a server gets new weights: by TRL over ``nccl``, or as files, see
            :class:`~scenerl.training.vllm_server.VLLMServer`; None: a folder in the run folder.
        validation: what is answered at every evaluation; None: there is none.
        mixture: the sources of the examples; its rewards and weights take the place of ``rewards`` and those of
            ``args``. None: there is one source.
        group_sampling: which groups a step learns from; None: all of a rollout.

    Raises:
        UserError: a name is no reward, weights and rewards differ in number, there are too few examples, or a prompt
            does not fit the model.
    """
    parts = [Part("", examples, conversation, dict.fromkeys(rewards, 1.0))]
    if mixture is None:
        check_rewards(rewards, args.reward_weights)
    else:
        parts, args.reward_weights = mixture.parts, mixture.reward_weights
    check_batch(args, len(examples))
    for part in parts:
        check_prompts(checkpoint, part.conversation, part.examples, args.max_completion_length)
        check_own_rewards(list(part.rewards), part.examples[0], part.conversation, reward_options or RewardOptions())
    args.remove_unused_columns = False  # the data set's one stored column is an index; the rest is made on access
    # TRL pads prompts on the left, but takes the places of image tokens from the processor's padding
    checkpoint.processor.tokenizer.padding_side = "left"
    ban_vision_tokens(args, checkpoint.banned_ids)
    if constrain and args.use_vllm:
        send_grammar(args, conversation, examples)
    elif constrain and (why := unsupported_reason(args)):
        raise UserError(f"constrain: not possible: {why}")
    chosen = select_rewards(rewards) if mixture is None else mixture.rewards
    batch = RewardBatch(
        chosen,
        examples,
        conversation,
        reward_options or RewardOptions(),
        stop_ids=checkpoint.stop_ids,
        monitor=RewardMonitor(chosen, constant_reward_window, _log.warning) if constant_reward_window else None,
        samples_path=Path(args.output_dir) / SAMPLES_NAME,
        sample_every=sample_log_every,
        applying=None if mixture is None else mixture.rewards_of,
    )
    if args.use_vllm:
        check_tiles(checkpoint)
        set_importance_sampling(args, constrained=constrain)
    with trl_checks(), engine_in(_vllm(checkpoint, args, vllm_sync, vllm_sync_folder)):
        trainer = SceneGRPOTrainer(
            model=checkpoint.model,
            reward_funcs=batch.functions(),
            args=args,
            train_dataset=grpo_dataset(examples, conversation),
            eval_dataset=validation and grpo_dataset(validation.examples, validation.conversation),
            processing_class=checkpoint.processor,
            callbacks=[LogFile(args.output_dir), *(validation.callbacks() if validation else ())],
            shared_prefix=shared_prefix,
            max_tokens_per_row=max_tokens_per_row,
            peft_config=peft_config,
        )
    trainer.checkpoint, trainer.output_format = checkpoint, conversation.output_format
    trainer.validation = validation
    trainer.rollout_check_tolerance, trainer.rollout_check_every = rollout_check_tolerance, rollout_check_every
    trainer.group_sampling = group_sampling
    if constrain and not args.use_vllm:
        trainer.constraint = ConstrainedRollouts(
            checkpoint, conversation, examples, trainer.eos_token_ids, args.max_completion_length
        )
    quiet_console(trainer)
    _log.info("rollouts: %s", describe_rollout(trainer))
    return trainer


def _vllm(checkpoint: Checkpoint, args: GRPOConfig, sync: str, folder: Path | None) -> partial[VLLMEngine]:
    """What makes the engine of rollouts, where they are vLLM's."""
    if sync == "nccl":
        if "," in (args.vllm_server_base_url or ""):
            raise UserError("vllm_server_base_url: several servers need vllm_sync adapter or vllm_sync checkpoint")
        return partial(VLLMEngine, checkpoint=checkpoint)
    if not (args.use_vllm and args.vllm_mode == "server"):
        raise UserError(f"vllm_sync {sync}: is of servers; add --use_vllm true --vllm_mode server")
    folder = folder or Path(args.output_dir) / "vllm_sync"
    return partial(VLLMServer, checkpoint=checkpoint, sync=sync, folder=folder)


def ban_vision_tokens(args: GRPOConfig, banned_ids: Sequence[int]) -> None:
    """Never sample a token that stands for visual input: the next forward pass would look for its image."""
    kwargs = dict(args.generation_kwargs or {})
    if args.use_vllm:
        kwargs["logit_bias"] = {**kwargs.get("logit_bias", {}), **dict.fromkeys(banned_ids, -100.0)}
    else:
        kwargs["suppress_tokens"] = sorted({*kwargs.get("suppress_tokens", []), *banned_ids})
    args.generation_kwargs = kwargs


def describe_rollout(trainer: SceneGRPOTrainer) -> str:
    """Who samples a trainer's completions, under which constraint, and how often prompts are run; for the log."""
    if trainer.use_vllm:
        form = "held to a grammar" if "structured_outputs" in (trainer.args.generation_kwargs or {}) else "free"
        return f"{form} completions, vLLM ({trainer.vllm_mode}); its prefix cache shares a group's prompt"
    form = "constrained" if trainer.constraint else "free"
    how_often = (
        "image and prompt is run once per group" if trainer.shares_rollout else "prompt is run once per completion"
    )
    return f"{form} completions, in process; every {how_often}"


def _group_sampling(options) -> GroupSampling | None:
    """How the options choose groups; None: they do not."""
    solved = None if options.skip_solved is None else SolvedPrompts(options.skip_solved)
    sampling = GroupSampling(options.dynamic_sampling, options.keep_top_group_ratio, solved)
    return None if sampling == GroupSampling() else sampling


def run(options, extra: Mapping[str, Any]) -> None:
    """The command. ``extra`` holds the fields given for TRL's GRPOConfig."""
    options, extra = smoke.shrink(options, extra)
    check_rewards(options.rewards, resolve_extra(GRPOConfig, extra, own=type(options)).get("reward_weights"))
    reward_options = reward_options_of(options)
    opened = open_run(options, extra, GRPOConfig)
    trainer = build_trainer(
        opened.checkpoint,
        opened.conversation,
        opened.examples,
        opened.args,
        options.rewards,
        reward_options=reward_options,
        constant_reward_window=options.constant_reward_window,
        sample_log_every=options.sample_log_every,
        shared_prefix=options.shared_prefix,
        max_tokens_per_row=options.max_tokens_per_row,
        peft_config=lora_config(options, opened.checkpoint),
        constrain=options.constrain,
        rollout_check_tolerance=options.rollout_check_tolerance,
        rollout_check_every=options.rollout_check_every,
        vllm_sync=options.vllm_sync,
        vllm_sync_folder=options.vllm_sync_folder,
        validation=opened.validation,
        mixture=opened.mixture,
        group_sampling=_group_sampling(options),
    )
    fit(trainer)
    leave_processes()
