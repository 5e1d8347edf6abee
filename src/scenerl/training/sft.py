"""The ``sft`` command: build TRL's SFTTrainer and run it. The loss is on the completion only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trl import SFTConfig, SFTTrainer

from scenerl.answers.dialogue import Conversation
from scenerl.errors import UserError
from scenerl.models.loading import Checkpoint
from scenerl.tiny.optimizer import MuonFactory
from scenerl.training import smoke
from scenerl.training.adapters import lora_config
from scenerl.training.checkpoints import CheckpointMixin, fit
from scenerl.training.datasets import sft_dataset
from scenerl.training.engine import leave_processes
from scenerl.training.logs import LogFile, quiet_console
from scenerl.training.setup import open_run, trl_checks
from scenerl.training.validation import Validation, ValidationMixin
from scenerl.types import Example


class SceneSFTTrainer(ValidationMixin, CheckpointMixin, SFTTrainer):
    """TRL's trainer with our checkpoints and validation."""

    has_eval_loss = True


def build_trainer(
    checkpoint: Checkpoint,
    conversation: Conversation,
    examples: Sequence[Example],
    args: SFTConfig,
    muon: bool = False,
    muon_learning_rate: float = 0.02,
    peft_config=None,
    reasoning: str = "empty",
    validation: Validation | None = None,
    box_order: str = "annotated",
) -> SFTTrainer:
    """A trainer that teaches a checkpoint's model to write the examples' ground truth.

    Args:
        args: TRL's configuration. ``completion_only_loss`` is TRL's default for prompts with completions: only
            completion tokens enter the loss.
        peft_config: PEFT's configuration of the adapter to train; None: all weights are trained.
        reasoning: what the reasoning part holds with the response template ``think``.
        validation: what is answered at every evaluation; None: there is none.
        box_order: of the objects in the targets, a name from :data:`~scenerl.answers.order.ORDERS`.
        muon: use :class:`scenerl.tiny.optimizer.MuonWithAdamW` in place of ``args.optim``.

    Raises:
        UserError: another order than the annotated one where the prompt provides the objects, in an order of its own.
    """
    if box_order != "annotated" and conversation.output_format.provided:
        raise UserError(f"box_order {box_order}: the prompt provides the objects, and targets keep its order")
    args.remove_unused_columns = False  # the data set's one stored column is an index; the rest is made on access
    optimizer = None
    if muon:
        settings = {"lr": args.learning_rate, "muon_lr": muon_learning_rate, "weight_decay": args.weight_decay}
        optimizer = (MuonFactory, settings)
    with trl_checks():
        trainer = SceneSFTTrainer(
            model=checkpoint.model,
            args=args,
            train_dataset=sft_dataset(examples, conversation, reasoning, box_order),
            eval_dataset=validation and sft_dataset(validation.examples, validation.conversation, reasoning, box_order),
            processing_class=checkpoint.processor,
            callbacks=[LogFile(args.output_dir), *(validation.callbacks() if validation else ())],
            optimizer_cls_and_kwargs=optimizer,
            peft_config=peft_config,
        )
    trainer.checkpoint, trainer.output_format = checkpoint, conversation.output_format
    trainer.validation = validation
    quiet_console(trainer)
    return trainer


def run(options, extra: Mapping[str, Any]) -> None:
    """The command. ``extra`` holds the fields given for TRL's SFTConfig."""
    options, extra = smoke.shrink(options, extra)
    # TRL's limit of 1,024 tokens would truncate completions, and large images
    opened = open_run(options, extra, SFTConfig, may_build=True, max_length=None)
    trainer = build_trainer(
        opened.checkpoint,
        opened.conversation,
        opened.examples,
        opened.args,
        muon=options.muon,
        muon_learning_rate=options.muon_learning_rate,
        peft_config=lora_config(options, opened.checkpoint),
        reasoning=options.thought,
        validation=opened.validation,
        box_order=options.box_order,
    )
    fit(trainer)
    leave_processes()
