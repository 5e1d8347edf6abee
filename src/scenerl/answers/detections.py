"""The ``detections`` format, as VLM-R1 has it.

``[{"bbox_2d": [x1, y1, x2, y2], "label": "dog"}]``, or the word ``None`` (in any case, with or without a full stop) or
``[]`` where nothing is found. It holds no relations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from scenerl.answers.elements import MAX_OBJECTS, GraphBuilder, Reading, clean_label
from scenerl.answers.json_text import find_answer
from scenerl.answers.template import unfence

INSTRUCTION = """\
Find every instance of these in the image: {query}.
Some of them may be absent. Answer with one JSON list, shaped like this:
[{{"bbox_2d": [x1, y1, x2, y2], "label": "..."}}]
Boxes are left, top, right, bottom {unit}.
Use the names above as labels. If none of them is there, answer None."""

_NONE = re.compile(r"none\.?", re.IGNORECASE)
_NONE_LINE = re.compile(r"^[ \t]*none\.?[ \t\r]*$", re.IGNORECASE | re.MULTILINE)


def write(labels: Sequence[str], boxes: Sequence[list], relations: Sequence[tuple[int, str, int]]) -> str:
    """The answer's text; ``relations`` are left out, because the format has no place for them."""
    if not labels:
        return "None"
    return json.dumps(
        [{"bbox_2d": box, "label": label} for label, box in zip(labels, boxes, strict=True)], ensure_ascii=False
    )


def is_answer(value: object) -> bool:
    """Whether a decoded JSON value has the shape of an answer."""
    return isinstance(value, list) and (not value or any(isinstance(item, dict) for item in value))


def read(body: str, builder: GraphBuilder) -> Reading:
    """Put the detections of the last complete list in ``body`` into ``builder``."""
    inner = unfence(body)
    if _NONE.fullmatch(inner):
        return Reading(None, True)
    detections, reading = find_answer(body, inner, is_answer, nothing=_NONE_LINE)
    if reading.failure:
        return reading
    for where, raw in builder.bounded(detections, "detections", MAX_OBJECTS):
        label = clean_label(raw.get("label")) if type(raw) is dict else None
        if label is None or "bbox_2d" not in raw:
            builder.drop("malformed_object", where, raw)
        else:
            builder.add_object(where, label, raw["bbox_2d"], where, raw)
    return reading
