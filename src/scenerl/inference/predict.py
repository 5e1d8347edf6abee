"""The ``predict`` command: one row for each image, resumable after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from scenerl import data
from scenerl.config import PredictOptions, dump_yaml, load_yaml
from scenerl.conversation import Conversation
from scenerl.data.given import boxes_for
from scenerl.inference.batches import Batch, Item, answered, cut, open_images
from scenerl.inference.confidence import score_graph
from scenerl.inference.engine import Engine, Sampling
from scenerl.inference.engines import DEFAULT_BATCH, ENGINES, fingerprint
from scenerl.inference.merge_files import merge_file
from scenerl.inference.rows import PredictionFile, error_row, prediction_row
from scenerl.inference.shards import Shard, gather
from scenerl.progress import progress_bar
from scenerl.runs import atomic_write_text
from scenerl.types import Example

_SINCE = {
    "logprobs": False,
    "engine": "hf",
    "merge": False,
    "constrain": False,
    "trust_remote_code": False,
    "allow_pickle": False,
}
"""What options meant that files of earlier versions do not name."""

_STYLE_SINCE = {"given": None}
"""The same of the answer style's fields."""


def predict(
    examples: Iterable[Example],
    conversation: Conversation,
    engine: Engine,
    out: Path,
    num_samples: int = 1,
    batch_size: int = DEFAULT_BATCH,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    ahead: int = 0,
    shard: Shard | None = None,
    constrain: bool = False,
) -> list[str]:
    """Answer every example and append a row each to ``out``, in order; rows that are there are not done again.

    Batches are cut by position and seeded by their number, so an interrupted run ends with the same rows as one that
    was never interrupted. An image without an answer, because it could not be read or the engine failed on it, is tried
    again by the next run.

    Args:
        progress: called with the number of images after each batch, those found done included.
        ahead: batches that are answered at a time, each in a thread; 0: one, in this thread.
        shard: answer this part of the batches only.
        constrain: hold the answers to their format.

    Returns:
        A message for each image that has no answer; its row says so too.

    Raises:
        ValueError: ``out`` is not a prediction file, cannot be written, or two examples share an ``image_id``.
    """
    problems: list[str] = []
    with PredictionFile(out) as file:
        batches = cut(examples, batch_size, seed)
        batches = _to_answer(shard.of(batches) if shard else batches, conversation, file, num_samples, constrain)
        for batch in answered(batches, engine, ahead):
            for item in batch.items:
                problems += [item.error] if item.error else []
                _write(item, conversation, file, num_samples)
            if progress:
                progress(len(batch.items))
    return problems


def _missing(example: Example, file: PredictionFile, num_samples: int) -> list[int]:
    """The samples of an example that have no row yet."""
    return [sample for sample in range(num_samples) if (example.image_id, sample) not in file.done]


def _to_answer(
    batches: Iterable[Batch], conversation: Conversation, file: PredictionFile, num_samples: int, constrain: bool
) -> Iterator[Batch]:
    """The batches, with prompts for all of their images, as their seed wants it, where one has to be answered."""

    def wanted(item: Item) -> bool:
        return bool(_missing(item.example, file, num_samples)) or item.example.image_id in file.failed

    for batch in batches:
        if any(map(wanted, batch.items)):
            batch = open_images(batch, conversation, constrain)
            if not any(item.prompt and wanted(item) for item in batch.items):
                batch = replace(batch, items=[replace(item, prompt=None) for item in batch.items])
        yield batch


def _write(item: Item, conversation: Conversation, file: PredictionFile, num_samples: int) -> None:
    """Append the rows of an image that are missing; answers take the place of an error."""
    example, style = item.example, conversation.style
    if item.replies and example.image_id in file.failed:
        file.forget(example.image_id)
    for sample in _missing(example, file, num_samples) if item.replies or item.error else ():
        if item.error:
            file.append(error_row(example, style, sample, item.error))
            continue
        reply = item.replies[sample]
        result = conversation.parse(reply.text, example, truncated=reply.finish_reason == "length")
        confidence = None
        if result.graph is not None and reply.logprobs is not None:
            confidence = score_graph(result.graph, conversation.locate(reply.text, example), reply)
        file.append(prediction_row(example, result, reply, style, item.input_wh, sample, confidence))


def run(options: PredictOptions) -> None:
    """The command. With ``merge`` the answers are in ``OUT.samples.jsonl``, and ``out`` is made of them at the end.

    Raises:
        ValueError: bad options, data or checkpoint, a server that is not there or cannot do what is asked, a file of
            another run; and, once every image is done, that some have no answer (their rows say why).
    """
    sampling = Sampling(
        options.max_new_tokens,
        options.temperature,
        options.top_p,
        options.top_k,
        options.num_samples,
        options.logprobs,
    )
    choice = ENGINES[options.engine](options)
    examples = data.load(options.data, split=options.split, limit=options.limit, boxes=boxes_for(options))
    total = sum(1 for _ in examples)  # every row is read before the model is: a bad one ends the command at once
    mark = fingerprint(options, choice)
    shard = Shard.parse(options.shard) if options.shard else None
    if shard:
        options = replace(options, out=shard.path(_samples_path(options)), merge=False)
        mark["shard"] = str(shard)
    merged = options.out
    if options.merge:
        _check_owner(merged, mark, options.fresh)
        options = replace(options, out=_samples_path(options))
    _check_owner(options.out, mark, options.fresh)
    if options.gather:
        problems = gather(
            options.out, options.gather, replace(examples, quiet=True), options.num_samples, mark, _config_path
        )
        _finish(options, merged, mark, problems, total)
        return
    with choice.start(sampling) as started:
        # The old file goes only now that nothing can be wrong any more.
        if options.fresh:
            options.out.unlink(missing_ok=True)
            merged.unlink(missing_ok=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(_config_path(options.out), dump_yaml(mark))
        if shard:
            total = shard.num_images(total, started.batch_size)
        name = f"predict {Path(options.model).name}{f' {shard}' if shard else ''}"
        with progress_bar(name, total) as advance:
            problems = predict(
                replace(examples, quiet=True),
                started.conversation,
                started.engine,
                options.out,
                options.num_samples,
                started.batch_size,
                options.seed,
                advance,
                started.ahead,
                shard,
                options.constrain,
            )
    _finish(options, merged, mark, problems, total)


def _samples_path(options: PredictOptions) -> Path:
    """Where the answers themselves go: with ``merge`` beside the file of merged ones."""
    return options.out.with_name(f"{options.out.stem}.samples.jsonl") if options.merge else options.out


def _finish(options: PredictOptions, merged: Path, mark: dict[str, Any], problems: list[str], total: int) -> None:
    """Merge what is to be merged, and say which images have no answer."""
    if options.merge:
        atomic_write_text(_config_path(merged), dump_yaml(mark))
        merge_file(options.out, merged)
    if problems:
        raise ValueError(
            f"{options.data}: {len(problems)} of {total} images have no answer in {options.out}, "
            f"the first: {problems[0]}"
        )


def _config_path(out: Path) -> Path:
    """What a file of predictions was made with stands beside it."""
    return out.with_name(f"{out.name}.yaml")


def _check_owner(out: Path, mark: dict[str, Any], fresh: bool) -> None:
    """Refuse to touch a file that is not of predictions, and to go on with those of another run."""
    config = _config_path(out)
    if not out.exists():
        return
    if not (out.is_file() and config.is_file()):
        raise ValueError(f"{out}: exists but was not written by predict; choose another --out")
    earlier = {**_SINCE, **load_yaml(config)}
    if isinstance(earlier.get("style"), dict):
        earlier["style"] = {**_STYLE_SINCE, **earlier["style"]}
    differing = [key for key in mark if earlier.get(key) != mark[key]]
    if differing and not fresh:
        raise ValueError(
            f"{out}: belongs to another run; differing: {', '.join(differing)}; use --fresh to replace "
            "it, or another --out"
        )
