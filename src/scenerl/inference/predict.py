"""The ``predict`` command: one row for each image, resumable after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scenerl import data
from scenerl.answers import FORMATS, OutputFormat
from scenerl.answers.dialogue import Conversation
from scenerl.data.inspect.draw import write_drawings
from scenerl.data.provided import boxes_for
from scenerl.errors import DataError, UserError
from scenerl.files import check_out, check_out_folder, only_writer
from scenerl.inference.batches import Batch, Item, add_prompts, batched, generate
from scenerl.inference.confidence import score_graph
from scenerl.inference.engine import Engine, Sampling
from scenerl.inference.engines import DEFAULT_BATCH, ENGINES, Started, fingerprint_of
from scenerl.inference.fingerprint import check_is_ours
from scenerl.inference.shards import Shard, gather
from scenerl.predictions.counts import AnswerCounts
from scenerl.predictions.file import PredictionFile
from scenerl.predictions.merge_file import merge_file
from scenerl.predictions.notes import Notes
from scenerl.predictions.row import decode_parsed, error_row, prediction_row, read_rows
from scenerl.progress import progress_bar, track
from scenerl.types import Example, SceneGraph

if TYPE_CHECKING:
    from scenerl.commands.predict import PredictOptions


def predict(
    examples: Iterable[Example],
    conversation: Conversation,
    engine: Engine,
    out: Path,
    num_samples: int = 1,
    batch_size: int = DEFAULT_BATCH,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    concurrency: int = 0,
    shard: Shard | None = None,
    constrain: bool = False,
) -> tuple[AnswerCounts, list[str]]:
    """Answer every example and append a row each to ``out``, in order; rows that are there are not done again.

    Batches are made by position and seeded by their number, so an interrupted run ends with the same rows as one that
    was never interrupted. The next run tries an image without an answer again, whether it could not be read or the
    engine failed on it. Nobody else may write ``out`` meanwhile (:func:`scenerl.files.only_writer`).

    Args:
        progress: called with the number of images after each batch, those found done included.
        concurrency: batches that are answered at a time, each in a thread; 0: one, in this thread.
        shard: answer this part of the batches only.
        constrain: hold the answers to their format.

    Returns:
        The counts of the answers in the file, and a message for each image without one; its row has it too.

    Raises:
        UserError: ``out`` is not a prediction file, cannot be written, or two examples share an ``image_id``.
    """
    problems: list[str] = []
    with PredictionFile(out) as file:
        batches = batched(examples, batch_size, seed)
        if shard:
            batches = shard.of(batches)
        prompted = _with_prompts(batches, conversation, file, num_samples, engine if constrain else None)
        for batch in generate(prompted, engine, concurrency):
            for item in batch.items:
                problems += [item.error] if item.error else []
                _write(item, conversation, file, num_samples)
            if progress:
                progress(len(batch.items))
        return file.counts, problems


def _missing(example: Example, file: PredictionFile, num_samples: int) -> list[int]:
    """The samples of an example that have no row yet."""
    return [sample for sample in range(num_samples) if (example.image_id, sample) not in file.done]


def _with_prompts(
    batches: Iterable[Batch],
    conversation: Conversation,
    file: PredictionFile,
    num_samples: int,
    constrained_by: Engine | None,
) -> Iterator[Batch]:
    """The batches. Where an image lacks an answer its whole batch gets prompts, as its seed belongs to all of it."""

    def lacks_answer(item: Item) -> bool:
        return bool(_missing(item.example, file, num_samples)) or item.example.image_id in file.failed

    for batch in batches:
        if any(map(lacks_answer, batch.items)):
            batch = add_prompts(batch, conversation, constrained_by)
            if not any(item.prompt and lacks_answer(item) for item in batch.items):
                batch = replace(batch, items=[replace(item, prompt=None) for item in batch.items])
        yield batch


def _write(item: Item, conversation: Conversation, file: PredictionFile, num_samples: int) -> None:
    """Append the rows of an image that are missing; answers take the place of an error."""
    example, output_format = item.example, conversation.output_format
    if example.image_id in file.failed:
        if item.error:
            file.failed.discard(example.image_id)  # it failed again, and keeps its row
        elif item.replies:
            file.forget(file.failed)  # and the others that are still to be tried: the file is written anew once
    for sample in _missing(example, file, num_samples) if item.replies or item.error else ():
        if item.error:
            file.append(error_row(example, output_format, sample, item.error))
            continue
        reply = item.replies[sample]
        result = conversation.parse(reply.text, example, truncated=reply.finish_reason == "length")
        confidence = None
        if result.graph is not None and reply.logprobs is not None:
            confidence = score_graph(result.graph, conversation.locate(reply.text, example), reply)
        file.append(prediction_row(example, result, reply, output_format, item.input_wh, sample, confidence))


def run(options: PredictOptions) -> None:
    """The command. With ``merge`` the answers are in ``OUT.samples.jsonl``, and ``out`` is made of them at the end.

    Raises:
        UserError: bad options, data or checkpoint, a server that is not there or cannot do what is requested, a file of
            another run or one that another process is writing; and, once every image is done, that some have no answer
            (their rows hold the reason).
    """
    if options.images:
        out = options.out or Path(f"{Path(options.images[0]).stem or 'images'}.predictions.jsonl")
        options = replace(options, images=[], data="photos:" + "\n".join(options.images), out=out)
    check_out(options.out, [*options.data.splitlines(), options.vocabulary, options.boxes])
    if options.draw is not None:
        check_out_folder(options.draw, "draw")
    sampling = Sampling(**{field.name: getattr(options, field.name) for field in fields(Sampling)})
    choice = ENGINES[options.engine](options)
    examples = data.load(
        options.data,
        split=options.split,
        limit=options.limit,
        boxes=boxes_for(options),
        query=tuple(options.query) or None,
    )
    _check_query(options, choice.output_format)
    if choice.output_format.provided and not options.boxes and data.resolve(options.data)[0] == "photos":
        raise UserError("task: images have no annotated objects to provide; give a detector's with --boxes")
    # every row is read before the model is: a bad one ends the command at once
    total = sum(1 for _ in track(examples, "rows", options.limit))
    examples = replace(examples, quiet=True)
    fingerprint = fingerprint_of(options, choice)
    shard = Shard.parse(options.shard) if options.shard else None
    merged = options.out
    if options.merge:
        options = replace(options, out=merged.with_name(f"{merged.stem}.samples.jsonl"))
    if shard:  # a part holds answers; there is nothing to merge before all of them are there
        merged = shard.path(options.out)
        options = replace(options, out=merged, merge=False)
        fingerprint = fingerprint.of_shard(shard)
    with only_writer(merged, options.out):
        for file in {merged, options.out}:
            if file.exists() and file.stat().st_size:  # one without a row is nobody's
                if options.fresh:
                    check_is_ours(file)
                else:
                    # Greedy answers do not depend on their batch, and out of memory is what runs are stopped by.
                    is_free = options.temperature == 0 and not shard
                    fingerprint.check(file, free=("batch_size",) if is_free else ())
        if options.gather:
            counts, problems = gather(options.out, options.gather, examples, options.num_samples, fingerprint)
        else:
            with choice.start(sampling) as started:
                if options.constrain:
                    _check_constraints(examples, started)
                # The old files go only now that nothing can be wrong any more.
                if options.fresh:
                    options.out.unlink(missing_ok=True)
                    merged.unlink(missing_ok=True)
                fingerprint.write(options.out)
                size = started.batch_size
                own = shard.num_images(total, size) if shard else total
                name = f"predict {Path(options.model).name}{f' {shard}' if shard else ''}"
                with progress_bar(name, own) as advance:
                    counts, problems = predict(
                        examples,
                        started.conversation,
                        started.engine,
                        options.out,
                        options.num_samples,
                        size,
                        options.seed,
                        advance,
                        started.concurrency,
                        shard,
                        options.constrain,
                    )
        if options.merge:
            fingerprint.write(merged)
            merge_file(options.out, merged)
    if options.draw is not None and not shard:
        drawings = write_drawings(_predicted(examples, merged), options.draw)
        print(f"{options.draw}: {len(drawings)} pictures")
    print(f"{options.out}: {counts}")
    if options.constrain and not (choice.enforces_conditions or counts.is_clean):
        print("A server holds answers to the grammar alone, which does not rule these out (docs/serving.md)")
    if problems:
        raise UserError(
            f"{options.data}: {len(problems)} of {total} images have no answer in {options.out}, "
            f"the first: {problems[0]}"
        )


def _predicted(examples: Iterable[Example], out: Path) -> Iterator[Example]:
    """The examples with what their first answers say in place of the ground truth, where they have one."""
    first = {row["image_id"]: (row, where) for where, row in read_rows(out) if not row["sample"] and "error" not in row}
    for example in examples:
        if example.image_id in first:
            graph = decode_parsed(*first[example.image_id], Notes(out)).graph
            yield replace(example, graph=graph or SceneGraph())


def _check_query(options: PredictOptions, output_format: OutputFormat) -> None:
    """Raise UserError where labels are given to a model that takes none, or images to one that needs them."""
    is_graph = FORMATS[output_format.format].graph
    if options.query and is_graph:
        raise UserError(
            f"query: {options.model} writes whole scene graphs ({output_format.format}) and takes no query; "
            "labels are looked for with --format detections"
        )
    is_without = not options.query and output_format.objects is None and data.resolve(options.data)[0] == "photos"
    if not is_graph and is_without:
        raise UserError("query: detection needs the labels to look for: --query LABEL …, or --vocabulary")


def _check_constraints(examples: Iterable[Example], started: Started) -> None:
    """Raise UserError where no image's answer can be held to its format."""
    for example in examples:
        if example.query is not None:
            return  # each has a vocabulary of its own
        try:
            shape = started.conversation.grammar_spec(example)
        except DataError:
            continue  # an image that is no size for the model; its row will hold the error
        started.engine.check(shape)
        return
