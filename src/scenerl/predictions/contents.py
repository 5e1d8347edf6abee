"""Predictions in memory, whatever file they came from, and what was wrong with the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scenerl.data.records import excerpt
from scenerl.errors import DataError
from scenerl.predictions.notes import Notes
from scenerl.types import ParseResult


@dataclass(frozen=True, slots=True)
class RawPrediction:
    """One image's prediction: a ``row`` as our JSONL has it, not decoded yet, or a ``result`` in original pixels.

    ``where`` names file and row in messages.
    """

    where: str
    row: Mapping | None = None
    result: ParseResult | None = None


class Predictions:
    """What a file of predictions holds.

    Attributes:
        path: of the file.
        entries: a prediction per image id.
        notes: what was left out, or is not used as it stands.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, RawPrediction] = {}
        self.notes = Notes(path)

    def add(self, image_id: str, prediction: RawPrediction) -> None:
        """Add a prediction; of several for one image the first counts."""
        if image_id in self.entries:
            self.notes.add("doubled_images", f"{excerpt(image_id)} ({prediction.where})")
        else:
            self.entries[image_id] = prediction

    def require_some(self) -> Predictions:
        """These predictions.

        Raises:
            DataError: there is none.
        """
        if not self.entries:
            reasons = "; ".join(self.notes.warnings()) or "it is empty"
            raise DataError(f"{self.path} holds no usable prediction; {reasons}")
        return self

    def answers(self) -> list[str]:
        """The texts of the rows that hold an answer to be parsed."""
        rows = (entry.row for entry in self.entries.values() if entry.row is not None and "status" not in entry.row)
        return [row["answer"] for row in rows if isinstance(row.get("answer"), str)]

    def other_tasks(self, task: str) -> list[str]:
        """A warning for each task besides ``task`` that rows name, as those of ``predict`` do."""
        found = [entry.row.get("task") for entry in self.entries.values() if entry.row is not None]
        others = Counter(other for other in found if isinstance(other, str) and other != task)
        return [
            f"{count} rows answer the task {excerpt(other)} and are evaluated as {task}; choose with --task"
            for other, count in others.items()
        ]
