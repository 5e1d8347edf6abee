"""The file of predictions: rows appended one by one, valid after a kill or a full disk, never doubled."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Set
from pathlib import Path

from scenerl.answers import OutputFormat
from scenerl.data.jsonl import why_no_json
from scenerl.errors import UserError
from scenerl.inference.confidence import Confidence, Parts
from scenerl.inference.engine import Reply
from scenerl.inference.tally import Tally
from scenerl.types import Example, ParseResult, SceneGraph


def graph_to_json(graph: SceneGraph, confidence: Confidence | None = None) -> dict:
    """A graph as ``predict`` writes it: ids are label and position, boxes pixels of the original image.

    With ``confidence``, whose graph is ``graph``, each element has the sums of its tokens' log-probabilities.
    """
    ids = [f"{obj.label}.{index + 1}" for index, obj in enumerate(graph.objects)]
    objects = [
        {
            "id": name,
            "bbox": [round(value, 2) for value in obj.box],
            **({"score": obj.score} if obj.score is not None else {}),
            **(_parts_to_json(confidence.objects[index]) if confidence else {}),
        }
        for index, (name, obj) in enumerate(zip(ids, graph.objects, strict=True))
    ]
    relations = [
        {
            "subject": ids[relation.subject],
            "predicate": relation.predicate,
            "object": ids[relation.object],
            **({"score": relation.score} if relation.score is not None else {}),
            **(_parts_to_json(confidence.relations[index]) if confidence else {}),
        }
        for index, relation in enumerate(graph.relations)
    ]
    return {"objects": objects, "relationships": relations}


def _parts_to_json(parts: Parts) -> dict:
    return {"logprobs": parts and {name: _number(value) for name, value in parts.items()}}


def _number(logprob: float) -> float | None:
    """A log-probability for a file; JSON knows neither infinity nor NaN."""
    return round(logprob, 6) if math.isfinite(logprob) else None


def prediction_row(
    example: Example,
    result: ParseResult,
    reply: Reply,
    output_format: OutputFormat,
    input_wh: tuple[int, int],
    sample: int = 0,
    confidence: Confidence | None = None,
) -> dict:
    """One row of a prediction file: the raw answer, what it parsed to, and how it ended.

    With ``confidence`` the elements of the graph have scores and their parts; a reply with log-probabilities leaves
    them in ``logprobs``, one for each of its ``num_tokens``.
    """
    row = _row(example, result, reply, output_format, input_wh, sample)
    if confidence is not None:
        row["graph"] = graph_to_json(confidence.graph, confidence)
    if reply.logprobs is not None:
        row["logprobs"] = [_number(value) for value in reply.logprobs]
    return row


def error_row(example: Example, output_format: OutputFormat, sample: int, error: str) -> dict:
    """The row of an image that could not be read: no answer, and why."""
    return {**_row(example, ParseResult("no_answer", None), None, output_format, None, sample), "error": error}


def _row(
    example: Example,
    result: ParseResult,
    reply: Reply | None,
    output_format: OutputFormat,
    input_wh: tuple[int, int] | None,
    sample: int,
) -> dict:
    return {
        "image_id": example.image_id,
        "sample": sample,
        "file_name": str(example.image) if isinstance(example.image, os.PathLike) else None,
        "width": example.width,
        "height": example.height,
        "answer": reply.text if reply else None,
        "status": result.status,
        "issues": [{"kind": issue.kind, "where": issue.where, "detail": issue.detail} for issue in result.issues],
        "graph": graph_to_json(result.graph) if result.graph is not None else None,
        # the task to evaluate it as: what a detector gave is no ground truth
        "task": output_format.task if example.provided is None else "sgdet",
        "frame": output_format.box_format,
        "input_wh": list(input_wh) if input_wh else None,
        "num_tokens": reply.num_tokens if reply else 0,
        "finish_reason": reply.finish_reason if reply else None,
    }


class PredictionFile:
    """Append-only JSONL of predictions, for one writer at a time (``lock``).

    Opening it drops a last row that was cut off by a kill, and notes which (image_id, sample) are there. A row that
    cannot be written whole (a full disk) is taken back, so that the file stays valid.

    Attributes:
        done: (image_id, sample) of every row.
        failed: image ids whose rows hold an error instead of an answer since before the file was opened.
        tally: what became of the answers.

    Raises:
        UserError: it holds a row, other than a cut-off last one, that is no prediction; names file and row.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab", buffering=0)
        try:
            self._begin()
            self.failed: set[str] = set()
            for line, row in self._rows():
                self._note(line, row)
                if "error" in row:
                    self.failed.add(row["image_id"])
            self._file.truncate(self._size)
        except BaseException:
            self._file.close()
            raise

    def _begin(self) -> None:
        self.done: set[tuple[str, int]] = set()
        self.tally = Tally()
        self._size = 0

    def _note(self, line: bytes, row: dict) -> None:
        self.done.add((row["image_id"], row.get("sample", 0)))
        self.tally.add(row)
        self._size += len(line)

    def _rows(self) -> Iterator[tuple[bytes, dict]]:
        """The whole lines of the file with what they hold."""
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                try:
                    row = json.loads(line)
                    hash((row["image_id"], row.get("sample", 0)))
                    Tally().add(row)
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                    raise UserError(
                        f"{self.path}, row {number}: not a prediction row ({why_no_json(error)}); use --fresh or "
                        "another --out"
                    ) from error
                yield line, row

    def append(self, row: dict) -> None:
        """Write one row; on return it is in the file.

        Raises:
            UserError: the disk is full or the file cannot be written; earlier rows are kept.
        """
        line = (json.dumps(row) + "\n").encode()
        try:
            view = memoryview(line)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            self._file.truncate(self._size)
            raise UserError(
                f"{self.path}: cannot write ({error.strerror}); the {len(self.done)} rows so far are kept, "
                "the same command goes on from there"
            ) from error
        self._note(line, row)

    def forget(self, image_ids: Set[str]) -> None:
        """Take out all rows of some images. The file is written anew, whole or not at all: once for all of them.

        Raises:
            OSError: the disk is full; the file is as it was.
        """
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with draft.open("wb") as file:
                self._begin()
                for line, row in self._rows():
                    if row["image_id"] not in image_ids:
                        file.write(line)
                        self._note(line, row)
                file.flush()
                os.fsync(file.fileno())
            self._file.close()
            os.replace(draft, self.path)
        finally:
            draft.unlink(missing_ok=True)
        self._file = self.path.open("ab", buffering=0)
        self.failed = self.failed - image_ids

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()
