"""SceneGraphVLM's line format, in JSONL rows with the ground truth (``content``) and the answer (``predict``).

An answer stands in ``<answer>`` tags: ``obj[2]{id,name,x1,y1,x2,y2}:`` and a line per object, then
``rel[1]{subj,pred,obj}:`` and a line per relation. Boxes are pixels of the image that the model saw, on both sides.

Source ``toon:FILE.jsonl``, or the file itself. Width and height come from the prompt (``of size (640 x 480)``); where
it does not state them, they are 0 and the rows can only be evaluated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from scenerl.data.ground_truth import Names
from scenerl.data.instances import tidy_id
from scenerl.data.jsonl import read_rows
from scenerl.data.records import Record
from scenerl.errors import DataError
from scenerl.types import Example, Issue, ParseResult, Relation, SceneGraph, SceneObject

_HEADER = re.compile(r"(obj|rel)\s*\[\s*\d*\s*\]\s*\{([^{}]{0,200})\}\s*:", re.IGNORECASE)
_SIZE = re.compile(r"of size \((\d{1,6}) x (\d{1,6})\)")
_NUMBER = re.compile(r"[0-9]{1,9}")
_MOST = 10_000  # lines of an answer that are read


@dataclass
class _Graph:
    """A graph as its lines are read; ``place`` maps the ids of the text to indices of ``objects``."""

    objects: list[SceneObject] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    place: dict[int, int] = field(default_factory=dict)


def parse(text: object) -> ParseResult:
    """A scene graph in the line format; never raises, whatever the text is."""
    if not isinstance(text, str):
        return ParseResult("no_answer", None)
    if not text.strip():
        return ParseResult("empty", None)
    body = text.rpartition("</think>")[2]
    start = body.rfind("<answer>")
    if start >= 0:
        body = body[start + len("<answer>") :].partition("</answer>")[0]
    graph, issues, section = _Graph(), [], None
    for number, line in enumerate(body.splitlines()[:_MOST], start=1):
        header = _HEADER.match(line.strip())
        if header:
            section = header[1].lower()
            continue
        fields = [field.strip() for field in line.split(",")]
        if section is None or len(fields) < 3:
            continue
        issue = _object(graph, fields) if section == "obj" else _relation(graph, fields)
        if issue:
            issues.append(Issue(issue, f"line {number}", line[:80]))
    if section is None:
        return ParseResult("wrong_schema", None)
    found = SceneGraph(tuple(graph.objects), tuple(graph.relations))
    return ParseResult("ok", found, tuple(issues))


def _object(graph: _Graph, fields: list[str]) -> str | None:
    """Add an object, or say what is wrong. The box is the last four fields, the name the one after the id."""
    if len(fields) < 6 or not _NUMBER.fullmatch(fields[0]) or not fields[1]:
        return "malformed_object"
    try:
        box = tuple(float(field) for field in fields[-4:])
    except ValueError:
        return "bad_box"
    if not all(math.isfinite(number) for number in box):
        return "bad_box"
    if box[0] >= box[2] or box[1] >= box[3]:
        return "no_area"
    number = int(fields[0])
    if number in graph.place:
        return "duplicate_id"
    graph.place[number] = len(graph.objects)
    graph.objects.append(SceneObject(fields[1], box))
    return None


def _relation(graph: _Graph, fields: list[str]) -> str | None:
    if len(fields) != 3 or not _NUMBER.fullmatch(fields[0]) or not _NUMBER.fullmatch(fields[2]) or not fields[1]:
        return "malformed_relation"
    subject, object_ = int(fields[0]), int(fields[2])
    if subject not in graph.place or object_ not in graph.place:
        return "dangling_relation"
    if subject == object_:
        return "self_relation"
    graph.relations.append(Relation(graph.place[subject], fields[1], graph.place[object_]))
    return None


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
    if split is not None:
        raise DataError(f"{argument} is one file and has no split {split!r}")
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


def read_exact(argument: str, split: str | None = None) -> tuple[Names, Iterator[Record]]:
    """As :func:`read`: nothing is changed there either."""
    return Names(), read(argument, split)
