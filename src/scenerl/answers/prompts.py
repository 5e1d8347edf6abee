"""The question that goes with the image, in our own words. The image itself is put before it by the model family.

The shapes shown hold names such as ``x1`` where numbers belong: a model that only repeats its prompt has not answered.
"""

from __future__ import annotations

from collections.abc import Sequence

from scenerl.answers.envelope import ENVELOPES
from scenerl.answers.formats import FORMATS
from scenerl.answers.style import AnswerStyle

_UNITS = {
    "pixels": "in pixels of the image",
    "resized": "in pixels of the image",
    "norm1000": "as integers from 0 to 1000 relative to the image",
    "norm1": "as decimals from 0 to 1 relative to the image",
}


def _unit(style: AnswerStyle) -> str:
    if style.grid == 1:
        return _UNITS[style.frame]
    step = f"{style.grid * 1e-4:g}" if style.frame == "norm1" else str(style.grid)
    return f"{_UNITS[style.frame]}, in steps of {step}"


_GIVEN = {
    "boxes": "The objects' boxes are given, one per line: number, box.",
    "objects": "The objects are given, one per line: number, label, box.",
}
_KEEP = {
    "boxes": "Name the object in each box. Answer with these objects in this order, every box as it is given,",
    "objects": "Answer with these objects in this order, every label and box as it is given,",
}


def _given_lines(style: AnswerStyle, given: Sequence[tuple[str, list]]) -> list[str]:
    """The objects that an answer is to hold, numbered as answers number them."""
    lines = [_GIVEN[style.given]]
    for number, (label, box) in enumerate(given, start=1):
        parts = [number, label, *box] if style.given == "objects" else [number, *box]
        lines.append(" ".join(map(str, parts)))
    return [*lines, f"{_KEEP[style.given]} and with the relations between them."]


def build_prompt(
    style: AnswerStyle, query: tuple[str, ...] | None = None, given: Sequence[tuple[str, list]] = ()
) -> str:
    """The user text that asks for an answer in ``style``.

    Args:
        style: format, envelope, frame and vocabularies; a closed vocabulary is listed.
        query: for ``detections``, the labels to look for; the style's ``objects`` if None.
        given: where the style gives objects, their labels and their boxes as numbers of its frame.

    Raises:
        ValueError: ``detections`` without labels to look for, or a query with another format.

    >>> print(build_prompt(AnswerStyle("detections"), ("dog", "red ball")))
    Find every instance of these in the image: dog, red ball.
    Some of them may be absent. Answer with one JSON list, shaped like this:
    [{"bbox_2d": [x1, y1, x2, y2], "label": "..."}]
    Boxes are left, top, right, bottom as integers from 0 to 1000 relative to the image.
    Use the names above as labels. If none of them is there, answer None.
    Write nothing else.
    """
    fmt = FORMATS[style.format]
    if fmt.graph:
        if query is not None:
            raise ValueError(f"format {style.format!r} asks for a whole scene graph and takes no query")
        lines = [fmt.instruction.format(unit=_unit(style))]
        if style.objects is not None:
            lines.append(f"Use only these object labels: {', '.join(style.objects)}.")
        if style.predicates is not None:
            lines.append(f"Use only these predicates: {', '.join(style.predicates)}.")
        if style.given is not None:
            lines += _given_lines(style, given)
    else:
        labels = query if query is not None else style.objects
        if not labels:
            raise ValueError("a detection prompt needs the labels to look for: pass query, or objects in the style")
        lines = [fmt.instruction.format(unit=_unit(style), query=", ".join(labels))]
    lines.append(ENVELOPES[style.envelope].instruction)
    return "\n".join(lines)
