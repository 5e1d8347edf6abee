"""One request about one image put to one checkpoint: what the page shows and offers for download."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from PIL import Image

from scenerl.answers import OutputFormat
from scenerl.answers.formats import FORMATS as ANSWER_FORMATS
from scenerl.data.images import image_size, open_image
from scenerl.data.vocabulary import NAMED, Vocabulary
from scenerl.errors import DataError, UserError
from scenerl.inference.confidence import score_graph
from scenerl.inference.engine import Sampling
from scenerl.inference.hf import HFEngine
from scenerl.predictions.merge import merge_graphs
from scenerl.predictions.merge_file import merged_row
from scenerl.predictions.row import prediction_row
from scenerl.types import Example, ParseResult, SceneGraph

TASKS = {"sgdet": "Scene graph", "det": "Detection of given labels"}
TRAINED, OPEN, OWN = "trained", "open", "own"
VOCABULARIES = {
    TRAINED: "As in training",
    OPEN: "Any label",
    **{name: name.upper() for name in NAMED},
    OWN: "My labels",
}
TOP_P = 0.9
"""Of sampled answers, as in the examples of the README."""
MAX_LABELS, MAX_LABEL = 1000, 100


@dataclass(frozen=True, slots=True)
class Request:
    """What a person wants to know about an image.

    Attributes:
        task: a key of :data:`TASKS`; ``det`` needs ``labels``, the names to look for.
        vocabulary: for ``sgdet``, a key of :data:`VOCABULARIES`; ``own`` takes ``labels`` and ``predicates``, of which
            an empty one allows anything.
        constrain: decode only answers that parse.
        num_samples: one answer is greedy; several are sampled at ``temperature`` and merged by vote.

    Raises:
        UserError: detection without labels, or labels that are too many or too long.
    """

    task: str = "sgdet"
    labels: tuple[str, ...] = ()
    vocabulary: str = TRAINED
    predicates: tuple[str, ...] = ()
    constrain: bool = False
    num_samples: int = 1
    temperature: float = 1.0
    max_new_tokens: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task == "det" and not self.labels:
            raise UserError("Detection needs the labels to look for.")
        for names in (self.labels, self.predicates):
            if len(names) > MAX_LABELS or any(len(name) > MAX_LABEL for name in names):
                raise UserError(f"At most {MAX_LABELS} labels, each of at most {MAX_LABEL} characters, are allowed.")

    def output_format(self, saved: OutputFormat | None, box_format: str) -> OutputFormat:
        """The checkpoint's own output format, but for what the request changes.

        Args:
            saved: the format that the checkpoint was trained with.
            box_format: of the model family.
        """
        # An uploaded image has no annotated objects to provide.
        output_format = replace(saved or OutputFormat(), box_format=box_format, provided=None)
        if self.task == "det":
            return replace(output_format, format="detections")
        if not ANSWER_FORMATS[output_format.format].graph:
            output_format = replace(output_format, format="json")
        if self.vocabulary == TRAINED:
            return output_format
        if self.vocabulary in NAMED:
            named = Vocabulary.read(self.vocabulary)
            return replace(output_format, objects=named.objects, predicates=named.predicates)
        own = self.vocabulary == OWN
        objects, predicates = (self.labels, self.predicates) if own else ((), ())
        return replace(output_format, objects=objects or None, predicates=predicates or None)

    def sampling(self) -> Sampling:
        """How the engine samples."""
        if self.num_samples == 1:
            return Sampling(self.max_new_tokens, logprobs=True)
        return Sampling(self.max_new_tokens, self.temperature, TOP_P, num_samples=self.num_samples, logprobs=True)


def read_labels(text: str) -> tuple[str, ...]:
    """Labels from a text field, separated by commas or line ends, each once."""
    return tuple(
        dict.fromkeys(label for part in text.replace("\n", ",").split(",") if (label := " ".join(part.split())))
    )


def read_image(content: bytes, max_pixels: int) -> Image.Image:
    """Decode an uploaded file, upright.

    Raises:
        DataError: not an image, damaged, or of more pixels; the message can be shown.
    """
    try:
        width, height = image_size(content, "the file")
        if width * height > max_pixels:
            raise DataError(f"the image is {width} x {height}; allowed: {max_pixels} pixels")
        return open_image(Example("upload", width, height, SceneGraph(), content))
    except DataError as error:
        raise DataError(str(error).replace("image 'upload'", "the file")) from error


def answer(request: Request, image: Image.Image, name: str, engine: HFEngine, saved: OutputFormat | None) -> dict:
    """``answers``: a row per answer as ``predict --logprobs`` writes it; ``result``: the only one of them, or what
    ``merge`` makes of several; ``output_format``, ``prompt``: what the checkpoint was given.

    Args:
        name: what the image is called in the rows.
        engine: its sampling is set to that of the request.
        saved: the format that the checkpoint was trained with.

    Raises:
        UserError: the model takes no image of this shape, or cannot answer in this way.
    """
    checkpoint = engine.checkpoint
    conversation = checkpoint.conversation(request.output_format(saved, checkpoint.family.box_format))
    query = request.labels if request.task == "det" else None
    example = Example(name, *image.size, SceneGraph(), query=query)
    input_wh = conversation.input_wh(example)
    messages = conversation.prompt(example, image)
    constraint = {"shapes": [conversation.grammar_spec(example)]} if request.constrain else {}
    engine.sampling = request.sampling()
    rows, results = [], []
    for sample, reply in enumerate(engine.answer([messages], request.seed, **constraint)[0]):
        result, confidence = conversation.parse(reply.text, example, truncated=reply.finish_reason == "length"), None
        if result.graph is not None:
            confidence = score_graph(result.graph, conversation.locate(reply.text, example), reply)
        rows.append(prediction_row(example, result, reply, conversation.output_format, input_wh, sample, confidence))
        results.append(result if confidence is None else ParseResult("ok", confidence.graph, result.issues))
    merged = None if len(rows) == 1 else merge_graphs([result.graph for result in results])
    return {
        "result": rows[0] if len(rows) == 1 else merged_row(rows, results, merged),
        "answers": rows,
        "output_format": asdict(conversation.output_format),
        "prompt": messages[0]["content"][-1]["text"],
    }
