"""The ``predict`` command: one row for each image, resumable after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from scenerl import data
from scenerl.config import PredictOptions, dump_yaml, load_yaml, plain
from scenerl.conversation import Conversation, style_for
from scenerl.data.images import open_image
from scenerl.data.rows import DataError
from scenerl.inference.engine import Engine, Sampling
from scenerl.inference.hf import HFEngine
from scenerl.inference.rows import PredictionFile, prediction_row
from scenerl.models.loading import family_of, load
from scenerl.progress import progress_bar
from scenerl.runs import atomic_write_text
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


def run(options: PredictOptions) -> None:
    """The command.

    Raises:
        ValueError: bad options, data or checkpoint, a file of another run; and, once every image is done, that some
            could not be read (their rows say why).
    """
    sampling = Sampling(
        options.max_new_tokens, options.temperature, options.top_p, options.top_k, options.num_samples
    )
    family = family_of(options.model)
    style = style_for(options, family)
    examples = data.load(options.data, split=options.split, limit=options.limit)
    total = sum(1 for _ in examples)
    _claim(options)
    checkpoint = load(options.model, options.dtype, _device(options.device), options.min_pixels, options.max_pixels)
    conversation = Conversation(style, checkpoint)
    batch_size = options.batch_size or DEFAULT_BATCH
    with progress_bar(f"predict {Path(options.model).name}", total) as advance:
        problems = predict(
            examples,
            conversation,
            HFEngine(checkpoint, sampling),
            options.out,
            options.num_samples,
            batch_size,
            options.seed,
            advance,
        )
    if problems:
        raise ValueError(
            f"{options.data}: {len(problems)} of {total} images could not be read and have no answer in {options.out}, "
            f"the first: {problems[0]}"
        )


def _claim(options: PredictOptions) -> None:
    """Refuse to append to the predictions of other options: what they were stands in ``<out>.yaml`` beside the file."""
    config = options.out.with_name(options.out.name + ".yaml")
    wanted = {key: value for key, value in plain(options).items() if key not in ("fresh", "out", "device")}
    if options.fresh:
        options.out.unlink(missing_ok=True)
    elif options.out.exists():
        if not config.is_file():
            raise ValueError(f"{options.out}: exists but was not written by predict; use --fresh or another --out")
        earlier = load_yaml(config)
        differing = [key for key in wanted if earlier.get(key) != wanted[key]]
        if differing:
            raise ValueError(
                f"{options.out}: belongs to another run; differing: {', '.join(differing)}; use --fresh to replace "
                "it, or another --out"
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(config, dump_yaml(wanted))


def _device(name: str) -> str:
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
