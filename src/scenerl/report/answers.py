"""The answers of a stage, as the report needs them: read twice, so that not all of them are in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scenerl.predictions.notes import Notes
from scenerl.predictions.row import decode_parsed, read_rows
from scenerl.types import ParseResult


@dataclass(frozen=True, slots=True)
class Answer:
    """What a prediction row says about one image, and the row itself for what is only shown."""

    result: ParseResult
    row: Mapping

    def number(self, key: str) -> int | None:
        """A whole number of the row, None where there is none."""
        return whole(self.row.get(key))

    def votes(self, kind: str) -> tuple[int | None, ...]:
        """Of each object (``objects``) or relation (``relationships``), where answers were merged."""
        elements = self.row["graph"].get(kind) or () if self.result.graph is not None else ()
        return tuple(whole(element.get("votes")) for element in elements)


@dataclass
class Outline:
    """What all answers of a stage amount to: ``statuses`` by image, ``failures`` and ``issues`` by type, how many
    answers were merged into one, 0 where none were, and whether any has a relation."""

    statuses: dict[str, str] = field(default_factory=dict)
    failures: Counter = field(default_factory=Counter)
    issues: Counter = field(default_factory=Counter)
    merged_from: int = 0
    has_relations: bool = False


def read_answers(path: Path, image_ids: Collection[str] | None = None) -> Iterator[tuple[str, Answer]]:
    """The first answer to each image, or to each of these images, in the order of the file.

    Raises:
        DataError: a row is not as ``scenerl predict`` writes it; the message names file and row.
    """
    seen, notes = set(), Notes(path)
    for where, row in read_rows(path):
        image_id = row["image_id"]
        if row["sample"] == 0 and image_id not in seen and (image_ids is None or image_id in image_ids):
            seen.add(image_id)
            yield image_id, Answer(decode_parsed(row, where, notes), row)


def outline(path: Path) -> Outline:
    """What all answers of a file amount to. Errors as for :func:`read_answers`."""
    found = Outline()
    for image_id, answer in read_answers(path):
        found.statuses[image_id] = answer.result.status
        found.merged_from = max(found.merged_from, answer.number("answers") or 0)
        if not answer.result.ok:
            found.failures[answer.result.status] += 1
        found.has_relations |= answer.result.graph is not None and bool(answer.result.graph.relations)
        found.issues.update(issue.kind for issue in answer.result.issues)
    return found


def whole(value: object) -> int | None:
    """A whole number; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
