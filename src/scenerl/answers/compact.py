"""The ``compact`` format: a scene graph in lines, for fewer tokens.

::

    person 120 80 400 900
    bike 90 400 520 980

    1 riding 2
    end

Object lines end in four numbers. After an empty line, relation lines name the subject and the object by the numbers of
their object lines, from 1. ``end`` closes the answer, so that a truncated answer is recognised. No relations:
objects and ``end``. Nothing at all: ``end``.

Length, an estimate: in Qwen2's vocabulary each digit and each space before a digit is a token, so an object line takes
about 17 tokens and a relation line about 6. A graph of 11 objects and 7 relations takes about 235, against about 520 in
the ``json`` format.

Parsing is lenient: the empty line may be missing, stray ones are skipped, and so is other text before the first object
line or after ``end``, as long as it does not end in a number. A dropped object keeps its number, so that later
references do not shift.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from scenerl.answers.elements import MAX_OBJECTS, MAX_RELATIONS, GraphBuilder, Reading, clean_label
from scenerl.answers.template import TAGS, unfence
from scenerl.errors import UserError

INSTRUCTION = """\
List the objects in this image, one per line: label x1 y1 x2 y2, {unit}.
Then, after an empty line, list the relations, one per line: object number, predicate, object number. \
Objects are numbered from 1. The last line is end. For example:
dog x1 y1 x2 y2
ball x1 y1 x2 y2

1 chasing 2
end"""

MAX_LINES = 20_000
"""Lines that are read, three times what the largest graph takes; the rest counts as cut off."""

_DIGITS = r"(?:[0-9]{1,30}(?:\.[0-9]{1,30})?|\.[0-9]{1,30})(?:e[-+]?[0-9]{1,9})?"
_NUMBER = re.compile(rf"[-+]?(?:{_DIGITS}|nan|inf(?:inity)?)", re.IGNORECASE)
_FOUR_NUMBERS = re.compile(rf"(?:{_NUMBER.pattern} ){{3}}{_NUMBER.pattern}", re.IGNORECASE)
_REFERENCE = re.compile(r"[0-9]{1,9}")
_BOUNDARY = re.compile("|".join(("\n", *map(re.escape, TAGS))))
_FENCE = re.compile(r"```\w*")


def is_number(token: str) -> bool:
    return _NUMBER.fullmatch(token) is not None


def split_object(line: str) -> tuple[str, list[float]] | None:
    """Label and box of a line that ends in four numbers (the label may be empty), else None."""
    tokens = line.rsplit(None, 4)
    label = tokens.pop(0) if len(tokens) == 5 else ""
    # joined, so that fewer than four numbers match no more than other words do
    return (label, [float(token) for token in tokens]) if _FOUR_NUMBERS.fullmatch(" ".join(tokens)) else None


def split_relation(line: str) -> tuple[int, str, int] | None:
    """Subject number, predicate and object number of a line that begins and ends in an integer, else None."""
    head = line.split(None, 1)
    if len(head) != 2 or not _REFERENCE.fullmatch(head[0]):
        return None
    tail = head[1].rsplit(None, 1)
    if len(tail) != 2 or not _REFERENCE.fullmatch(tail[1]):
        return None
    return int(head[0]), tail[0], int(tail[1])


def write(labels: Sequence[str], boxes: Sequence[list], relations: Sequence[tuple[int, str, int]]) -> str:
    """The answer's text; ``boxes`` are in the answer's box format, relations hold object indices.

    Raises:
        UserError: a predicate that ends in three numbers (or is two): its line would end in four, as object lines do.
    """
    lines = [f"{label} {' '.join(map(str, box))}" for label, box in zip(labels, boxes, strict=True)]
    if relations:
        lines.append("")
    for subject, predicate, object_ in relations:
        line = f"{subject + 1} {predicate} {object_ + 1}"
        if split_object(line) is not None:
            raise UserError(f"the compact format cannot hold the predicate {predicate!r}: too many numbers")
        lines.append(line)
    return "\n".join([*lines, "end"])


def line_spans(inner: str) -> list[tuple[int, int]]:
    """The characters [start, end) of each line of an unfenced body. A tag is a line of its own, wherever it is."""
    spans = []
    start = 0
    for boundary in _BOUNDARY.finditer(inner):
        spans.append((start, boundary.start()))
        if boundary[0] != "\n":
            spans.append(boundary.span())
        start = boundary.end()
        if len(spans) >= MAX_LINES:
            return spans[:MAX_LINES]
    return [*spans, (start, len(inner))]


@dataclass(slots=True)
class _Block:
    """The lines between two boundaries; ``complete`` where the closing boundary is ``end``."""

    lines: list[tuple[int, str]] = field(default_factory=list)
    complete: bool = False

    def has_text(self) -> bool:
        return any(line for _, line in self.lines)


def _blocks(inner: str) -> list[_Block]:
    """The text cut at ``end``, at code fences and at tags; (line number from 1, stripped line) in each block."""
    blocks = [_Block()]
    for number, (start, end) in enumerate(line_spans(inner), 1):
        line = inner[start:end].strip()
        if line == "end":
            blocks[-1].complete = True
            blocks.append(_Block())
        elif _FENCE.fullmatch(line) or line in TAGS:
            blocks.append(_Block())
        else:
            blocks[-1].lines.append((number, line))
    return blocks


def _without_preface(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The lines from the first that ends in a number: what comes before is other text, not a numbered object."""
    for index, (_, line) in enumerate(lines):
        if line and is_number(line.rsplit(None, 1)[-1]):
            return lines[index:]
    return []


def _has_object(lines: list[tuple[int, str]]) -> bool:
    return any(split_object(line) is not None for _, line in lines)


def _fill(lines: list[tuple[int, str]], builder: GraphBuilder) -> None:
    objects: list[tuple[int, str, tuple[str, list[float]] | None]] = []
    relations: list[tuple[int, str, tuple[int, str, int] | None]] = []
    in_relations = False
    for number, line in lines:
        if not line:
            in_relations |= bool(objects)
            continue
        box = split_object(line)
        relation = split_relation(line) if box is None else None
        if relation is not None or (box is None and in_relations):
            in_relations = True
            relations.append((number, line, relation))
        else:
            objects.append((number, line, box))
    for key, (number, line, box) in enumerate(objects[:MAX_OBJECTS], 1):
        label = clean_label(box[0]) if box is not None else None
        if label is not None:
            builder.add_object(key, label, box[1], f"line {number}", line)
        else:
            ends_in_number = box is None and is_number(line.rsplit(None, 1)[-1])
            builder.drop("bad_box" if ends_in_number else "malformed_object", f"line {number}", line)
    builder.drop_rest("object lines", len(objects) - MAX_OBJECTS)
    for number, line, relation in relations[:MAX_RELATIONS]:
        predicate = clean_label(relation[1]) if relation is not None else None
        if predicate is None:
            builder.drop("malformed_relation", f"line {number}", line)
        else:
            builder.add_relation(relation[0], predicate, relation[2], f"line {number}", line)
    builder.drop_rest("relation lines", len(relations) - MAX_RELATIONS)


def read(body: str, builder: GraphBuilder) -> Reading:
    """Put the elements of the last complete answer in ``body`` into ``builder``.

    Returns:
        ``truncated`` where there are lines of an answer but no ``end``; ``wrong_schema`` where no line is one.
    """
    blocks = _blocks(unfence(body))
    answers = [lines for block in blocks if block.complete and _has_object(lines := _without_preface(block.lines))]
    if answers:
        lines = answers[-1]
    elif any(_has_object(block.lines) for block in blocks):
        return Reading("truncated", False)
    elif [block.has_text() for block in blocks if block.complete] == [False]:
        lines = []
    else:
        return Reading("wrong_schema", False)
    alone = len(blocks) == 2 and lines == blocks[0].lines and not blocks[1].has_text()
    _fill(lines, builder)
    return Reading(None, alone)
