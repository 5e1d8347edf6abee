"""Images in batches: opened, asked about and answered, several batches at a time where the engine likes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

from scenerl.answers import GrammarSpec
from scenerl.answers.dialogue import Conversation
from scenerl.data.images import open_image
from scenerl.errors import DataError, UserError
from scenerl.inference.engine import Engine, Reply, Unanswered
from scenerl.types import Example


@dataclass(slots=True)
class Item:
    """One image: its prompt and then its replies, or why there are none.

    ``input_wh``: size in pixels of the resized input; None where it is not known. ``shape``: the form that its answers
    are held to; None leaves the model free.
    """

    example: Example
    input_wh: tuple[int, int] | None = None
    prompt: list[dict] | None = None
    replies: list[Reply] | None = None
    error: str | None = None
    shape: GrammarSpec | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Images that are answered in one call of the engine, with one seed."""

    items: list[Item]
    seed: int


def cut(examples: Iterable[Example], size: int, seed: int) -> Iterator[Batch]:
    """Batches by position, seeded by their number, so that they do not depend on what was done before.

    Raises:
        UserError: two examples share an ``image_id``.
    """
    seen: set[str] = set()
    examples, number = iter(examples), 0
    while part := list(islice(examples, size)):
        for example in part:
            if example.image_id in seen:
                raise UserError(f"two images of the data set have the image_id {example.image_id!r}")
            seen.add(example.image_id)
        yield Batch([Item(example) for example in part], (seed * 1_000_003 + number) % 2**63)
        number += 1


def open_images(batch: Batch, conversation: Conversation, engine: Engine | None = None) -> Batch:
    """The batch with a prompt for each image that can be asked about, and the error of each that cannot.

    Args:
        engine: answers will be held to their form by it; None: they will not be.

    Raises:
        UserError: no image's answer can be held to its form.
    """

    def opened(item: Item) -> Item:
        example, shape = item.example, None
        try:
            size, image = conversation.input_wh(example), open_image(example)
            prompt = conversation.prompt(example, image)
            if engine is not None:
                shape = conversation.grammar_spec(example)
                engine.check(shape)
        except DataError as error:
            return replace(item, error=str(error))
        except ValueError as error:
            if example.query is None:  # one vocabulary for all
                raise
            return replace(item, error=f"image {example.image_id!r}: {error}")
        return replace(item, input_wh=size, prompt=prompt, shape=shape)

    return replace(batch, items=[opened(item) for item in batch.items])


def answered(batches: Iterable[Batch], engine: Engine, ahead: int = 0) -> Iterator[Batch]:
    """Batches in order, with the replies to their prompts or the error of the engine; prompts are let go.

    Args:
        ahead: batches that are answered at a time, each in a thread; 0: one, in this thread.
    """
    if not ahead:
        yield from (_answer(batch, engine) for batch in batches)
        return
    pool = ThreadPoolExecutor(ahead)
    waiting: deque[Future[Batch]] = deque()
    try:
        for batch in batches:
            waiting.append(pool.submit(_answer, batch, engine))
            if len(waiting) == 2 * ahead:  # while the first is slow the threads have something to do
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _answer(batch: Batch, engine: Engine) -> Batch:
    asked = [item for item in batch.items if item.prompt is not None]
    if not asked:
        return batch
    try:
        shapes = {"shapes": [item.shape for item in asked]} if asked[0].shape else {}
        replies = iter(engine.answer([item.prompt for item in asked], batch.seed, **shapes))
    except Unanswered as error:
        items = [
            item
            if item.prompt is None
            else replace(item, prompt=None, error=f"image {item.example.image_id!r}: {error}")
            for item in batch.items
        ]
    else:
        items = [
            item if item.prompt is None else replace(item, prompt=None, replies=next(replies)) for item in batch.items
        ]
    return replace(batch, items=items)
