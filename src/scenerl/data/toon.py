"""SceneGraphVLM's line format (TOON), in JSONL rows with the ground truth (``content``) and the answer (``predict``).

An answer is in ``<answer>`` tags: ``obj[2]{id,name,x1,y1,x2,y2}:`` and a line per object, then
``rel[1]{subj,pred,obj}:`` and a line per relation. For Action Genome, ``rel_pairs[1]{subj,attention,spatial,contacting,
obj}:`` takes the place of ``rel``: a line holds three lists of predicates, ``1,[unsure],[in_front_of],[touching],2``.
Boxes are pixels of the image that the model saw, on both sides. Names with commas are quoted. What counts as an answer
follows SceneGraphVLM's own parser, which gives up on an answer without any object.

Source ``toon:FILE.jsonl``, or the file itself. Width and height come from the prompt (``of size (640 x 480)``); where
it does not state them, they are 0 and the rows can only be evaluated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

from scenerl.data.instances import tidy_id
from scenerl.data.jsonl import read_rows
from scenerl.data.published import refuse_split
from scenerl.data.records import Record
from scenerl.errors import DataError
from scenerl.types import Example, Issue, ParseResult, Relation, SceneGraph, SceneObject

_HEADER = re.compile(r"\b(obj|rel|rel_pairs)\s*\[\s*(\d{0,9})\s*\]\s*\{([^{}]{0,200})\}\s*:", re.IGNORECASE)
_FIELD = re.compile(r'\s*+(?:"((?:[^"\\]|\\.|"")*)"|(\[[^\][]*\]|[^,"][^,]*|))\s*(,|$)')
_ESCAPE = re.compile(r'\\(.)|""')
_SIZE = re.compile(r"of size \((\d{1,6}) x (\d{1,6})\)")
_NUMBER = re.compile(r"[0-9]{1,9}")
_MAX_LINES = 10_000  # of an answer; the rest is not read


def parse(text: object) -> ParseResult:
    """A scene graph in the line format; never raises, whatever the text is.

    An answer that has objects but no header of relations is ``truncated``, or ``wrong_schema`` where its closing tag is
    there. It is ``wrong_schema``, too, where objects are announced and none can be read, as on a single line.
    """
    if not isinstance(text, str):
        return ParseResult("no_answer", None)
    if not text.strip():
        return ParseResult("empty", None)
    body = text.rpartition("</think>")[2]
    start = body.rfind("<answer>")
    closed = False
    if start >= 0:
        body, closing_tag, _ = body[start + len("<answer>") :].partition("</answer>")
        closed = bool(closing_tag)
    objects: dict[int, SceneObject] = {}  # by the ids of the text
    relations: list[tuple[int, str, int]] = []
    issues: list[Issue] = []
    sections: set[str] = set()
    section, width, announced = "", 0, 0
    for number, line in enumerate(body.splitlines()[:_MAX_LINES], start=1):
        if header := _HEADER.search(line):  # perhaps with the first element behind it
            section, width = header[1].lower(), len(header[3].split(","))
            sections.add(section)
            if section == "obj":
                announced = int(header[2] or 0)
            line = line[header.end() :]
        if not section or line.count(",") < 2:
            continue
        fields = _split(line)
        try:
            if section == "obj":
                _add_object(objects, fields, width)
            else:
                relations += _relations(fields, section == "rel_pairs", objects.keys())
        except _Dropped as dropped:
            issues.append(Issue(str(dropped), f"line {number}", line[:80]))
    if not sections or (announced and not objects):
        return ParseResult("wrong_schema", None, tuple(issues))
    if sections == {"obj"}:
        return ParseResult("wrong_schema" if closed else "truncated", None, tuple(issues))
    place = {object_id: n for n, object_id in enumerate(objects)}
    edges = (Relation(place[subject], predicate, place[object_]) for subject, predicate, object_ in relations)
    return ParseResult("ok", SceneGraph(tuple(objects.values()), tuple(edges)), tuple(issues))


class _Dropped(Exception):
    """The issue for which a line is dropped."""


def _add_object(objects: dict[int, SceneObject], fields: list[str], width: int) -> None:
    """Add the object of a line. Further fields may stand between the name and the box."""
    if len(fields) != max(width, 6) or not _NUMBER.fullmatch(fields[0]) or not fields[1]:
        raise _Dropped("malformed_object")
    try:
        box = tuple(map(float, fields[-4:]))
    except ValueError:
        raise _Dropped("bad_box") from None
    if not all(map(math.isfinite, box)):
        raise _Dropped("bad_box")
    if box[0] >= box[2] or box[1] >= box[3]:
        raise _Dropped("no_area")
    if int(fields[0]) in objects:
        raise _Dropped("duplicate_id")
    objects[int(fields[0])] = SceneObject(fields[1], box)


def _relations(fields: list[str], is_pair: bool, ids: Collection[int]) -> list[tuple[int, str, int]]:
    """The relations of a line, by object ids; fields behind the third are ignored.

    Args:
        is_pair: the line holds those of a person with an object. Spatial predicates say where the object is, as in
            Action Genome: "in front of" becomes a relation of the object with the person.
    """
    backward: list[str] = []
    if is_pair:
        lists = [_listed(field) for field in fields[1:4]]
        if len(fields) != 5 or None in lists:
            raise _Dropped("malformed_relation")
        attention, backward, contacting = lists
        forward, last = [*attention, *contacting], fields[4]
    elif len(fields) < 3 or not fields[1]:
        raise _Dropped("malformed_relation")
    else:
        forward, last = [fields[1]], fields[2]
    if not _NUMBER.fullmatch(fields[0]) or not _NUMBER.fullmatch(last):
        raise _Dropped("malformed_relation")
    subject, object_ = int(fields[0]), int(last)
    if subject not in ids or object_ not in ids:
        raise _Dropped("dangling_relation")
    if subject == object_:
        raise _Dropped("self_relation")
    return [(subject, name, object_) for name in forward] + [(object_, name, subject) for name in backward]


def _split(line: str) -> list[str]:
    """The fields of a line; commas in quotes or brackets do not separate. Empty where a quote is not closed."""
    fields, position, comma = [], 0, ","
    line = line.strip()
    while comma:
        field = _FIELD.match(line, position)
        if field is None:
            return []
        quoted, plain, comma = field.groups()
        fields.append(plain.strip() if quoted is None else _ESCAPE.sub(lambda found: found[1] or '"', quoted))
        position = field.end()
    return fields


def _listed(field: str) -> list[str] | None:
    """The names in brackets, else None."""
    if not (field.startswith("[") and field.endswith("]")):
        return None
    return [name.strip() for name in field[1:-1].split(",") if name.strip()]


def is_toon(path: Path) -> bool:
    """Whether the first readable row of a JSONL file is SceneGraphVLM's; False for a file that cannot be read."""
    try:
        return {"predict", "content"} <= next((row for _, row, error in read_rows(path) if not error), {}).keys()
    except DataError:
        return False


def image_id_of(row: Mapping) -> str | None:
    """The name of the image file without its ending, else the row's ``image_id``."""
    images = row.get("images")
    if isinstance(images, list) and images and isinstance(images[0], str):
        return PurePosixPath(images[0].replace("\\", "/")).stem
    return tidy_id(row.get("image_id"))


def read(argument: str, split: str | None = None) -> Iterator[Record]:
    """The ground truth of every row; of several rows with one image the first counts.

    Raises:
        DataError: the file is missing, or has no splits.
    """
    refuse_split(split, argument)
    seen = set()
    for number, row, error in read_rows(argument):
        where = f"{argument}, row {number}"
        if error:
            yield Record(where, None, (error,))
            continue
        image_id, result = image_id_of(row), parse(row.get("content"))
        if image_id is None or result.graph is None:
            error = f"needs 'images' and a 'content' in the line format ({result.status})"
            yield Record(where, None, (error,))
        elif image_id not in seen:
            seen.add(image_id)
            size = _SIZE.search(str(row.get("messages", "")))
            width, height = (int(size[1]), int(size[2])) if size else (0, 0)
            yield Record(where, Example(image_id, width, height, result.graph))
