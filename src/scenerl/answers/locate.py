"""Where in a model's text the elements are that the parser kept: the characters of labels, coordinates, predicates.

The parser keeps no positions. Its readers run a second time; the builder notes which raw element each kept one was
(``objects[3]``, ``line 7``), and these are looked up in the text. Time and memory are linear in its length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from scenerl.answers.compact import line_spans
from scenerl.answers.elements import GraphBuilder, Place, Span, label_of
from scenerl.answers.formats import FORMATS
from scenerl.answers.json_text import inside, leaf, leaf_spans
from scenerl.answers.output_format import OutputFormat
from scenerl.answers.parser import MAX_CHARS
from scenerl.answers.template import TEMPLATES, unfence

Places = dict[str, list[Span]]
"""The parts of an element: ``label`` (in ``json`` without the number behind it) and ``box``, the four coordinates; or
``subject`` and ``object``, what names these two, and ``predicate``."""


_ENDS = ("subject", "predicate", "object")


@dataclass(frozen=True, slots=True)
class Located:
    """The elements of a parsed graph in their order; None for one beyond the bound of what is searched."""

    objects: tuple[Places | None, ...] = ()
    relations: tuple[Places | None, ...] = ()


def locate_elements(text: str | None, output_format: OutputFormat, any_label: bool = False) -> Located:
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
    >>> {part: [text[slice(*span)] for span in spans] for part, spans in found.objects[1].items()}
    {'label': ['ball'], 'box': ['600', '700', '700', '800']}
    """
    if not isinstance(text, str) or not text.strip():
        return Located()
    body = TEMPLATES[output_format.template].open(text.strip()).body
    # The last place: the body runs up to the end of the text or of its last closing tag.
    offset = text.rfind(body)
    body = body[:MAX_CHARS]
    builder = GraphBuilder(output_format.objects, output_format.predicates, any_label)
    reading = FORMATS[output_format.format].read(body, builder)
    if reading.failure or not builder.object_places:
        return Located()
    objects, relations = map(_number, builder.object_places), map(_number, builder.relation_places)
    if reading.objects is not None:

        def shifted(span: Span) -> Span:
            return span[0] + offset, span[1] + offset

        def parts(place: Place | None) -> Places | None:
            if place is None or place.label is None:
                return None
            return {"label": [shifted(place.label)], "box": list(map(shifted, place.box))}

        return Located(
            tuple(parts(reading.objects(n)) for n in objects),
            tuple(
                {key: [shifted(span)] for key, span in zip(_ENDS, reading.relations(n), strict=True)} for n in relations
            ),
        )
    start = offset + (_inner_start(body) if reading.start is None else reading.start)
    if output_format.format == "compact":
        lines = line_spans(unfence(body))

        def words(line: int) -> list[Span]:
            first, end = lines[line - 1]
            return [word.span() for word in _WORD.finditer(text, start + first, start + end)]

        return Located(
            tuple({"label": _joined(found[:-4]), "box": found[-4:]} for found in map(words, objects)),
            tuple(
                {"subject": found[:1], "predicate": _joined(found[1:-1]), "object": found[-1:]}
                for found in map(words, relations)
            ),
        )
    spans = leaf_spans(text, start)
    return Located(
        tuple(_object(text, spans, n) for n in objects),
        tuple(_relation(text, spans, n) for n in relations),
    )


_WORD = re.compile(r"\S+")


def _number(place: str) -> int:
    return int(re.search("[0-9]+", place)[0])


def _joined(words: list[Span]) -> list[Span]:
    return [(words[0][0], words[-1][1])]


def _inner_start(body: str) -> int:
    """Where ``unfence(body)`` begins: what it takes off in front is white space and the first line of a fence."""
    inner = unfence(body)
    start = len(body) - len(body.lstrip())
    if not body.startswith("```", start) or body.startswith(inner, start):
        return start
    return body.index(inner, body.index("\n", start))


def _object(text: str, spans: object, number: int) -> Places | None:
    label = inside(text, spans, "objects", number, "id")
    box = [leaf(spans, "objects", number, "bbox", side) for side in range(4)]
    if label is None or None in box:
        return None
    if "\\" not in (raw := text[slice(*label)]):
        label = label[0], label[0] + len(label_of(raw).rstrip())
    return {"label": [label], "box": box}


def _relation(text: str, spans: object, number: int) -> Places | None:
    parts = {key: [inside(text, spans, "relationships", number, key)] for key in _ENDS}
    return None if [None] in parts.values() else parts
