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
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from scenerl.data.instances import tidy_id
from scenerl.data.jsonl import read_rows
from scenerl.data.published import refuse_split
from scenerl.data.records import Record
from scenerl.errors import DataError
from scenerl.types import Example, Issue, ParseResult, Relation, SceneGraph, SceneObject

_HEADER = re.compile(r"\b(obj|rel|rel_pairs)\s*\[\s*(\d{0,9})\s*\]\s*\{([^{}]{0,200})\}\s*:", re.IGNORECASE)
_FIELD = re.compile(r'\s*(?:"((?:[^"\\]|\\.|"")*)"|(\[[^\][]*\]|[^,"][^,]*|))\s*(,|$)')
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
    reader = _Reader()
    for number, line in enumerate(body.splitlines()[:_MAX_LINES], start=1):
        reader.read(line, number)
    issues = tuple(reader.issues)
    if not reader.sections or (reader.announced and not reader.objects):
        return ParseResult("wrong_schema", None, issues)
    if reader.sections == {"obj"}:
        return ParseResult("wrong_schema" if closed else "truncated", None, issues)
    return ParseResult("ok", SceneGraph(tuple(reader.objects), tuple(reader.relations)), issues)


class _Reader:
    """Takes the lines of an answer in order.

    Attributes:
        objects, relations: what they hold.
        place: ids of the text to indices of ``objects``.
        issues: the lines that were dropped.
        sections: the headers that were there.
        announced: how many objects the header says there are.
    """

    def __init__(self) -> None:
        self.objects: list[SceneObject] = []
        self.relations: list[Relation] = []
        self.place: dict[int, int] = {}
        self.issues: list[Issue] = []
        self.sections: set[str] = set()
        self.announced = 0
        self._add = None
        self._width = 0

    def read(self, line: str, number: int) -> None:
        """Read one line: a header, perhaps with the first element behind it, or an element."""
        header = _HEADER.search(line)
        if header:
            section = header[1].lower()
            self.sections.add(section)
            self._add = {"obj": self._object, "rel": self._relation, "rel_pairs": self._pair}[section]
            self._width = len(header[3].split(","))
            if section == "obj":
                self.announced = int(header[2] or 0)
            line = line[header.end() :]
        if self._add is None or line.count(",") < 2:
            return
        issue = self._add(_split(line))
        if issue:
            self.issues.append(Issue(issue, f"line {number}", line[:80]))

    def _object(self, fields: list[str]) -> str | None:
        """Add an object, or return what is wrong. Further fields may stand between the name and the box."""
        if len(fields) != max(self._width, 6) or not _NUMBER.fullmatch(fields[0]) or not fields[1]:
            return "malformed_object"
        try:
            box = tuple(float(field) for field in fields[-4:])
        except ValueError:
            return "bad_box"
        if not all(math.isfinite(number) for number in box):
            return "bad_box"
        if box[0] >= box[2] or box[1] >= box[3]:
            return "no_area"
        if int(fields[0]) in self.place:
            return "duplicate_id"
        self.place[int(fields[0])] = len(self.objects)
        self.objects.append(SceneObject(fields[1], box))
        return None

    def _relation(self, fields: list[str]) -> str | None:
        """Add a relation; fields behind the third are ignored."""
        if len(fields) < 3 or not fields[1]:
            return "malformed_relation"
        return self._relate(fields[0], [fields[1]], [], fields[2])

    def _pair(self, fields: list[str]) -> str | None:
        """Add the relations of a person with an object. Spatial predicates say where the object is, as in Action
        Genome: "in front of" becomes a relation of the object with the person."""
        lists = [_listed(field) for field in fields[1:4]]
        if len(fields) != 5 or None in lists:
            return "malformed_relation"
        attention, spatial, contacting = lists
        return self._relate(fields[0], [*attention, *contacting], spatial, fields[4])

    def _relate(self, subject: str, forward: list[str], backward: list[str], object_: str) -> str | None:
        if not _NUMBER.fullmatch(subject) or not _NUMBER.fullmatch(object_):
            return "malformed_relation"
        ends = int(subject), int(object_)
        if not {*ends} <= self.place.keys():
            return "dangling_relation"
        if ends[0] == ends[1]:
            return "self_relation"
        for predicates, (first, second) in ((forward, ends), (backward, ends[::-1])):
            for predicate in predicates:
                self.relations.append(Relation(self.place[first], predicate, self.place[second]))
        return None


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


def is_row(row: Mapping) -> bool:
    """Whether a row of JSONL is SceneGraphVLM's."""
    return "predict" in row and "content" in row


def is_toon(path: Path) -> bool:
    """Whether the first readable row of a JSONL file is SceneGraphVLM's; False for a file that cannot be read."""
    try:
        return is_row(next((row for _, row, error in read_rows(path) if not error), {}))
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
