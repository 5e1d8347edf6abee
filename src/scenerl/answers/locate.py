"""Where in a model's text the elements are that the parser kept: the characters of labels, coordinates, predicates.

The parser keeps no positions. The same readers run a second time; their builder has noted which raw element each kept
one was (``objects[3]``, ``line 7``), and these are looked up in the text. Time and memory are linear in its length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from scenerl.answers import detections, json_graph
from scenerl.answers.compact import line_spans
from scenerl.answers.elements import GraphBuilder, label_of
from scenerl.answers.formats import FORMATS
from scenerl.answers.json_text import find_answer, leaves
from scenerl.answers.output_format import OutputFormat
from scenerl.answers.parser import MAX_CHARS
from scenerl.answers.template import TEMPLATES, unfence

Span = tuple[int, int]
"""Characters [start, end) of the model's text."""


@dataclass(frozen=True, slots=True)
class ObjectSpans:
    """The label (in ``json`` without the number behind it) and the four coordinates of an object."""

    label: Span
    box: tuple[Span, Span, Span, Span]


@dataclass(frozen=True, slots=True)
class RelationSpans:
    """What names the subject, the predicate, and what names the object of a relation."""

    subject: Span
    predicate: Span
    object: Span


@dataclass(frozen=True, slots=True)
class Located:
    """The elements of a parsed graph in their order; None for one beyond the bound of what is searched."""

    objects: tuple[ObjectSpans | None, ...] = ()
    relations: tuple[RelationSpans | None, ...] = ()


def locate_elements(text: str | None, output_format: OutputFormat) -> Located:
    """The places in ``text`` of the objects and relations that :func:`~scenerl.answers.parse_answer` keeps.

    Strings of JSON are located without their quotes. A label written with JSON escapes is located with the number
    behind it. White space around labels belongs to none.

    Args:
        text: the model's answer.
        output_format: as for the parser.

    Returns:
        One entry for each element of the graph; nothing where the answer is a failure.

    >>> text = "dog 100 200 500 800\\nball 600 700 700 800\\n\\n1 chasing 2\\nend"
    >>> found = locate_elements(text, OutputFormat("compact"))
    >>> [text[slice(*span)] for span in (found.objects[1].label, *found.objects[1].box, found.relations[0].predicate)]
    ['ball', '600', '700', '700', '800', 'chasing']
    """
    if not isinstance(text, str) or not text.strip():
        return Located()
    body = TEMPLATES[output_format.template].open(text.strip()).body
    # The last place: the body runs up to the end of the text or of its last closing tag.
    offset = text.rfind(body)
    body = body[:MAX_CHARS]
    builder = GraphBuilder(output_format.objects, output_format.predicates)
    if FORMATS[output_format.format].read(body, builder).failure or not builder.object_places:
        return Located()
    located = _LOCATORS[output_format.format](body, builder)
    return located if offset == 0 else _shifted(located, offset)


def _inner_start(body: str) -> int:
    """Where ``unfence(body)`` begins: what it takes off in front is white space and the first line of a fence."""
    inner = unfence(body)
    start = len(body) - len(body.lstrip())
    if not body.startswith("```", start) or body.startswith(inner, start):
        return start
    return body.index(inner, body.index("\n", start))


def _locate_json(body: str, builder: GraphBuilder) -> Located:
    spans = _leaf_spans(body, find_answer(body, unfence(body), json_graph.is_answer).start)
    objects = [_object(body, spans, place, "id", "bbox") for place in builder.object_places]
    relations = []
    for place in builder.relation_places:
        parts = [_inside(body, spans.get((*_path(place), key))) for key in ("subject", "predicate", "object")]
        relations.append(RelationSpans(*parts) if None not in parts else None)
    return Located(tuple(objects), tuple(relations))


def _locate_detections(body: str, builder: GraphBuilder) -> Located:
    spans = _leaf_spans(body, find_answer(body, unfence(body), detections.is_answer).start)
    return Located(tuple(_object(body, spans, place, "label", "bbox_2d") for place in builder.object_places))


def _leaf_spans(body: str, start: int | None) -> dict[tuple, Span]:
    """The leaves of the answer; of a key that comes twice the last, as the decoder has it."""
    found = {}
    for path, first, end in leaves(body, _inner_start(body) if start is None else start):
        if _KEYS.isdisjoint(path):
            continue
        found[path] = first, end
    return found


_KEYS = frozenset({"id", "bbox", "label", "bbox_2d", "subject", "predicate", "object"})
_PLACE = re.compile(r"(\w+)\[(\d+)\]")


def _path(place: str) -> tuple[str | int, ...]:
    """``objects[3]`` as keys; the list of detections has no name."""
    name, number = _PLACE.fullmatch(place).groups()
    return (int(number),) if name == "detections" else (name, int(number))


def _object(body: str, spans: dict[tuple, Span], place: str, label_key: str, box_key: str) -> ObjectSpans | None:
    path = _path(place)
    label = _inside(body, spans.get((*path, label_key)))
    box = [spans.get((*path, box_key, n)) for n in range(4)]
    if label is None or None in box:
        return None
    if label_key == "id" and "\\" not in (raw := body[slice(*label)]):
        label = label[0], label[0] + len(label_of(raw).rstrip())
    return ObjectSpans(label, tuple(box))


def _inside(body: str, span: Span | None) -> Span | None:
    """What a JSON string holds, without quotes and white space."""
    if span is None:
        return None
    raw = body[span[0] + 1 : span[1] - 1]
    start = span[0] + 1 + len(raw) - len(raw.lstrip())
    return start, start + len(raw.strip())


def _locate_compact(body: str, builder: GraphBuilder) -> Located:
    start = _inner_start(body)
    lines = line_spans(unfence(body))
    objects = []
    for place in builder.object_places:
        label, *box = _object_words(body, *_line(lines, place, start))
        objects.append(ObjectSpans(label, tuple(box)))
    relations = [
        RelationSpans(*_relation_words(body, *_line(lines, place, start))) for place in builder.relation_places
    ]
    return Located(tuple(objects), tuple(relations))


def _line(lines: list[Span], place: str, offset: int) -> Span:
    start, end = lines[int(place.removeprefix("line ")) - 1]
    return start + offset, end + offset


def _object_words(body: str, start: int, end: int) -> list[Span]:
    """The label and the four numbers behind it."""
    *label, x1, y1, x2, y2 = _words(body, start, end)
    return [(label[0][0], label[-1][1]), x1, y1, x2, y2]


def _relation_words(body: str, start: int, end: int) -> list[Span]:
    """The subject's number, the words between and the object's number."""
    subject, *predicate, object_ = _words(body, start, end)
    return [subject, (predicate[0][0], predicate[-1][1]), object_]


def _words(body: str, start: int, end: int) -> list[Span]:
    return [match.span() for match in re.compile(r"\S+").finditer(body, start, end)]


def _shifted(located: Located, offset: int) -> Located:
    def move(span: Span) -> Span:
        return span[0] + offset, span[1] + offset

    objects = (item and ObjectSpans(move(item.label), tuple(map(move, item.box))) for item in located.objects)
    relations = (
        item and RelationSpans(move(item.subject), move(item.predicate), move(item.object))
        for item in located.relations
    )
    return Located(tuple(objects), tuple(relations))


_LOCATORS = {"json": _locate_json, "compact": _locate_compact, "detections": _locate_detections}
