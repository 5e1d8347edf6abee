"""Parts of other projects' JSON files, checked, and the graph that is built of them."""

from __future__ import annotations

from collections.abc import Mapping

from scenerl.data.ground_truth import Names
from scenerl.data.records import excerpt
from scenerl.errors import DataError
from scenerl.predictions.notes import Notes
from scenerl.types import Box, Relation, SceneGraph, SceneObject


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
    if isinstance(number, int) and number in names.objects:
        return names.objects[number]
    notes.add("unknown_categories", f"{excerpt(number)} ({where})")
    return f"category {excerpt(number)}"


class GraphBuilder:
    """A graph from numbered objects and relations; an object that is left out takes its relations with it."""

    def __init__(self) -> None:
        self.objects: list[SceneObject] = []
        self.relations: list[Relation] = []
        self.place: dict[int, int] = {}

    def add_object(self, number: int, label: str, box: Box, score: float | None = None) -> None:
        self.place[number] = len(self.objects)
        self.objects.append(SceneObject(label, box, score))

    def add_relation(self, subject: int, predicate: str, object_: int, score: float | None = None) -> bool:
        """Add a relation and return True; False, and nothing is added, where an object is not there."""
        if subject not in self.place or object_ not in self.place:
            return False
        self.relations.append(Relation(self.place[subject], predicate, self.place[object_], score))
        return True

    def graph(self) -> SceneGraph:
        return SceneGraph(tuple(self.objects), tuple(self.relations))
