"""What can be wrong with a GRPO run, found before it trains, and errors that end all of its processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from trl import GRPOConfig

from scenerl.answers.dialogue import Conversation
from scenerl.errors import DataError, UserError, counted
from scenerl.models.loading import Checkpoint
from scenerl.plugins import described, is_own
from scenerl.rewards import Comparison, RewardOptions, select_rewards
from scenerl.types import Example


def check_own_rewards(
    rewards: Sequence[str], example: Example, conversation: Conversation, options: RewardOptions
) -> None:
    """Call the user's own functions once with a perfect answer and once with a failed parse.

    Raises:
        UserError: one of them raises an error, or does not return a finite number.
    """
    for name in filter(is_own, rewards):
        (reward,) = select_rewards([name]).values()
        for text in (conversation.completion(example)[0]["content"][0]["text"], ""):
            result = conversation.parse(text, example)
            try:
                reward(Comparison.of(result, example, options, text, len(text.split())))
            except UserError:
                raise
            except Exception as error:
                kind = "a perfect answer" if text else "an answer that cannot be parsed"
                file = Path(name.rpartition(":")[0]).resolve()
                raise UserError(f"{name}: fails on {kind}: {described(error, file)}") from error


def check_batch(args: GRPOConfig, num_examples: int) -> None:
    """See that the data fill one batch of prompts: TRL leaves incomplete ones out.

    Raises:
        UserError: there are too few examples.
    """
    num_prompts = args.generation_batch_size // args.num_generations
    if num_examples < num_prompts:
        raise UserError(
            f"the data set has {counted(num_examples, 'example')}, but a rollout takes "
            f"{counted(num_prompts, 'different prompt')} ({counted(args.generation_batch_size, 'completion')} "
            f"in groups of {args.num_generations}); lower "
            "per_device_train_batch_size or raise num_generations"
        )


def check_prompts(
    checkpoint: Checkpoint, conversation: Conversation, examples: Sequence[Example], max_completion_length: int
) -> None:
    """See that every prompt, with the longest completion, fits the model.

    No image is opened: image tokens follow from the sizes, and each distinct text is counted once.

    Raises:
        DataError: a prompt does not fit, or an image is too small; names the image.
    """
    processor, limit = checkpoint.processor, checkpoint.model.config.get_text_config().max_position_embeddings
    text_lengths: dict[Any, int] = {}
    provides_objects = conversation.output_format.provided is not None  # then every prompt differs
    for example in examples:
        key = example.image_id if provides_objects else example.query
        if key not in text_lengths:
            text = processor.apply_chat_template(
                conversation.prompt(example, None), add_generation_prompt=True, tokenize=False
            )
            text_lengths[key] = len(processor.tokenizer(text)["input_ids"]) - 1  # without the image's placeholder
        width, height = conversation.input_wh(example)
        num_image = checkpoint.family.image_tokens(processor, example.image_wh)
        if not num_image:
            raise DataError(f"image {example.image_id!r}: {width} x {height} pixels make no token")
        num_text = text_lengths[key]
        needed = num_text + num_image + max_completion_length
        if needed > limit:
            raise DataError(
                f"image {example.image_id!r}: {num_text} tokens of text, {num_image} of the image and "
                f"{max_completion_length} of the completion are {needed}, but the model takes {limit}; lower "
                "max_pixels or max_completion_length, or shorten the vocabulary"
            )


def raise_together(problem: str | None) -> None:
    """Raise in every process what is wrong in one of them, None being nothing; the others would wait for it forever.

    Raises:
        UserError: the problem of the first process that has one.
    """
    if problems := list(filter(None, gather_object([problem]))):
        raise UserError(problems[0])
