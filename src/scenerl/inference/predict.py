"""The ``predict`` command: one row for each image, resumable after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from scenerl.conversation import Conversation
from scenerl.data.images import open_image
from scenerl.data.rows import DataError
from scenerl.inference.engine import Engine, Sampling
from scenerl.inference.rows import PredictionFile, prediction_row
from scenerl.types import Example

DEFAULT_BATCH = 16


def _batches(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    batch: list[Example] = []
    for example in examples:
        batch.append(example)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def predict(
    examples: Iterable[Example],
    conversation: Conversation,
    engine: Engine,
    out: Path,
    num_samples: int = 1,
    batch_size: int = DEFAULT_BATCH,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """Answer every example and append a row each to ``out``; rows that are there already are not done again.

    Batches are cut by position and seeded by their number, so an interrupted run ends with the same rows as one that
    was never interrupted.

    Args:
        progress: called with the number of images after each batch, those found done included.

    Returns:
        A message for each image that could not be read; its row holds no answer and says why.

    Raises:
        ValueError: ``out`` is not a prediction file, cannot be written, or two examples share an ``image_id``.
    """
    problems: list[str] = []
    seen: set[str] = set()
    with PredictionFile(out) as file:
        for number, batch in enumerate(_batches(examples, batch_size)):
            for example in batch:
                if example.image_id in seen:
                    raise ValueError(f"two images of the data set have the image_id {example.image_id!r}")
                seen.add(example.image_id)
            missing = [
                example
                for example in batch
                if any((example.image_id, sample) not in file.done for sample in range(num_samples))
            ]
            if missing:
                problems += _answer_batch(batch, conversation, engine, file, num_samples, seed * 1_000_003 + number)
            if progress:
                progress(len(batch))
    return problems


def _answer_batch(
    batch: list[Example],
    conversation: Conversation,
    engine: Engine,
    file: PredictionFile,
    num_samples: int,
    seed: int,
) -> list[str]:
    """Answer a whole batch, as its seed wants it, and write the rows that are missing."""
    frame = conversation.style.frame
    readable, prompts, problems = [], [], []
    for example in batch:
        try:
            prompts.append(conversation.prompt(example, open_image(example)))
            readable.append(example)
        except DataError as error:
            problems.append(str(error))
            result = conversation.parse(None, example)
            for sample in range(num_samples):
                if (example.image_id, sample) not in file.done:
                    size = conversation.input_wh(example.image_wh)
                    file.append(prediction_row(example, result, None, frame, size, sample, str(error)))
    if not prompts:
        return problems
    for example, replies in zip(readable, engine.answer(prompts, seed), strict=True):
        for sample, reply in enumerate(replies):
            if (example.image_id, sample) in file.done:
                continue
            result = conversation.parse(reply.text, example, truncated=reply.finish_reason == "length")
            size = conversation.input_wh(example.image_wh)
            file.append(prediction_row(example, result, reply, frame, size, sample))
    return problems


def sampling_of(options) -> Sampling:
    """The sampling part of the command's options."""
    return Sampling(options.max_new_tokens, options.temperature, options.top_p, options.top_k, options.num_samples)
