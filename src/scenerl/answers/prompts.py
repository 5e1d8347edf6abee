"""The text of a prompt, in our own words; the image comes before it.

The examples in it have names such as ``x1`` where numbers belong: a model that repeats its prompt has not answered.
"""

from __future__ import annotations

from collections.abc import Sequence

from scenerl.answers.formats import FORMATS
from scenerl.answers.output_format import OutputFormat
from scenerl.answers.template import TEMPLATES
from scenerl.errors import UserError

_UNITS = {
    "pixels": "in pixels of the image",
    "resized": "in pixels of the image",
    "norm1000": "as integers from 0 to 1000 relative to the image",
    "norm1": "as decimals from 0 to 1 relative to the image",
}


def _unit(output_format: OutputFormat) -> str:
    if output_format.step == 1:
        return _UNITS[output_format.box_format]
    step = f"{output_format.step * 1e-4:g}" if output_format.box_format == "norm1" else str(output_format.step)
    return f"{_UNITS[output_format.box_format]}, in steps of {step}"


_PROVIDED = {
    "boxes": "The objects' boxes are given, one per line: number, box.",
    "objects": "The objects are given, one per line: number, label, box.",
}
_KEEP = {
    "boxes": "Name the object in each box. Answer with these objects in this order, every box as it is given,",
    "objects": "Answer with these objects in this order, every label and box as it is given,",
}


def _provided_lines(output_format: OutputFormat, provided: Sequence[tuple[str, list]]) -> list[str]:
    """The provided objects, numbered as answers number them."""
    lines = [_PROVIDED[output_format.provided]]
    for number, (label, box) in enumerate(provided, start=1):
        parts = [number, label, *box] if output_format.provided == "objects" else [number, *box]
        lines.append(" ".join(map(str, parts)))
    return [*lines, f"{_KEEP[output_format.provided]} and with the relations between them."]


def build_prompt(
    output_format: OutputFormat,
    query: tuple[str, ...] | None = None,
    provided: Sequence[tuple[str, list]] = (),
    referring: bool = False,
) -> str:
    """The text that requests an answer in an output format.

    Args:
        output_format: of the answer; a closed vocabulary is listed in the prompt.
        query: for ``detections``, the labels to look for; None: the ``objects`` of the output format.
        provided: where objects are provided, their labels and their boxes as numbers of the box format.
        referring: the query is one sentence about one object, whose box is requested.

    Raises:
        UserError: a format of detections without labels to look for, a query with a format of graphs, or a format that
            is only read.

    >>> print(build_prompt(OutputFormat("detections"), ("dog", "red ball")))
    Find every instance of these in the image: dog, red ball.
    Some of them may be absent. Answer with one JSON list, shaped like this:
    [{"bbox_2d": [x1, y1, x2, y2], "label": "..."}]
    Boxes are left, top, right, bottom as integers from 0 to 1000 relative to the image.
    Use the names above as labels. If none of them is there, answer None.
    Write nothing else.
    """
    fmt = FORMATS[output_format.format]
    if fmt.instruction is None:
        raise UserError(f"no prompt requests the format {output_format.format!r}: it is only read")
    if fmt.graph:
        if query is not None:
            raise UserError(f"format {output_format.format!r} requests a whole scene graph and takes no query")
        lines = [fmt.instruction.format(unit=_unit(output_format))]
        if output_format.objects is not None:
            lines.append(f"Use only these object labels: {', '.join(output_format.objects)}.")
        if output_format.predicates is not None:
            lines.append(f"Use only these predicates: {', '.join(output_format.predicates)}.")
        if output_format.provided is not None:
            lines += _provided_lines(output_format, provided)
    else:
        labels = query if query is not None else output_format.objects
        if not labels:
            raise UserError(
                "a detection prompt needs the labels to look for: the row's query, --query LABEL … or --vocabulary FILE"
            )
        instruction = fmt.referring if referring and fmt.referring is not None else fmt.instruction
        lines = [instruction.format(unit=_unit(output_format), query=", ".join(labels))]
    lines.append(TEMPLATES[output_format.template].instruction)
    return "\n".join(lines)
