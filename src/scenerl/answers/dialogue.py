"""The one object that says how a model is prompted and how its text is read: in training, rollout, prediction, scoring
and evaluation alike.

A mismatch of a single token between the prompt of training and that of prediction costs a small model half its recall
(docs/log.md), so nothing else builds prompts or target answers for a model, or parses what it said. It needs neither
torch nor transformers. Its output format is saved beside every checkpoint as ``scenerl.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from scenerl import __version__
from scenerl.answers.grammar import GrammarSpec
from scenerl.answers.locate import Located, locate_elements
from scenerl.answers.order import in_order
from scenerl.answers.output_format import OutputFormat
from scenerl.answers.parser import parse_answer
from scenerl.answers.prompts import build_prompt
from scenerl.answers.provided import answer_graph
from scenerl.answers.reasoning import REASONING
from scenerl.answers.writer import box_coordinates, write_answer
from scenerl.box_formats import extent_wh
from scenerl.errors import DataError, UserError
from scenerl.files import atomic_write_text
from scenerl.json_files import read_json
from scenerl.types import Example, ParseResult

FILE_NAME = "scenerl.json"

Size = tuple[int, int]

_KEYS_BEFORE_0_2 = {"envelope": "template", "frame": "box_format", "grid": "step", "given": "provided"}


@dataclass(frozen=True, slots=True)
class Conversation:
    """How one model is prompted and read.

    Attributes:
        output_format: of the answer. An example's query takes the place of its vocabulary of objects.
        resize: (width, height) of an image to that of the resized input which the model sees, both in pixels; None
            where no processor is at hand. The box format ``resized`` needs it.
        visual_tokens: texts that stand for visual input in a prompt and must not occur in labels.
    """

    output_format: OutputFormat
    resize: Callable[[Size], Size] | None = None
    visual_tokens: tuple[str, ...] = ()

    def input_wh(self, example: Example) -> Size | None:
        """Size in pixels of the resized input that the model sees of an example's image; None without a processor.

        Raises:
            DataError: the model takes no image of this shape; names the image.
        """
        if self.resize is None:
            return None
        try:
            return self.resize(example.image_wh)
        except ValueError as error:
            width, height = example.image_wh
            raise DataError(
                f"image {example.image_id!r}: {width} x {height} is no size for the model ({error})"
            ) from error

    def format_for(self, example: Example) -> OutputFormat:
        """The output format, with the requested labels as its vocabulary where the example has a query."""
        if example.query is None:
            return self.output_format
        return replace(self.output_format, objects=example.query)

    def prompt(self, example: Example, image) -> list[dict]:
        """The user message: the image first, then the text.

        Args:
            image: a PIL image; None leaves the part without one (TRL's SFT puts images in itself).

        Raises:
            DataError: a label holds a visual token: the model would look for a second image.
        """
        picture = {"type": "image"} if image is None else {"type": "image", "image": image}
        text = build_prompt(self.output_format, example.query, self._provided(example), example.referring)
        for token in self.visual_tokens:
            if token in text:
                raise DataError(
                    f"image {example.image_id!r}: a label holds {token!r}, which means an image to the model"
                )
        return [{"role": "user", "content": [picture, {"type": "text", "text": text}]}]

    def _provided(self, example: Example) -> list[tuple[str, list]]:
        """Label and box numbers of the objects that the prompt provides."""
        if self.output_format.provided is None:
            return []
        objects = example.graph.objects if example.provided is None else example.provided
        boxes = [item.box for item in objects]
        numbers = box_coordinates(boxes, self.output_format, example.image_wh, self.input_wh(example))
        return [(item.label, box) for item, box in zip(objects, numbers, strict=True)]

    def completion(self, example: Example, reasoning: str = "empty", order: str = "annotated") -> list[dict]:
        """The assistant message that imitates the ground truth, over a detector's objects where they are provided.

        Args:
            reasoning: a name from :data:`~scenerl.answers.reasoning.REASONING`; any but ``empty`` needs the response
                template ``think``.
            order: of the objects, a name from :data:`~scenerl.answers.order.ORDERS`. Provided objects keep that of the
                prompt.
        """
        output_format = self.format_for(example)
        graph = answer_graph(example, output_format.provided)
        if output_format.provided is None:
            graph = in_order(graph, order, output_format.objects or ())
        before = REASONING[reasoning](graph, example.query)
        text = write_answer(graph, output_format, example.image_wh, self.input_wh(example), before)
        return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]

    def parse(self, answer: str | None, example: Example, truncated: bool = False, strict: bool = False) -> ParseResult:
        """What an answer to :meth:`prompt` says, in pixels of the original image (:func:`parse_answer`)."""
        return parse_answer(
            answer,
            self.format_for(example),
            example.image_wh,
            self.input_wh(example),
            strict=strict,
            truncated=truncated,
            any_label=example.referring,
        )

    def locate(self, answer: str | None, example: Example) -> Located:
        """Where in an answer the elements are that :meth:`parse` keeps."""
        return locate_elements(answer, self.format_for(example), example.referring)

    def grammar_spec(self, example: Example) -> GrammarSpec:
        """What fixes the form of an answer to :meth:`prompt`, where decoding is constrained."""
        bounds_wh = extent_wh(self.output_format.box_format, example.image_wh, self.input_wh(example))
        return GrammarSpec(self.format_for(example), bounds_wh)


def save_output_format(output_format: OutputFormat, folder: str | Path) -> None:
    """Write ``scenerl.json`` beside a checkpoint's files."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    content = {"scenerl": __version__, "output_format": asdict(output_format)}
    atomic_write_text(Path(folder) / FILE_NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def current_keys(saved: Mapping) -> dict:
    """The fields of an output format under their names of today, from those that a version before 0.2 wrote."""
    return {_KEYS_BEFORE_0_2.get(key, key): value for key, value in saved.items()}


def read_output_format(path: str | Path) -> OutputFormat:
    """The output format in a file ``scenerl.json``, those written before version 0.2 included.

    Raises:
        UserError: the file cannot be read; the message names it and the keys it does not know.
    """
    try:
        content = read_json(path, "an output format saved by scenerl")
        if "style" in content:
            content = {"output_format": current_keys(content["style"])}
        values = {**content["output_format"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: must be a JSON object with 'output_format', an object, as scenerl writes it"
        ) from error
    unknown = sorted(values.keys() - OutputFormat.__dataclass_fields__.keys())
    if unknown := unknown + sorted(content.keys() - {"scenerl", "output_format"}):
        writer = content.get("scenerl", "before 0.2")
        raise UserError(
            f"{path}: unknown keys {', '.join(unknown)}; written by scenerl {writer}, read by {__version__}; "
            f"allowed: scenerl, output_format, and in it {', '.join(OutputFormat.__dataclass_fields__)}"
        )
    try:
        return OutputFormat(**values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
