"""The file of predictions: rows appended one by one, valid after a kill or a full disk, never doubled."""

from __future__ import annotations

import json
import os
from pathlib import Path

from scenerl.frames import FRAMES
from scenerl.inference.engine import Reply
from scenerl.types import Example, ParseResult, SceneGraph


def graph_to_json(graph: SceneGraph) -> dict:
    """A graph as ``predict`` writes it: ids are label and position, boxes pixels of the original image."""
    ids = [f"{obj.label}.{index + 1}" for index, obj in enumerate(graph.objects)]
    objects = [
        {"id": name, "bbox": [round(value, 2) for value in obj.box], **({"score": obj.score} if obj.score is not None else {})}
        for name, obj in zip(ids, graph.objects, strict=True)
    ]
    relations = [
        {
            "subject": ids[relation.subject],
            "predicate": relation.predicate,
            "object": ids[relation.object],
            **({"score": relation.score} if relation.score is not None else {}),
        }
        for relation in graph.relations
    ]
    return {"objects": objects, "relationships": relations}


def prediction_row(
    example: Example,
    result: ParseResult,
    reply: Reply | None,
    frame: str,
    input_wh: tuple[int, int],
    sample: int = 0,
    error: str | None = None,
) -> dict:
    """One row of a prediction file: the raw answer, what it parsed to, and how it ended."""
    assert frame in FRAMES
    row = {
        "image_id": example.image_id,
        "sample": sample,
        "file_name": str(example.image) if isinstance(example.image, os.PathLike) else None,
        "width": example.width,
        "height": example.height,
        "answer": reply.text if reply else None,
        "status": result.status,
        "issues": [{"kind": i.kind, "where": i.where, "detail": i.detail} for i in result.issues],
        "graph": graph_to_json(result.graph) if result.graph is not None else None,
        "frame": frame,
        "input_wh": list(input_wh),
        "num_tokens": reply.num_tokens if reply else 0,
        "finish_reason": reply.finish_reason if reply else None,
    }
    return row if error is None else {**row, "error": error}


class PredictionFile:
    """Append-only JSONL of predictions.

    Opening it drops a last row that was cut off by a kill, and notes which (image_id, sample) are there. A row that
    cannot be written whole (a full disk) is taken back, so that the file stays valid.

    Raises:
        ValueError: the file holds a row, other than a cut-off last one, that is no prediction; names file and row.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.done: set[tuple[str, int]] = set()
        self.dropped_tail = False
        self._size = 0
        if self.path.exists():
            self._scan()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab", buffering=0)
        self._file.truncate(self._size)

    def _scan(self) -> None:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    self.dropped_tail = True
                    return
                try:
                    row = json.loads(line)
                    key = (row["image_id"], row.get("sample", 0))
                    self.done.add(key)
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"{self.path}, row {number}: not a prediction row ({error}); use --fresh or another --out"
                    ) from error
                self._size += len(line)

    def append(self, row: dict) -> None:
        """Write one row; on return it is in the file.

        Raises:
            ValueError: the disk is full or the file cannot be written; earlier rows are kept.
        """
        line = (json.dumps(row, ensure_ascii=True) + "\n").encode()
        try:
            view = memoryview(line)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            os.truncate(self.path, self._size)
            raise ValueError(
                f"{self.path}: cannot write ({error.strerror}); the {len(self.done)} rows so far are kept, "
                "run the same command again to go on"
            ) from error
        self._size += len(line)
        self.done.add((row["image_id"], row.get("sample", 0)))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()
