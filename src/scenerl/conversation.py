"""The one object that says how a model is asked and how its answer is read: in training, rollout and prediction alike.

A mismatch of a single token between the prompt of training and that of prediction costs a small model half its recall
(docs/log.md), so nothing else builds messages, writes answers for a model or parses what it said. It is saved with
every checkpoint as ``scenerl.json`` and read back by ``scenerl predict`` and ``scenerl grpo``.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from scenerl.answers import AnswerShape, AnswerStyle, Located, build_prompt, locate_elements, parse_answer, write_answer
from scenerl.answers.formats import FORMATS
from scenerl.answers.style import GIVEN
from scenerl.answers.thoughts import THOUGHTS
from scenerl.answers.writer import frame_coordinates
from scenerl.data.given import answer_graph
from scenerl.data.rows import DataError
from scenerl.data.vocabulary import Vocabulary
from scenerl.frames import frame_wh
from scenerl.models.family import Family
from scenerl.models.loading import Checkpoint, is_hub_name
from scenerl.runs import atomic_write_text
from scenerl.types import Example, ParseResult

FILE_NAME = "scenerl.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Conversation:
    """How one checkpoint is asked and answers.

    Attributes:
        style: format, envelope, vocabulary and frame of the answer.
        checkpoint: model and processor; they decide how images are resized, and so the ``resized`` frame. Where a
            server runs the model there is none, and maybe no processor either.
    """

    style: AnswerStyle
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

    def _style_for(self, example: Example) -> AnswerStyle:
        """The style with the labels asked for as its vocabulary, where the example asks for some."""
        return replace(self.style, objects=example.query) if example.query is not None else self.style

    def prompt(self, example: Example, image) -> list[dict]:
        """The user message: the image first, then the text.

        Args:
            image: a PIL image; None leaves the part without one (TRL's SFT puts images in itself).

        Raises:
            DataError: a label is, or holds, what stands for visual input: the model would look for a second image.
        """
        picture = {"type": "image"} if image is None else {"type": "image", "image": image}
        text = build_prompt(self.style, example.query, self._given(example))
        for token in self.checkpoint.family.banned_tokens:
            if token in text:
                raise DataError(
                    f"image {example.image_id!r}: a label holds {token!r}, which means an image to the model"
                )
        return [{"role": "user", "content": [picture, {"type": "text", "text": text}]}]

    def _given(self, example: Example) -> list[tuple[str, list]]:
        """The objects that the prompt gives, boxes in the style's frame; none where the task gives none."""
        if self.style.given is None:
            return []
        objects = example.graph.objects if example.given is None else example.given
        boxes = [item.box for item in objects]
        numbers = frame_coordinates(boxes, self.style, example.image_wh, self.input_wh(example))
        return [(item.label, box) for item, box in zip(objects, numbers, strict=True)]

    def completion(self, example: Example, thought: str = "empty") -> list[dict]:
        """The assistant message that imitates the ground truth, of the given objects where a detector gave them.

        Args:
            thought: a name from :data:`~scenerl.answers.thoughts.THOUGHTS`; any but ``empty`` needs envelope ``think``.
        """
        graph = answer_graph(example, self.style.given)
        before = THOUGHTS[thought](graph, example.query)
        text = write_answer(graph, self._style_for(example), example.image_wh, self.input_wh(example), before)
        return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]

    def parse(self, answer: str | None, example: Example, truncated: bool = False) -> ParseResult:
        """What an answer to :meth:`prompt` says, in pixels of the original image."""
        return parse_answer(
            answer,
            self._style_for(example),
            example.image_wh,
            self.input_wh(example),
            truncated=truncated,
        )

    def locate(self, answer: str | None, example: Example) -> Located:
        """Where in an answer the elements stand that :meth:`parse` keeps."""
        return locate_elements(answer, self._style_for(example))

    def shape(self, example: Example) -> AnswerShape:
        """The form that an answer to :meth:`prompt` must have, where decoding is constrained."""
        bounds_wh = frame_wh(self.style.frame, example.image_wh, self.input_wh(example))
        return AnswerShape(self._style_for(example), bounds_wh)

    def save(self, folder: str | Path) -> None:
        """Write ``scenerl.json`` beside a checkpoint's files."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        text = json.dumps({"style": asdict(self.style)}, indent=2, ensure_ascii=False)
        atomic_write_text(Path(folder) / FILE_NAME, text + "\n")


def saved_style(name: str | Path) -> AnswerStyle | None:
    """The style a checkpoint (folder or hub name) was trained with, or None where it was not trained by us.

    Raises:
        ValueError: ``scenerl.json`` is there but cannot be read; the message names it.
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
    try:
        return AnswerStyle(**json.loads(path.read_text(encoding="utf-8"))["style"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a saved conversation ({error})") from error


def style_for(options, family: Family, is_new: bool = False) -> AnswerStyle:
    """The answer style of a run: what the options say, else what the checkpoint was trained with, else the defaults.

    The frame is always the model family's. ``is_new``: the model is yet to be built, so there is no checkpoint to ask.

    Raises:
        ValueError: options that do not go together, or a file that cannot be read.
    """
    saved = None if is_new else saved_style(options.model)
    style = saved or AnswerStyle()
    objects, predicates = style.objects, style.predicates
    if options.vocabulary is not None:
        vocabulary = Vocabulary.read(options.vocabulary)
        objects, predicates = vocabulary.objects, vocabulary.predicates
    answer_format, given = options.format or style.format, style.given
    if options.task is not None:
        given = {task: name for name, task in GIVEN.items()}.get(options.task)
        if FORMATS[answer_format].graph == (options.task == "det"):
            if options.format is not None:
                raise ValueError(f"task {options.task} and format {options.format} do not go together")
            answer_format = "detections" if options.task == "det" else AnswerStyle().format
    if options.boxes is not None and given is None:
        raise ValueError(f"boxes are for the tasks {' and '.join(GIVEN.values())}; choose one with task")
    style = AnswerStyle(
        format=answer_format,
        envelope=options.envelope or style.envelope,
        objects=objects,
        predicates=predicates,
        frame=family.frame,
        grid=options.grid or style.grid,
        given=given,
    )
    if saved is not None and saved != style:
        changed = [key for key, value in asdict(style).items() if asdict(saved)[key] != value]
        _log.warning("%s was trained with another %s", options.model, " and ".join(changed))
    return style
