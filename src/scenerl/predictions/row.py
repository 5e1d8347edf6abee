"""One prediction as a row of JSON: the only encoder and decoder of what ``predict`` and ``merge`` write.

A row names its image (``image_id``, ``sample``) and holds the model's raw ``answer``, what it parsed to (``status``,
``issues``, ``graph``), and how it was made (``task``, ``frame``, ``input_wh``, ``num_tokens``, ``finish_reason``). In a
graph, object ids are the label and the position, ``dog.1``; boxes are pixels of the original image.

What decodes a row raises DataError where it cannot be used. ``where`` names file and row in errors and notes; ``notes``
take the scores that are no finite numbers.

Rows written elsewhere may hold the raw ``answer`` alone, or the ``graph`` alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scenerl.answers.dialogue import Conversation
from scenerl.answers.elements import excerpt, label_of, normal_text, object_ids
from scenerl.answers.formats import FORMATS
from scenerl.answers.output_format import OutputFormat
from scenerl.box_formats import BOX_FORMATS
from scenerl.data.instances import tidy_id
from scenerl.data.jsonl import read_jsonl
from scenerl.data.records import FAR, four_finite
from scenerl.data.vocabulary import Vocabulary
from scenerl.errors import DataError
from scenerl.predictions.notes import Notes
from scenerl.types import FAILURES, Box, Example, Issue, ParseResult, Relation, SceneGraph, SceneObject

if TYPE_CHECKING:
    from scenerl.commands.groups import AnswerOptions
    from scenerl.inference.confidence import Confidence
    from scenerl.inference.engine import Reply

DEFAULT_BOX_FORMAT = "norm1000"
LAST = -1e300
"""Score of an element whose own is no finite number: it ranks behind all others."""

Votes = tuple[Sequence[int], Sequence[int]]
"""How many of the merged answers hold each object and each relation of a graph."""

_NUMBER = frozenset((int, float))


def encode_graph(graph: SceneGraph, confidence: Confidence | None = None, votes: Votes | None = None) -> dict:
    """A graph as rows hold it.

    Args:
        graph: boxes in pixels of the original image; they are rounded to 1/100.
        confidence: of ``graph``; its sums of log-probabilities become the elements' ``logprobs``.
        votes: of objects and of relations, become the elements' ``votes``.
    """
    ids = object_ids([item.label for item in graph.objects])
    objects = [
        {"id": name, "bbox": [round(value, 2) for value in item.box], **_encode_score(item.score)}
        for name, item in zip(ids, graph.objects, strict=True)
    ]
    relations = [
        {
            "subject": ids[item.subject],
            "predicate": item.predicate,
            "object": ids[item.object],
            **_encode_score(item.score),
        }
        for item in graph.relations
    ]
    if confidence is not None:
        for elements, parts in ((objects, confidence.objects), (relations, confidence.relations)):
            for element, sums in zip(elements, parts, strict=True):
                element["logprobs"] = sums and {name: _finite(value) for name, value in sums.items()}
    if votes is not None:
        for elements, counts in zip((objects, relations), votes, strict=True):
            for element, count in zip(elements, counts, strict=True):
                element["votes"] = count
    return {"objects": objects, "relationships": relations}


def _encode_score(score: float | None) -> dict:
    return {} if score is None else {"score": score}


def _finite(logprob: float) -> float | None:
    """A log-probability for a file; JSON knows neither infinity nor NaN."""
    return round(logprob, 6) if math.isfinite(logprob) else None


def prediction_row(
    example: Example,
    result: ParseResult,
    reply: Reply | None,
    output_format: OutputFormat,
    input_wh: tuple[int, int] | None,
    sample: int = 0,
    confidence: Confidence | None = None,
) -> dict:
    """The row of an answer.

    Args:
        result: what the reply's text parsed to.
        reply: None where there is none.
        input_wh: size of the resized input in pixels, where it is known.
        sample: number of the answer among those about the image.
        confidence: gives the elements of the graph scores and the parts that these come from. A reply with
            log-probabilities leaves them in ``logprobs``, one for each of its ``num_tokens``.
    """
    graph = result.graph if confidence is None else confidence.graph
    row = {
        "image_id": example.image_id,
        "sample": sample,
        "file_name": str(example.image) if isinstance(example.image, os.PathLike) else None,
        "width": example.width,
        "height": example.height,
        "answer": reply.text if reply else None,
        "status": result.status,
        "issues": [asdict(issue) for issue in result.issues],
        "graph": encode_graph(graph, confidence) if graph is not None else None,
        # the task to evaluate it as: what a detector provided is no ground truth
        "task": output_format.task if example.provided is None else "sgdet",
        "frame": output_format.box_format,
        "input_wh": list(input_wh) if input_wh else None,
        "num_tokens": reply.num_tokens if reply else 0,
        "finish_reason": reply.finish_reason if reply else None,
    }
    if reply and reply.logprobs is not None:
        row["logprobs"] = [_finite(value) for value in reply.logprobs]
    return row


def error_row(example: Example, output_format: OutputFormat, sample: int, error: str) -> dict:
    """The row of an image that could not be read: no answer, and the reason."""
    return {
        **prediction_row(example, ParseResult("no_answer", None), None, output_format, None, sample),
        "error": error,
    }


def read_rows(path: Path | str) -> Iterator[tuple[str, dict]]:
    """The rows that ``predict`` or ``merge`` wrote, each with its place for messages; ``image_id`` is tidied text.

    Raises:
        DataError: the file cannot be read, or a row is no JSON object or lacks ``image_id``, a whole number as
            ``sample`` (0 by default) or a text as ``status``; names file and row.
    """
    for number, row in read_jsonl(path):
        where = f"{path}, row {number}"
        image_id, sample = tidy_id(row.get("image_id")), row.setdefault("sample", 0)
        if image_id is None or type(sample) is not int or not isinstance(row.get("status"), str):
            raise DataError(f"{where}: not as predict writes it; image_id, sample and status are needed")
        row["image_id"] = image_id
        yield where, row


def decode(row: Mapping, where: str, conversation: Conversation, example: Example, notes: Notes) -> ParseResult:
    """What a row predicts, boxes in pixels of the original image: its parsed graph, or else its answer, parsed."""
    # Objects beside an answer are ground truth, as in the rows that `score` reads: never taken for a prediction.
    if "status" in row or isinstance(row.get("graph"), Mapping):
        return decode_parsed(row, where, notes)
    if "answer" not in row:
        raise DataError(f"{where}: neither 'answer' nor a parsed 'graph'; one of them is expected")
    return parse_row_answer(row, where, conversation, example)


def conversation_of(options: AnswerOptions, vocabulary: Vocabulary | None) -> Conversation:
    """How a command parses the raw answers in a file.

    Args:
        options: format, response template and box format, 0 to 1000 where they name none.
        vocabulary: closed; None leaves it open. An example's query takes the place of its object labels.
    """
    return Conversation(
        OutputFormat(
            format=options.format,
            template=options.envelope,
            objects=vocabulary and vocabulary.objects,
            predicates=vocabulary and vocabulary.predicates,
            box_format=options.frame or DEFAULT_BOX_FORMAT,
        )
    )


def parse_row_answer(
    row: Mapping, where: str, conversation: Conversation, example: Example, strict: bool = False
) -> ParseResult:
    """The row's raw ``answer``, parsed as training and ``predict`` parse it.

    Args:
        row: with ``answer``, and perhaps ``frame``, ``input_wh`` and ``finish_reason``, which take precedence.
        conversation: how the answer is read, unless the row says otherwise.
        example: the ground truth, for its size and its query.
        strict: any issue makes the whole answer a failure.
    """
    answer = row.get("answer")
    if answer is not None and not isinstance(answer, str):
        raise DataError(f"{where}: answer must be a text or null, found {excerpt(answer)}")
    box_format = row.get("frame", conversation.output_format.box_format)
    if not isinstance(box_format, str) or box_format not in BOX_FORMATS:
        raise DataError(f"{where}: unknown box format (frame) {excerpt(box_format)}; allowed: {', '.join(BOX_FORMATS)}")
    input_wh = _input_wh(row.get("input_wh"), where)
    resize = conversation.resize if input_wh is None else lambda image_wh: input_wh
    if box_format == "resized" and resize is None:
        raise DataError(f"{where}: the box format 'resized' needs input_wh, the resized image's [width, height]")
    if (box_format, resize) != (conversation.output_format.box_format, conversation.resize):
        output_format = replace(conversation.output_format, box_format=box_format)
        conversation = replace(conversation, output_format=output_format, resize=resize)
    own = FORMATS[conversation.output_format.format].box_format or box_format
    if own != "pixels" and not all(example.image_wh):
        raise DataError(f"{where}: the frame {own!r} needs the image's width and height, which the data lacks")
    return conversation.parse(answer, example, truncated=row.get("finish_reason") == "length", strict=strict)


def _input_wh(value: object, where: str) -> tuple[float, float] | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2 and all(type(x) in _NUMBER and 0 < x < FAR for x in value):
        return value[0], value[1]
    raise DataError(f"{where}: input_wh must be [width, height] in pixels above 0, found {excerpt(value)}")


def decode_parsed(row: Mapping, where: str, notes: Notes) -> ParseResult:
    """The result that a row of ``predict`` holds in ``status`` ("ok" by default), ``issues`` and ``graph``."""
    status = row.get("status", "ok")
    if not isinstance(status, str) or (status != "ok" and status not in FAILURES):
        raise DataError(f"{where}: unknown status {excerpt(status)}; allowed: ok, {', '.join(FAILURES)}")
    issues = []
    for n, issue in enumerate(_list(row.get("issues", []), "issues", where)):
        if not isinstance(issue, Mapping) or not isinstance(issue.get("kind"), str):
            raise DataError(f"{where}: issues[{n}] must be an object with a 'kind', found {excerpt(issue)}")
        issues.append(Issue(issue["kind"], str(issue.get("where", "")), str(issue.get("detail", ""))))
    if status != "ok":
        return ParseResult(status, None, tuple(issues))
    if not isinstance(row.get("graph"), Mapping):
        raise DataError(f"{where}: status 'ok' needs a 'graph' object, found {excerpt(row.get('graph'))}")
    return ParseResult("ok", decode_graph(row["graph"], where, notes), tuple(issues))


def decode_graph(graph: Mapping, where: str, notes: Notes) -> SceneGraph:
    """The inverse of :func:`encode_graph`; a score that is no finite number becomes :data:`LAST`."""
    objects: list[SceneObject] = []
    index: dict[str, int] = {}
    for n, item in enumerate(_list(graph.get("objects"), "objects", where)):
        name = _text(item, "id", where, "objects", n)
        if index.setdefault(name, n) != n:
            raise DataError(f"{where}: objects[{n}] has the id {excerpt(name)} of objects[{index[name]}]")
        score = item.get("score")
        if score is not None:
            score = decode_score(score, f"{where}, objects[{n}]", notes)
        objects.append(SceneObject(normal_text(label_of(name)), _box(item.get("bbox"), where, n), score))
    relations = []
    for n, item in enumerate(_list(graph.get("relationships", []), "relationships", where)):
        try:
            subject, object_, predicate = index[item["subject"]], index[item["object"]], item["predicate"]
        except (KeyError, TypeError):
            raise _bad_relation(item, n, index, where) from None
        if type(predicate) is not str:
            raise _bad_relation(item, n, index, where)
        score = item.get("score")
        if score is not None:
            score = decode_score(score, f"{where}, relationships[{n}]", notes)
        relations.append(Relation(subject, normal_text(predicate), object_, score))
    return SceneGraph(tuple(objects), tuple(relations))


def decode_score(value: object, where: str, notes: Notes) -> float | None:
    """A score, None where there is none; what is no finite number is noted and ranks last."""
    if value is None:
        return None
    # NaN, infinities and endless integers are not between the bounds.
    if type(value) not in _NUMBER or not LAST < value < -LAST:
        notes.add("bad_scores", where)
        return LAST
    return float(value)


def _bad_relation(item: object, n: int, index: Mapping[str, int], where: str) -> DataError:
    """What is wrong with a relation; put together only when something is, because many rows are read."""
    ends = [_text(item, key, where, "relationships", n) for key in ("subject", "predicate", "object")]
    lost = next(end for end in (ends[0], ends[2]) if end not in index)
    return DataError(f"{where}: relationships[{n}] names {excerpt(lost)}, which is no object's id")


def _list(value: object, name: str, where: str) -> list:
    if not isinstance(value, list):
        raise DataError(f"{where}: {name} must be a list, found {excerpt(value)}")
    return value


def _text(item: object, key: str, where: str, name: str, n: int) -> str:
    value = item.get(key) if isinstance(item, Mapping) else None
    if not isinstance(value, str):
        raise DataError(f"{where}: {name}[{n}] must be an object with a text {key!r}, found {excerpt(item)}")
    return value


def _box(value: object, where: str, n: int) -> Box:
    box = four_finite(value)
    if box is None:
        raise DataError(f"{where}: bbox of objects[{n}] must be 4 finite numbers, found {excerpt(value)}")
    return box
