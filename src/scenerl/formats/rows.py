"""Rows of our own JSONL of predictions: an answer to be parsed, or a graph that was parsed before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from scenerl.answers import OutputFormat, parse_answer
from scenerl.box_formats import BOX_FORMATS
from scenerl.data.rows import excerpt, label_of
from scenerl.errors import DataError
from scenerl.formats.files import score_of
from scenerl.formats.predictions import Predictions
from scenerl.types import FAILURES, Example, Issue, ParseResult, Relation, SceneGraph, SceneObject

_NUMBER = frozenset((int, float))
_FAR = 1e12


def read_row(
    row: Mapping, where: str, output_format: OutputFormat, example: Example, predictions: Predictions
) -> ParseResult:
    """One prediction row to a parse result in original pixels.

    Args:
        row: with ``answer`` (and perhaps ``frame``, ``input_wh``, ``finish_reason``), or ``status`` and ``graph``.
        where: names file and row in errors.
        output_format: how answers are read, unless the row says otherwise.
        example: the ground truth, for its size.
        predictions: where odd scores are noted.

    Raises:
        DataError: the row cannot be used.
    """
    reader = _RowReader(where, predictions)
    if "status" in row or isinstance(row.get("graph"), Mapping):
        return reader.parsed(row)
    # Objects beside an answer are ground truth, as in the rows that `score` reads: never taken for a prediction.
    if "answer" not in row:
        raise DataError(f"{where}: neither 'answer' nor a parsed 'graph'; one of them is expected")
    box_format, input_wh = row.get("frame", output_format.box_format), row.get("input_wh")
    if not isinstance(box_format, str) or box_format not in BOX_FORMATS:
        raise DataError(f"{where}: unknown frame {excerpt(box_format)}; allowed: {', '.join(BOX_FORMATS)}")
    if input_wh is not None:
        input_wh = tuple(reader.numbers(input_wh, 2, "input_wh"))
        if min(input_wh) <= 0:
            raise DataError(f"{where}: input_wh must be above 0, found {excerpt(row['input_wh'])}")
    elif box_format == "resized":
        raise DataError(f"{where}: the frame 'resized' needs input_wh, [width, height] of the resized image in pixels")
    return parse_answer(
        row["answer"],
        replace(output_format, box_format=box_format),
        example.image_wh,
        input_wh,
        truncated=row.get("finish_reason") == "length",
    )


class _RowReader:
    """Checks one row; ``where`` names file and row in errors."""

    def __init__(self, where: str, predictions: Predictions) -> None:
        self.where = where
        self.predictions = predictions

    def parsed(self, row: Mapping) -> ParseResult:
        status = row.get("status", "ok")
        if not isinstance(status, str) or (status != "ok" and status not in FAILURES):
            raise DataError(f"{self.where}: unknown status {excerpt(status)}; allowed: ok, {', '.join(FAILURES)}")
        issues = []
        for n, issue in enumerate(self._list(row.get("issues", []), "issues")):
            if not isinstance(issue, Mapping) or not isinstance(issue.get("kind"), str):
                raise DataError(f"{self.where}: issues[{n}] must be an object with a 'kind', found {excerpt(issue)}")
            issues.append(Issue(issue["kind"], str(issue.get("where", "")), str(issue.get("detail", ""))))
        if status != "ok":
            return ParseResult(status, None, tuple(issues))
        if not isinstance(row.get("graph"), Mapping):
            raise DataError(f"{self.where}: status 'ok' needs a 'graph' object, found {excerpt(row.get('graph'))}")
        return ParseResult("ok", self._graph(row["graph"]), tuple(issues))

    def _graph(self, graph: Mapping) -> SceneGraph:
        """A parsed graph, boxes in pixels of the original image."""
        objects: list[SceneObject] = []
        index: dict[str, int] = {}
        for n, item in enumerate(self._list(graph.get("objects"), "objects")):
            name = self._text(item, "id", "objects", n)
            if index.setdefault(name, n) != n:
                raise DataError(f"{self.where}: objects[{n}] has the id {excerpt(name)} of objects[{index[name]}]")
            box = tuple(self.numbers(item.get("bbox"), 4, "bbox of objects", n))
            score = item.get("score")
            if score is not None:
                score = score_of(score, self.predictions, f"{self.where}, objects[{n}]")
            objects.append(SceneObject(label_of(name), box, score))
        relations = []
        for n, item in enumerate(self._list(graph.get("relationships", []), "relationships")):
            try:
                subject, object_, predicate = index[item["subject"]], index[item["object"]], item["predicate"]
            except (KeyError, TypeError):
                raise self._bad_relation(item, n, index) from None
            if type(predicate) is not str:
                raise self._bad_relation(item, n, index)
            score = item.get("score")
            if score is not None:
                score = score_of(score, self.predictions, f"{self.where}, relationships[{n}]")
            relations.append(Relation(subject, predicate, object_, score))
        return SceneGraph(tuple(objects), tuple(relations))

    def _bad_relation(self, item: object, n: int, index: Mapping[str, int]) -> DataError:
        """What is wrong with a relation; said only when something is, because many rows are read."""
        ends = [self._text(item, key, "relationships", n) for key in ("subject", "predicate", "object")]
        lost = next(end for end in (ends[0], ends[2]) if end not in index)
        return DataError(f"{self.where}: relationships[{n}] names {excerpt(lost)}, which is no object's id")

    def _list(self, value: object, name: str) -> list:
        if not isinstance(value, list):
            raise DataError(f"{self.where}: {name} must be a list, found {excerpt(value)}")
        return value

    def _text(self, item: object, key: str, name: str, n: int) -> str:
        value = item.get(key) if isinstance(item, Mapping) else None
        if not isinstance(value, str):
            raise DataError(f"{self.where}: {name}[{n}] must be an object with a text {key!r}, found {excerpt(item)}")
        return value

    def numbers(self, value: object, count: int, name: str, n: int | None = None) -> list[float]:
        """``count`` finite numbers."""
        numbers = value if type(value) is list else []
        # NaN, infinities and endless integers are not below the bound.
        good = [number for number in numbers if type(number) in _NUMBER and -_FAR < number < _FAR]
        if len(numbers) != count or len(good) != count:
            place = name if n is None else f"{name}[{n}]"
            raise DataError(f"{self.where}: {place} must be {count} finite numbers, found {excerpt(value)}")
        return list(map(float, good))
