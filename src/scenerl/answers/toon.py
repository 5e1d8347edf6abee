"""The ``toon`` format: a scene graph as two tables in TOON (Token-Oriented Object Notation), as SceneGraphVLM has it.

::

    obj[2]{id,name,x1,y1,x2,y2}:
      1,dog,120,80,400,900
      2,"ball, red",90,400,520,980
    rel[1]{subj,pred,obj}:
      1,chasing,2

Names with commas, quotes, backslashes, brackets, braces or colons are quoted, as are those that look like numbers,
true, false or null. For Action Genome, SceneGraphVLM writes ``rel_pairs[1]{subj,attention,spatial,contacting,obj}:`` in
place of ``rel``: a line holds three lists of predicates, ``1,[unsure],[in_front_of],[touching],2``. Spatial predicates
say where the object is, so they become relations of the object with the subject.

What counts as an answer follows SceneGraphVLM's own parser (arXiv 2605.13667), which gives up on an answer without any
object. Read besides: further fields between name and box or behind a relation, an element behind its header, tabs or
bars in place of commas where the header has them. Of several answers the last with both tables counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from scenerl.answers.compact import is_number, line_spans
from scenerl.answers.elements import MAX_OBJECTS, MAX_RELATIONS, GraphBuilder, Place, Reading, Span, clean_label
from scenerl.answers.template import END_ANSWER, unfence

INSTRUCTION = """\
Name every object and every relation between two objects in this image in two tables, shaped like this:
obj[2]{{id,name,x1,y1,x2,y2}}:
  1,dog,x1,y1,x2,y2
  2,ball,x1,y1,x2,y2
rel[1]{{subj,pred,obj}}:
  1,chasing,2
obj and rel state how many lines they have. Boxes are left, top, right, bottom {unit}."""

_HEADER = re.compile(r"\b(obj|rel|rel_pairs)\s*\[\s*(?:(\d{0,9})[\s|]*\]\s*\{([^{}]{0,200})\}|0\])\s*:", re.IGNORECASE)
_ROW = re.compile(r"\s*\d+\s*[,\t|]")
_CORNERS = ("x1", "y1", "x2", "y2")
_FIELDS = {
    mark: re.compile(
        rf'{blank}*+(?:"((?:[^"\\]|\\.|"")*+)"{blank}*+|(\[[^\][]*+\]{blank}*+|[^{mark}"][^{mark}]*+|))([{mark}]|$)'
    )
    for mark, blank in ((",", r"\s"), ("|", r"\s"), ("\t", r"[^\S\t]"))
}
"""What separates fields to a field: in quotes, or else in brackets or plain; and what follows."""
_ESCAPE = re.compile(r'\\(.)|""')
_REFERENCE = re.compile(r"[0-9]{1,9}")
_PLAIN = re.compile(r'[^\s",\\\[\]{}:|-](?:[^",\\\[\]{}:|]*[^\s",\\\[\]{}:|])?')


_MAX_FIELDS = 50


def quoted(label: str) -> str:
    """A label as a field: in quotes where TOON needs them."""
    plain = _PLAIN.fullmatch(label) and not is_number(label) and label not in ("true", "false", "null")
    return label if plain else '"' + label.replace("\\", "\\\\").replace('"', '\\"') + '"'


def write(labels: Sequence[str], boxes: Sequence[list], relations: Sequence[tuple[int, str, int]]) -> str:
    """The answer's text; ``boxes`` are in the answer's box format, relations hold object indices."""
    lines = [f"obj[{len(labels)}]{{id,name,x1,y1,x2,y2}}:"]
    for number, (label, box) in enumerate(zip(labels, boxes, strict=True), 1):
        lines.append(f"  {number},{quoted(label)},{','.join(map(str, box))}")
    lines.append(f"rel[{len(relations)}]{{subj,pred,obj}}:")
    lines += [f"  {subject + 1},{quoted(name)},{object_ + 1}" for subject, name, object_ in relations]
    return "\n".join(lines)


Field = tuple[str, Span]
"""What a field says, and the characters that say it."""


@dataclass(slots=True)
class _Table:
    """Rows of one kind: number of the line, its text and its fields. ``fields``: their names."""

    name: str
    fields: list[str]
    announced: int
    rows: list[tuple[int, str, list[Field]]] = field(default_factory=list)


def _tables(body: str) -> list[_Table]:
    """The tables in a text. What is behind a closing tag and before the next header belongs to none."""
    tables: list[_Table] = []
    mark, is_open = ",", False
    for number, (start, end) in enumerate(line_spans(body), 1):
        line = body[start:end]
        if header := _HEADER.search(line):  # perhaps with the first element behind it
            fields = header[3] or ""  # an empty table may state none
            mark = next((mark for mark in (",", "\t", "|") if mark in fields), ",")
            names = [name.strip(' "').lower() for name in fields.split(mark)]
            tables.append(_Table(header[1].lower(), names, int(header[2] or 0)))
            is_open, start = True, start + header.end()
        elif line == END_ANSWER:
            is_open = False
        text = body[start:end].strip()
        used = next((other for other in (mark, ",", "\t", "|") if text.count(other) >= 2), mark)
        if is_open and (text.count(used) >= 2 or _ROW.match(text)):
            tables[-1].rows.append((number, text, _split(body, start, end, used)))
    return tables


def _split(body: str, start: int, end: int, mark: str) -> list[Field]:
    """The fields of a line and where they are; commas in quotes or brackets do not separate. Empty where a quote is not
    closed."""
    line = body[start:end]
    end = start + len(line.rstrip())
    position = end - len(line.strip())
    fields: list[Field] = []
    more = mark
    while more and len(fields) < _MAX_FIELDS:
        found = _FIELDS[mark].match(body, position, end)
        if found is None:
            return []
        inner, plain, more = found.groups()
        if inner is not None:
            fields.append((_ESCAPE.sub(lambda escape: escape[1] or '"', inner), found.span(1)))
        else:
            first = found.start(2)
            fields.append((plain.strip(), (first, first + len(plain.rstrip()))))
        position = found.end()
    return fields


def read(body: str, builder: GraphBuilder) -> Reading:
    """Put the objects and relations of the last answer in ``body`` into ``builder``.

    Returns:
        ``truncated`` where there are objects but no header of relations, or ``wrong_schema`` where a closing tag shows
        that the answer is over. ``wrong_schema``, too, where objects are announced and none can be read.
    """
    answers: list[list[_Table]] = []
    for table in _tables(body):
        if table.name == "obj" or not answers:
            answers.append([])
        answers[-1].append(table)
    whole = [tables for tables in answers if tables[0].name == "obj" and len(tables) > 1]
    tables = whole[-1] if whole else answers[-1] if answers else []
    objects: list[Place] = []
    relations: list[tuple[Span, Span, Span]] = []
    for table in sorted(tables, key=lambda table: table.name != "obj"):
        if table.name == "obj":
            _fill_objects(table, builder, objects)
        else:
            _fill_relations(table, builder, relations)
    if not tables or (tables[0].name == "obj" and tables[0].announced and not builder.object_places):
        return Reading("wrong_schema", False)
    if not whole and tables[0].name == "obj":
        return Reading("wrong_schema" if END_ANSWER in body else "truncated", False)
    lines = sum(1 for line in unfence(body).splitlines() if line.strip())
    alone = len(answers) == 1 and lines == sum(1 + len(table.rows) for table in tables)
    return Reading(None, alone, objects=objects.__getitem__, relations=relations.__getitem__)


def _fill_objects(table: _Table, builder: GraphBuilder, places: list[Place]) -> None:
    last = table.fields[-4:]
    order = [last.index(side) for side in _CORNERS] if sorted(last) == sorted(_CORNERS) else range(4)
    for number, line, fields in table.rows[:MAX_OBJECTS]:
        where = f"objects[{len(places)}], line {number}"
        values = [value for value, _ in fields]
        label = clean_label(values[1]) if len(values) == max(len(table.fields), 6) else None
        if label is None or not _REFERENCE.fullmatch(values[0]):
            builder.drop("malformed_object", f"line {number}", line)
            continue
        places.append(Place(fields[1][1], tuple(fields[-4:][n][1] for n in order)))
        box = [float(values[-4:][n]) if is_number(values[-4:][n]) else None for n in order]
        builder.add_object(int(values[0]), label, box, where, line)
    builder.drop_rest("object lines", len(table.rows) - MAX_OBJECTS)


def _fill_relations(table: _Table, builder: GraphBuilder, places: list[tuple[Span, Span, Span]]) -> None:
    for number, line, fields in table.rows[:MAX_RELATIONS]:
        edges = (_pair_edges if table.name == "rel_pairs" else _edge)(fields)
        if edges is None:
            builder.drop("malformed_relation", f"line {number}", line)
        elif len(edges) > 1 and not (builder.has(int(fields[0][0])) and builder.has(int(fields[-1][0]))):
            edges = edges[:1]  # one issue for the line
        for subject, (predicate, span), object_ in (edges or ())[: MAX_RELATIONS - len(places)]:
            where = f"relationships[{len(places)}], line {number}"
            places.append((subject[1], span, object_[1]))
            builder.add_relation(int(subject[0]), predicate, int(object_[0]), where, line)
    builder.drop_rest("relation lines", len(table.rows) - MAX_RELATIONS)


def _edge(fields: list[Field]) -> list[tuple[Field, Field, Field]] | None:
    """The relation of a line, subject, predicate and object; None for a malformed line."""
    if len(fields) < 3 or not _is_reference(fields[0]) or not _is_reference(fields[2]):
        return None
    label = clean_label(fields[1][0])
    return None if label is None else [(fields[0], (label, fields[1][1]), fields[2])]


def _pair_edges(fields: list[Field]) -> list[tuple[Field, Field, Field]] | None:
    """The relations of a person with an object, in a line of Action Genome."""
    if len(fields) != 5 or not _is_reference(fields[0]) or not _is_reference(fields[4]):
        return None
    if not all(value.startswith("[") and value.endswith("]") for value, _ in fields[1:4]):
        return None
    attention, spatial, contacting = (
        [(name, span) for part in value[1:-1].split(",", _MAX_FIELDS) if (name := clean_label(part.strip().strip('"')))]
        for value, span in fields[1:4]
    )
    forward = [(fields[0], name, fields[4]) for name in (*attention, *contacting)]
    return forward + [(fields[4], name, fields[0]) for name in spatial]


def _is_reference(item: Field) -> bool:
    return _REFERENCE.fullmatch(item[0]) is not None
