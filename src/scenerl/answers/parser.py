"""Model text to a scene graph or a typed failure: the one place where model text is parsed.

Model text is untrusted. No text raises, hangs or takes memory out of proportion; mistakes of the caller (the box format
``resized`` without a size) do raise.
"""

from __future__ import annotations

from scenerl.answers.elements import GraphBuilder
from scenerl.answers.formats import FORMATS
from scenerl.answers.output_format import OutputFormat
from scenerl.answers.template import TEMPLATES
from scenerl.box_formats import extent_wh, to_pixels
from scenerl.types import ParseResult

MAX_CHARS = 1_000_000
"""Characters inside the response template that are parsed, as if the engine had stopped there. The largest graph that
is kept, 1,000 objects with 5,000 relations, takes half of them."""


def parse_answer(
    text: str | None,
    output_format: OutputFormat,
    image_wh: tuple[float, float],
    input_wh: tuple[float, float] | None = None,
    strict: bool = False,
    truncated: bool = False,
    any_label: bool = False,
) -> ParseResult:
    """Parse a model's answer.

    The last complete answer in the text counts, fenced or not, with or without the requested response template; lists
    of boxes one after another are one answer. Labels lose the white space around them and nothing else. Boxes are
    neither rounded nor clipped to the image.

    Args:
        text: the model's answer; None (or anything but a string) is the failure ``no_answer``.
        output_format: of the prompt. Labels outside its vocabularies are dropped as issues.
        image_wh: size of the original image in pixels.
        input_wh: size of the resized input in pixels, for the box format ``resized``.
        strict: any issue turns the result into the failure ``wrong_schema`` (the issues are kept).
        truncated: the engine stopped at its token limit. An answer without a graph is then ``truncated``, whatever
            else it looks like.
        any_label: objects get the only label of the vocabulary, whatever theirs is.

    Returns:
        ``ok`` with a graph whose boxes are pixels of the original image (an empty one where the answer says that
        nothing is there), or a name of :data:`~scenerl.types.FAILURES`; and the dropped elements, as issues.
        ``in_template`` is true for exactly the requested template around one answer, which may be in one code fence; it
        is false for every failure but ``wrong_schema``.

    Raises:
        UserError: the box format ``resized`` without ``input_wh``.
    """
    fmt = FORMATS[output_format.format]
    box_format = fmt.box_format or output_format.box_format
    extent_wh(box_format, image_wh, input_wh)  # the caller's mistake must not depend on the text
    if not isinstance(text, str):
        return ParseResult("no_answer", None)
    text = text.strip()
    if not text:
        return ParseResult("empty", None)
    opened = TEMPLATES[output_format.template].open(text)
    if opened.unfinished and truncated:
        return ParseResult("truncated", None)
    if not opened.body.strip():
        return ParseResult("truncated" if opened.unfinished or truncated else "empty", None)
    cut = len(opened.body) > MAX_CHARS
    truncated |= cut
    builder = GraphBuilder(output_format.objects, output_format.predicates, any_label)
    reading = fmt.read(opened.body[:MAX_CHARS], builder)
    in_template = opened.exact and reading.alone and not cut
    if reading.failure or (cut and builder.is_empty()):  # the cut may have made "nothing found" of something else
        failure = "truncated" if opened.unfinished or truncated else reading.failure
        return ParseResult(failure, None, in_template=in_template and failure == "wrong_schema")
    if strict and builder.issues:
        return ParseResult("wrong_schema", None, tuple(builder.issues), in_template)
    graph = builder.graph(lambda boxes: to_pixels(boxes, box_format, image_wh, input_wh))
    return ParseResult("ok", graph, tuple(builder.issues), in_template)
