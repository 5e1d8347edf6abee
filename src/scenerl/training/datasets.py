"""Examples as the data sets of TRL's trainers: rows are made on access, and images opened last."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from datasets import Dataset

from scenerl.answers.dialogue import Conversation
from scenerl.data.images import open_image
from scenerl.errors import UserError
from scenerl.types import Example


def sft_dataset(
    examples: Sequence[Example], conversation: Conversation, reasoning: str = "empty", order: str = "annotated"
) -> Dataset:
    """Columns ``prompt``, ``completion`` (messages) and ``images``, as SFTTrainer reads them.

    Args:
        reasoning, order: of the completions, see :meth:`Conversation.completion`.
    """

    def make_row(index: int) -> dict:
        example = examples[index]
        return {
            "prompt": conversation.prompt(example, None),
            "completion": conversation.completion(example, reasoning, order),
            "images": [open_image(example)],
        }

    return _dataset(len(examples), make_row)


def grpo_dataset(examples: Sequence[Example], conversation: Conversation) -> Dataset:
    """Columns ``prompt``, ``images`` and ``row``, the example's index, which the reward functions receive."""

    def make_row(index: int) -> dict:
        example = examples[index]
        return {"prompt": conversation.prompt(example, None), "images": [open_image(example)], "row": index}

    return _dataset(len(examples), make_row)


def _dataset(count: int, make_row: Callable[[int], dict]) -> Dataset:
    if not count:
        raise UserError("the training data set has no examples")

    def transform(batch):
        made = {index: make_row(index) for index in dict.fromkeys(batch["row"])}  # a group takes one row many times
        rows = [made[index] for index in batch["row"]]
        return {key: [row[key] for row in rows] for key in rows[0]}

    dataset = Dataset.from_dict({"row": list(range(count))})
    # set_format itself, without the wrapper that pickles the transform, model and images included, to hash it
    Dataset.set_format.__wrapped__(dataset, "custom", transform=transform)
    return dataset
