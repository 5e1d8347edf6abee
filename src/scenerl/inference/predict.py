"""The ``predict`` command: one row for each image, resumable after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scenerl import data
from scenerl.answers.dialogue import Conversation
from scenerl.data.provided import boxes_for
from scenerl.errors import DataError, UserError
from scenerl.files import check_out, only_writer
from scenerl.inference.batches import Batch, Item, answered, cut, open_images
from scenerl.inference.confidence import score_graph
from scenerl.inference.engine import Engine, Sampling
from scenerl.inference.engines import DEFAULT_BATCH, ENGINES, Started, fingerprint
from scenerl.inference.marks import check_owner, write_mark
from scenerl.inference.shards import Shard, gather
from scenerl.inference.tally import Outcome
from scenerl.predictions.file import PredictionFile
from scenerl.predictions.merge_file import merge_file
from scenerl.predictions.row import error_row, prediction_row
from scenerl.progress import progress_bar, track
from scenerl.types import Example

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
    ahead: int = 0,
    shard: Shard | None = None,
    constrain: bool = False,
) -> Outcome:
    """Answer every example and append a row each to ``out``, in order; rows that are there are not done again.

    Batches are cut by position and seeded by their number, so an interrupted run ends with the same rows as one that
    was never interrupted. An image without an answer, because it could not be read or the engine failed on it, is tried
    again by the next run. Nobody else may write ``out`` meanwhile (:func:`scenerl.files.only_writer`).

    Args:
        progress: called with the number of images after each batch, those found done included.
        ahead: batches that are answered at a time, each in a thread; 0: one, in this thread.
        shard: answer this part of the batches only.
        constrain: hold the answers to their format.

    Returns:
        What became of the answers, with a message for each image that has none; its row says so too.

    Raises:
        UserError: ``out`` is not a prediction file, cannot be written, or two examples share an ``image_id``.
    """
    problems: list[str] = []
    with PredictionFile(out) as file:
        batches = cut(examples, batch_size, seed)
        if shard:
            batches = shard.of(batches)
        held_by = engine if constrain else None
        for batch in answered(_to_answer(batches, conversation, file, num_samples, held_by), engine, ahead):
            for item in batch.items:
                problems += [item.error] if item.error else []
                _write(item, conversation, file, num_samples)
            if progress:
                progress(len(batch.items))
        return Outcome(file.counts, problems)


def _missing(example: Example, file: PredictionFile, num_samples: int) -> list[int]:
    """The samples of an example that have no row yet."""
    return [sample for sample in range(num_samples) if (example.image_id, sample) not in file.done]


def _to_answer(
    batches: Iterable[Batch], conversation: Conversation, file: PredictionFile, num_samples: int, held_by: Engine | None
) -> Iterator[Batch]:
    """The batches, with prompts for all of their images, as their seed wants it, where one has to be answered."""

    def wanted(item: Item) -> bool:
        return bool(_missing(item.example, file, num_samples)) or item.example.image_id in file.failed

    for batch in batches:
        if any(map(wanted, batch.items)):
            batch = open_images(batch, conversation, held_by)
            if not any(item.prompt and wanted(item) for item in batch.items):
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
        UserError: bad options, data or checkpoint, a server that is not there or cannot do what is asked, a file of
            another run or one that another process is writing; and, once every image is done, that some have no answer
            (their rows say why).
    """
    check_out(options.out, [options.data, options.vocabulary, options.boxes])
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
    # every row is read before the model is: a bad one ends the command at once
    total = sum(1 for _ in track(examples, "rows", options.limit))
    examples = replace(examples, quiet=True)
    mark = fingerprint(options, choice)
    shard = Shard.parse(options.shard) if options.shard else None
    merged = options.out
    if options.merge:
        options = replace(options, out=merged.with_name(f"{merged.stem}.samples.jsonl"))
    if shard:  # a part holds answers; there is nothing to merge before all of them are there
        merged = shard.path(options.out)
        options = replace(options, out=merged, merge=False)
        mark["shard"] = str(shard)
    with only_writer(merged, options.out):
        for file in (merged, options.out):
            check_owner(file, mark, options.fresh)
        if options.gather:
            outcome = gather(options.out, options.gather, examples, options.num_samples, mark)
        else:
            with choice.start(sampling) as started:
                if options.constrain:
                    _check_form(examples, started)
                # The old files go only now that nothing can be wrong any more.
                if options.fresh:
                    options.out.unlink(missing_ok=True)
                    merged.unlink(missing_ok=True)
                write_mark(options.out, mark)
                outcome = _answer(options, started, examples, total, shard)
        if options.merge:
            write_mark(merged, mark)
            merge_file(options.out, merged)
    print(f"{options.out}: {outcome.counts}")
    if options.constrain and not (choice.sees_conditions or outcome.counts.is_clean):
        print("A server holds answers to the grammar alone, which does not rule these out (docs/serving.md)")
    if outcome.problems:
        raise UserError(
            f"{options.data}: {len(outcome.problems)} of {total} images have no answer in {options.out}, "
            f"the first: {outcome.problems[0]}"
        )


def _check_form(examples: Iterable[Example], started: Started) -> None:
    """Raise ValueError where no image's answer can be held to its form."""
    for example in examples:
        if example.query is not None:
            return  # each has a vocabulary of its own
        try:
            shape = started.conversation.grammar_spec(example)
        except DataError:
            continue  # an image that is no size for the model; its row will say so
        started.engine.check(shape)
        return


def _answer(
    options: PredictOptions, started: Started, examples: Iterable[Example], total: int, shard: Shard | None
) -> Outcome:
    """:func:`predict` as the options say, with a progress bar over this part of ``total`` images."""
    if shard:
        total = shard.num_images(total, started.batch_size)
    name = f"predict {Path(options.model).name}{f' {shard}' if shard else ''}"
    with progress_bar(name, total) as advance:
        return predict(
            examples,
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
