"""What readers of prediction files make, and the parts of other projects' files that they check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scenerl.answers.elements import excerpt, normal_text
from scenerl.data.ground_truth import Names
from scenerl.errors import DataError, counted
from scenerl.predictions.notes import Notes
from scenerl.types import Box, ParseResult, Relation, SceneGraph, SceneObject


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
            f"{counted(count, 'row')} of the task {excerpt(other)} evaluated as {task}; choose with --task"
            for other, count in others.items()
        ]


def part(value: object, key: str, kind: type, where: str, default=None):
    """The entry ``key`` of a JSON object, held to its kind.

    Raises:
        DataError: it is missing (and there is no default) or of another kind.
    """
    found = value.get(key, default) if isinstance(value, Mapping) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        names = {list: "a list", dict: "an object", str: "a text", int: "a whole number"}
        raise DataError(f"{where}: {key!r} must be {names.get(kind, kind)}, found {excerpt(found)}")
    return found


def places(value: object, count: int, where: str) -> tuple[int, ...]:
    """Numbers of objects and predicates, as the entry of a list of relations.

    Raises:
        DataError: it is not a list of ``count`` whole numbers.
    """
    if not isinstance(value, list) or len(value) != count or not all(type(number) is int for number in value):
        raise DataError(f"{where} must be a list of {count} whole numbers, found {excerpt(value)}")
    return tuple(value)


def category_name(number: object, names: Names, where: str, notes: Notes) -> str:
    """The name of a category id; an unknown one is noted and gets a name that no target has."""
    if type(number) in (int, str) and number in names.objects:
        return names.objects[number]
    notes.add("unknown_categories", f"{excerpt(number)} ({where})")
    return f"category {excerpt(number)}"


class NumberedGraph:
    """A graph from numbered objects and relations; an object that is left out takes its relations with it."""

    def __init__(self) -> None:
        self.objects: list[SceneObject] = []
        self.relations: list[Relation] = []
        self.place: dict[int, int] = {}

    def add_object(self, number: int, label: str, box: Box, score: float | None = None) -> None:
        self.place[number] = len(self.objects)
        self.objects.append(SceneObject(normal_text(label), box, score))

    def add_relation(self, subject: int, predicate: str, object_: int, score: float | None = None) -> bool:
        """Add a relation and return True; False, and nothing is added, where an object is not there."""
        if subject not in self.place or object_ not in self.place:
            return False
        self.relations.append(Relation(self.place[subject], normal_text(predicate), self.place[object_], score))
        return True

    def graph(self) -> SceneGraph:
        return SceneGraph(tuple(self.objects), tuple(self.relations))
