"""In which format answers are: what each way of reading makes of them, and what a failed answer looks like."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from scenerl.answers.detections import BOX_KEYS, LABEL_KEYS, POINT_KEYS
from scenerl.answers.elements import excerpt
from scenerl.answers.formats import FORMATS, TRAINED
from scenerl.answers.json_text import find_values
from scenerl.answers.output_format import OutputFormat
from scenerl.answers.parser import MAX_CHARS, parse_answer
from scenerl.answers.template import unfence
from scenerl.types import ParseResult

ORDER = (*(name for name in FORMATS if name not in TRAINED), *TRAINED)
"""Formats with marks of their own come before lists and graphs in JSON, which may stand inside such marks."""

_ANY_SIZE = (1000.0, 1000.0)  # boxes do not matter here
_FOUR_NUMBERS = re.compile(r"(?:-?[0-9]{1,9}(?:\.[0-9]{1,9})?[\s,)(]{1,4}){3}-?[0-9]")

AnswerAndQuery = tuple[str | None, Sequence[str] | None]
"""A model's answer, and the labels that were requested, None where any are."""


def _read(answer: str | None, query: Sequence[str] | None, name: str) -> ParseResult:
    # requested labels stand before boxes that have none of their own
    objects = tuple(query) if query is not None and not FORMATS[name].graph else None
    return parse_answer(answer, OutputFormat(name, objects=objects), _ANY_SIZE)


def is_explained(result: ParseResult) -> bool:
    """Whether a way of reading makes sense of an answer: it has an element, or says that nothing is there."""
    if result.graph is None:
        return False
    return bool(result.graph.objects) or all(issue.kind in ("point", "unknown_label") for issue in result.issues)


def explained(answers: Iterable[AnswerAndQuery]) -> dict[str, int]:
    """How many answers each format explains; formats that explain none are left out.

    First come those that find boxes in most answers, then those that find points or labels that were not requested.
    Where none does, as nothing is there, lists and graphs in JSON come before other families.
    """
    answers = list(answers)
    counts, found, boxes = {}, {}, {}
    for name in ORDER:
        results = [result for answer in answers if is_explained(result := _read(*answer, name))]
        counts[name] = len(results)
        boxes[name] = sum(bool(result.graph and result.graph.objects) for result in results)
        found[name] = sum(bool(result.graph and result.graph.objects or result.issues) for result in results)
    order = ORDER if any(found.values()) else tuple(FORMATS)
    ranked = sorted(order, key=lambda name: (-boxes[name], -found[name], -counts[name]))
    return {name: counts[name] for name in ranked if counts[name]}


def closest(answer: str | None, query: Sequence[str] | None, but: str) -> str:
    """What an answer that failed in the format ``but`` comes closest to, as the end of a sentence.

    >>> closest('[{"box_2d": [1, 2, 3, 4], "label": "dog"}]', None, "json")
    'it reads as gemini'
    >>> closest('[{"position": [1, 2, 3, 4], "thing": "dog"}]', None, "detections")
    "it is JSON with the keys 'position', 'thing'; expected a label (label, name, category, class) and a box \
(bbox_2d, bbox, box)"
    """
    if not isinstance(answer, str) or not answer.strip():
        return "there is no text"
    name = next((name for name in ORDER if name != but and is_explained(_read(answer, query, name))), None)
    if name is not None:
        return f"it reads as {name}"
    for name in (name for name in ORDER if name not in (*TRAINED, "gemini")):
        if issues := _read(answer, query, name).issues:
            return f"it is written as {name}, but no element can be used ({issues[0].kind})"
    text = answer[:MAX_CHARS]
    found = find_values(text, unfence(text))
    if found.breaks_off:
        return "it is JSON that breaks off"
    item = next((value for value, _, _ in found.values if value), None)
    if isinstance(item, list):
        item = next((entry for entry in item if isinstance(entry, dict)), item)
    if isinstance(item, dict):
        keys = ", ".join(excerpt(key) for key in list(item)[:6])
        if any(key in item for key in POINT_KEYS):
            return "it holds points without a label"
        return (
            f"it is JSON with the keys {keys}; expected a label ({', '.join(LABEL_KEYS[:4])}) and a box "
            f"({', '.join(BOX_KEYS[:3])})"
        )
    if found.broken:
        return "it is JSON that is broken"
    if isinstance(item, list) or _FOUR_NUMBERS.search(text):
        return "it holds numbers of boxes, but no label in a place that is known"
    return "it is text without boxes"
