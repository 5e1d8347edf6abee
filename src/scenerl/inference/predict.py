"""The ``predict`` command: one row for each image, resumable after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from scenerl import data
from scenerl.answers import AnswerStyle
from scenerl.config import PredictOptions, dump_yaml, load_yaml, plain
from scenerl.conversation import Conversation, style_for
from scenerl.data.images import open_image
from scenerl.data.rows import DataError
from scenerl.inference.confidence import score_graph
from scenerl.inference.engine import Engine, Sampling
from scenerl.inference.hf import HFEngine
from scenerl.inference.rows import PredictionFile, error_row, prediction_row
from scenerl.models.loading import family_of, load, weights_digest
from scenerl.progress import progress_bar
from scenerl.runs import atomic_write_text
from scenerl.types import Example

DEFAULT_BATCH = 16
_SINCE = {"logprobs": False}
"""What options meant that files of earlier versions do not name."""


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
    was never interrupted. An image that could not be read is tried again.

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
            if any(_missing(example, file, num_samples) or example.image_id in file.failed for example in batch):
                batch_seed = (seed * 1_000_003 + number) % 2**63
                problems += _answer_batch(batch, conversation, engine, file, num_samples, batch_seed)
            if progress:
                progress(len(batch))
    return problems


def _missing(example: Example, file: PredictionFile, num_samples: int) -> list[int]:
    """The samples of an example that have no row yet."""
    return [sample for sample in range(num_samples) if (example.image_id, sample) not in file.done]


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
    readable, sizes, prompts, problems = [], [], [], []
    for example in batch:
        try:
            size, image = conversation.input_wh(example), open_image(example)
        except DataError as error:
            problems.append(str(error))
            for sample in _missing(example, file, num_samples):
                file.append(error_row(example, frame, sample, str(error)))
            continue
        if example.image_id in file.failed:
            file.forget(example.image_id)
        readable.append(example)
        sizes.append(size)
        prompts.append(conversation.prompt(example, image))
    if not any(_missing(example, file, num_samples) for example in readable):
        return problems
    for example, size, replies in zip(readable, sizes, engine.answer(prompts, seed), strict=True):
        for sample in _missing(example, file, num_samples):
            reply = replies[sample]
            result = conversation.parse(reply.text, example, truncated=reply.finish_reason == "length")
            confidence = None
            if result.graph is not None and reply.logprobs is not None:
                confidence = score_graph(result.graph, conversation.locate(reply.text, example), reply)
            file.append(prediction_row(example, result, reply, frame, size, sample, confidence))
    return problems


def run(options: PredictOptions) -> None:
    """The command.

    Raises:
        ValueError: bad options, data or checkpoint, a file of another run; and, once every image is done, that some
            could not be read (their rows say why).
    """
    sampling = Sampling(
        options.max_new_tokens,
        options.temperature,
        options.top_p,
        options.top_k,
        options.num_samples,
        options.logprobs,
    )
    style = style_for(options, family_of(options.model))
    device = _device(options.device)
    examples = data.load(options.data, split=options.split, limit=options.limit)
    total = sum(1 for _ in examples)  # every row is read before the model is: a bad one ends the command at once
    fingerprint = _fingerprint(options, style)
    _check_owner(options, fingerprint)
    checkpoint = load(options.model, options.dtype, device, options.min_pixels, options.max_pixels)
    # The old file goes only now that nothing can be wrong any more.
    if options.fresh:
        options.out.unlink(missing_ok=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(_config_path(options.out), dump_yaml(fingerprint))
    with progress_bar(f"predict {Path(options.model).name}", total) as advance:
        problems = predict(
            replace(examples, quiet=True),
            Conversation(style, checkpoint),
            HFEngine(checkpoint, sampling),
            options.out,
            options.num_samples,
            options.batch_size or DEFAULT_BATCH,
            options.seed,
            advance,
        )
    if problems:
        raise ValueError(
            f"{options.data}: {len(problems)} of {total} images could not be read and have no answer in {options.out}, "
            f"the first: {problems[0]}"
        )


def _config_path(out: Path) -> Path:
    """What a file of predictions was made with stands beside it."""
    return out.with_name(f"{out.name}.yaml")


def _fingerprint(options: PredictOptions, style: AnswerStyle) -> dict[str, Any]:
    """Everything the answers depend on: the options, how the model is asked, and its weights."""
    wanted = {key: value for key, value in plain(options).items() if key not in ("fresh", "out", "device")}
    return {**wanted, "style": plain(style), "weights": weights_digest(options.model)}


def _check_owner(options: PredictOptions, fingerprint: dict[str, Any]) -> None:
    """Refuse to touch a file that is not of predictions, and to go on with those of another run."""
    config = _config_path(options.out)
    if not options.out.exists():
        return
    if not (options.out.is_file() and config.is_file()):
        raise ValueError(f"{options.out}: exists but was not written by predict; choose another --out")
    earlier = {**_SINCE, **load_yaml(config)}
    differing = [key for key in fingerprint if earlier.get(key) != fingerprint[key]]
    if differing and not options.fresh:
        raise ValueError(
            f"{options.out}: belongs to another run; differing: {', '.join(differing)}; use --fresh to replace "
            "it, or another --out"
        )


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # an unknown name, a device that is not there, a torch without it
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}); allowed: auto, cpu, cuda, cuda:1, …") from error
    return name
