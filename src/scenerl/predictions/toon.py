"""SceneGraphVLM's line format, in JSONL rows with the ground truth (``content``) and the answer (``predict``).

An answer stands in ``<answer>`` tags: ``obj[2]{id,name,x1,y1,x2,y2}:`` and a line per object, then
``rel[1]{subj,pred,obj}:`` and a line per relation. Boxes are pixels of the image that the model saw, on both sides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from scenerl.errors import DataError
from scenerl.predictions import jsonl
from scenerl.predictions.contents import Names, Predictions, RawPrediction, tidy_id
from scenerl.predictions.fields import GraphBuilder
from scenerl.predictions.notes import Notes
from scenerl.predictions.truth import Truth
from scenerl.types import Example, Issue, ParseResult

_HEADER = re.compile(r"(obj|rel)\s*\[\s*\d*\s*\]\s*\{([^{}]{0,200})\}\s*:", re.IGNORECASE)
_SIZE = re.compile(r"of size \((\d{1,6}) x (\d{1,6})\)")
_NUMBER = re.compile(r"[0-9]{1,9}")
_MOST = 10_000  # lines of an answer that are read


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
    graph, issues, section = GraphBuilder(), [], None
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
    return ParseResult("ok", graph.graph(), tuple(issues))


def _object(graph: GraphBuilder, fields: list[str]) -> str | None:
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
    if int(fields[0]) in graph.place:
        return "duplicate_id"
    graph.add_object(int(fields[0]), fields[1], box)
    return None


def _relation(graph: GraphBuilder, fields: list[str]) -> str | None:
    if len(fields) != 3 or not _NUMBER.fullmatch(fields[0]) or not _NUMBER.fullmatch(fields[2]) or not fields[1]:
        return "malformed_relation"
    subject, object_ = int(fields[0]), int(fields[2])
    if subject not in graph.place or object_ not in graph.place:
        return "dangling_relation"
    if subject == object_:
        return "self_relation"
    graph.add_relation(subject, fields[1], object_)
    return None


def is_row(row: Mapping) -> bool:
    """Whether a row of JSONL is SceneGraphVLM's."""
    return "predict" in row and "content" in row


def read(path: Path, names: Names) -> Predictions:
    """The answers of a file of SceneGraphVLM's; an image's id is its file's name without the ending.

    Raises:
        DataError: the file holds no usable row, or a row no answer.
    """
    predictions = Predictions(path)
    for number, row in jsonl.rows(path, predictions.notes):
        image_id = _image_id(row)
        if image_id is None:
            predictions.notes.add("unnamed_rows", f"row {number}")
            continue
        where = f"{path}, row {number}"
        if "predict" not in row:
            raise DataError(f"{where}: no 'predict'; SceneGraphVLM's rows hold the answer there")
        predictions.add(image_id, RawPrediction(where, result=parse(row["predict"])))
    return predictions.require_some()


def truth(path: Path) -> Truth:
    """The ground truth of the same file.

    Raises:
        DataError: a row's ``content`` cannot be read.
    """
    examples: dict[str, Example] = {}
    for number, row in jsonl.rows(path, Notes(path)):
        image_id, result = _image_id(row), parse(row.get("content"))
        if image_id is None or result.graph is None:
            raise DataError(
                f"{path}, row {number}: needs 'images' and a 'content' in the line format ({result.status})"
            )
        size = _SIZE.search(str(row.get("messages", "")))
        width, height = (int(size[1]), int(size[2])) if size else (0, 0)
        examples.setdefault(image_id, Example(image_id, width, height, result.graph))
    if not examples:
        raise DataError(f"{path} holds no row with 'images' and 'content'")
    return Truth(list(examples.values()))


def _image_id(row: Mapping) -> str | None:
    images = row.get("images")
    if isinstance(images, list) and images and isinstance(images[0], str):
        return PurePosixPath(images[0].replace("\\", "/")).stem
    return tidy_id(row.get("image_id"))
