"""The one object that says how a model is asked and how its answer is read: in training, rollout and prediction alike.

A mismatch of a single token between the prompt of training and that of prediction costs a small model half its recall
(docs/log.md), so nothing else builds messages, writes answers for a model or parses what it said. It is saved with
every checkpoint as ``scenerl.json`` and read back by ``scenerl predict`` and ``scenerl grpo``.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from scenerl.answers import (
    GrammarSpec,
    Located,
    OutputFormat,
    build_prompt,
    locate_elements,
    parse_answer,
    write_answer,
)
from scenerl.answers.dialogue import FILE_NAME, read_output_format, save_output_format
from scenerl.answers.formats import FORMATS
from scenerl.answers.output_format import PROVIDED
from scenerl.answers.provided import answer_graph
from scenerl.answers.reasoning import REASONING
from scenerl.answers.writer import box_coordinates
from scenerl.box_formats import extent_wh
from scenerl.data.vocabulary import Vocabulary
from scenerl.errors import DataError, UserError
from scenerl.models.family import Family
from scenerl.models.loading import Checkpoint, is_hub_name
from scenerl.types import Example, ParseResult

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Conversation:
    """How one checkpoint is asked and answers.

    Attributes:
        output_format: format, envelope, vocabulary and frame of the answer.
        checkpoint: model and processor; they decide how images are resized, and so the ``resized`` frame. Where a
            server runs the model there is none, and maybe no processor either.
    """

    output_format: OutputFormat
    checkpoint: Checkpoint

    def input_wh(self, example: Example) -> tuple[int, int] | None:
        """Size in pixels of the resized input that the model sees of an example's image; None without a processor.

        Raises:
            DataError: the model takes no image of this shape; names the image.
        """
        if self.checkpoint.processor is None:
            return None
        try:
            return self.checkpoint.family.input_wh(self.checkpoint.processor, example.image_wh)
        except ValueError as error:
            width, height = example.image_wh
            raise DataError(
                f"image {example.image_id!r}: {width} x {height} is no size for the model ({error})"
            ) from error

    def _format_for(self, example: Example) -> OutputFormat:
        """The style with the labels asked for as its vocabulary, where the example asks for some."""
        return replace(self.output_format, objects=example.query) if example.query is not None else self.output_format

    def prompt(self, example: Example, image) -> list[dict]:
        """The user message: the image first, then the text.

        Args:
            image: a PIL image; None leaves the part without one (TRL's SFT puts images in itself).

        Raises:
            DataError: a label is, or holds, what stands for visual input: the model would look for a second image.
        """
        picture = {"type": "image"} if image is None else {"type": "image", "image": image}
        text = build_prompt(self.output_format, example.query, self._provided(example))
        for token in self.checkpoint.family.banned_tokens:
            if token in text:
                raise DataError(
                    f"image {example.image_id!r}: a label holds {token!r}, which means an image to the model"
                )
        return [{"role": "user", "content": [picture, {"type": "text", "text": text}]}]

    def _provided(self, example: Example) -> list[tuple[str, list]]:
        """The objects that the prompt gives, boxes in the style's frame; none where the task gives none."""
        if self.output_format.provided is None:
            return []
        objects = example.graph.objects if example.provided is None else example.provided
        boxes = [item.box for item in objects]
        numbers = box_coordinates(boxes, self.output_format, example.image_wh, self.input_wh(example))
        return [(item.label, box) for item, box in zip(objects, numbers, strict=True)]

    def completion(self, example: Example, reasoning: str = "empty") -> list[dict]:
        """The assistant message that imitates the ground truth, of the given objects where a detector gave them.

        Args:
            reasoning: a name from :data:`~scenerl.answers.reasoning.REASONING`; any but ``empty`` needs envelope ``think``.
        """
        graph = answer_graph(example, self.output_format.provided)
        before = REASONING[reasoning](graph, example.query)
        text = write_answer(graph, self._format_for(example), example.image_wh, self.input_wh(example), before)
        return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]

    def parse(
        self, answer: str | None, example: Example, truncated: bool = False, strict: bool = False
    ) -> ParseResult:
        """What an answer to :meth:`prompt` says, in pixels of the original image."""
        return parse_answer(
            answer,
            self._format_for(example),
            example.image_wh,
            self.input_wh(example),
            truncated=truncated,
            strict=strict,
        )

    def locate(self, answer: str | None, example: Example) -> Located:
        """Where in an answer the elements stand that :meth:`parse` keeps."""
        return locate_elements(answer, self._format_for(example))

    def shape(self, example: Example) -> GrammarSpec:
        """The form that an answer to :meth:`prompt` must have, where decoding is constrained."""
        bounds_wh = extent_wh(self.output_format.box_format, example.image_wh, self.input_wh(example))
        return GrammarSpec(self._format_for(example), bounds_wh)

    def save(self, folder: str | Path) -> None:
        """Write ``scenerl.json`` beside a checkpoint's files."""
        save_output_format(self.output_format, folder)


def saved_output_format(name: str | Path) -> OutputFormat | None:
    """The style a checkpoint (folder or hub name) was trained with, or None where it was not trained by us.

    Raises:
        UserError: ``scenerl.json`` is there but cannot be read; the message names it.
    """
    path = Path(name) / FILE_NAME
    if is_hub_name(name):
        from transformers.utils import cached_file

        try:
            path = Path(cached_file(str(name), FILE_NAME))
        except OSError:  # the hub, or its local copy, has no such file
            return None
    if not path.is_file():
        return None
    return read_output_format(path)


def output_format_for(options, family: Family, is_new: bool = False) -> OutputFormat:
    """The answer style of a run: what the options say, else what the checkpoint was trained with, else the defaults.

    The frame is always the model family's. ``is_new``: the model is yet to be built, so there is no checkpoint to ask.

    Raises:
        UserError: options that do not go together, or a file that cannot be read.
    """
    saved = None if is_new else saved_output_format(options.model)
    output_format = saved or OutputFormat()
    objects, predicates = output_format.objects, output_format.predicates
    if options.vocabulary is not None:
        vocabulary = Vocabulary.read(options.vocabulary)
        objects, predicates = vocabulary.objects, vocabulary.predicates
    answer_format, provided = options.format or output_format.format, output_format.provided
    if options.task is not None:
        provided = {task: name for name, task in PROVIDED.items()}.get(options.task)
        if FORMATS[answer_format].graph == (options.task == "det"):
            if options.format is not None:
                raise UserError(f"task {options.task} and format {options.format} do not go together")
            answer_format = "detections" if options.task == "det" else OutputFormat().format
    if options.boxes is not None and provided is None:
        raise UserError(f"boxes are for the tasks {' and '.join(PROVIDED.values())}; choose one with task")
    output_format = OutputFormat(
        format=answer_format,
        template=options.envelope or output_format.template,
        objects=objects,
        predicates=predicates,
        box_format=family.box_format,
        step=options.grid or output_format.step,
        provided=provided,
    )
    if saved is not None and saved != output_format:
        changed = [key for key, value in asdict(output_format).items() if asdict(saved)[key] != value]
        _log.warning("%s was trained with another %s", options.model, " and ".join(changed))
    return output_format
