"""Predictions in memory, whatever file they came from, and what was wrong with the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scenerl.data.ground_truth import Names as Names
from scenerl.data.instances import tidy_id as tidy_id
from scenerl.data.rows import excerpt
from scenerl.errors import DataError
from scenerl.types import ParseResult

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """One image's prediction: a ``row`` as our JSONL has it, still to be read, or a ``result`` in original pixels.

    ``where`` names file and row in messages.
    """

    where: str
    row: Mapping | None = None
    result: ParseResult | None = None


@dataclass
class Predictions:
    """What a file of predictions holds: an entry per image id, and what was left out on the way.

    ``counts`` and ``warnings`` say how much of what; a warning lists the first few.
    """

    path: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    _listed: dict[str, list[str]] = field(default_factory=dict, repr=False)

    def add(self, image_id: str, entry: Entry) -> None:
        """Take an entry; of several with one image id the first counts."""
        if image_id in self.entries:
            self.note("doubled_images", f"{excerpt(image_id)} ({entry.where})")
        else:
            self.entries[image_id] = entry

    def note(self, kind: str, what: str) -> None:
        """Count something of a kind in :data:`KINDS` and keep it for the list."""
        self._listed.setdefault(kind, []).append(what)

    def answers(self) -> list[str]:
        """The texts of the rows that hold an answer to be parsed."""
        rows = (entry.row for entry in self.entries.values() if entry.row is not None and "status" not in entry.row)
        return [row["answer"] for row in rows if isinstance(row.get("answer"), str)]

    def other_tasks(self, task: str) -> list[str]:
        """A sentence for each task besides ``task`` that rows say they answer, as those of ``predict`` do."""
        found = [entry.row.get("task") for entry in self.entries.values() if entry.row is not None]
        said = Counter(other for other in found if isinstance(other, str) and other != task)
        return [
            f"{count} rows answer the task {excerpt(other)} and are evaluated as {task}; choose with --task"
            for other, count in said.items()
        ]

    def close(self) -> Predictions:
        """Turn the notes into counts and warnings.

        Raises:
            DataError: there is no usable prediction.
        """
        for kind, meaning in KINDS.items():
            listed = self._listed.get(kind, [])
            self.counts[kind] = len(listed)
            if listed:
                self.warnings.append(f"{self.path}: {len(listed)} {meaning}: {shown(listed)}")
        if not self.entries:
            raise DataError(f"{self.path} holds no usable prediction; {'; '.join(self.warnings) or 'it is empty'}")
        return self


KINDS = {
    "ignored_samples": "rows with sample above 0 were left out; metrics are of sample 0 (`scenerl merge` joins them)",
    "doubled_images": "predictions of an image that had one already were left out",
    "broken_rows": "rows that break off or are no JSON object were left out",
    "unnamed_rows": "rows without an image_id (a text or a whole number) were left out",
    "bad_boxes": "elements whose box is not four finite numbers were left out",
    "bad_scores": "scores are not finite numbers and rank last",
    "unknown_categories": "elements of a category that the ground truth does not name match nothing",
}
"""What a file may hold that is not used as it stands: key in ``counts`` to its meaning."""


def shown(listed: Sequence[str]) -> str:
    """The first few of a list."""
    return ", ".join(listed[:SHOWN]) + (", …" if len(listed) > SHOWN else "")
