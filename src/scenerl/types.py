"""The nouns of the project: objects, relations, scene graphs, examples and parse results.

On the standard library only, so that data, rewards and metrics can be used where torch is not installed. Objects and
relations, of which a data set has hundreds of thousands, are named tuples, which are made in half the time of frozen
dataclasses. All boxes are float ``(x1, y1, x2, y2)`` in absolute pixels of the *original* image; other box formats
exist only at the edges (see :mod:`scenerl.box_formats`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from scenerl.errors import UserError

Box = tuple[float, float, float, float]


class SceneObject(NamedTuple):
    """One object: a label and a box. A detection is the same thing in a graph without relations."""

    label: str
    box: Box
    score: float | None = None


class Relation(NamedTuple):
    """A directed edge. ``subject`` and ``object`` are indices into the graph's ``objects``."""

    subject: int
    predicate: str
    object: int
    score: float | None = None


@dataclass(frozen=True, slots=True)
class SceneGraph:
    """Objects and the relations between them; the order is the order of emission or annotation.

    Raises:
        UserError: a relation names an object index that does not exist.
    """

    objects: tuple[SceneObject, ...] = ()
    relations: tuple[Relation, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.objects)
        for relation in self.relations:
            if not (0 <= relation.subject < count and 0 <= relation.object < count):
                raise UserError(f"relation {relation} names an object outside 0..{count - 1}")

    def triplet(self, relation: Relation) -> tuple[str, str, str]:
        """The (subject, predicate, object) labels of a relation."""
        return self.objects[relation.subject].label, relation.predicate, self.objects[relation.object].label


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An encoded image that stays in a table on the disk until it is opened.

    Attributes:
        table: of ``datasets``, with the column ``image``: encoded bytes, or a struct with them.
        row: counted from 0.
    """

    table: Any
    row: int

    def read_bytes(self) -> bytes:
        value = self.table[self.row]["image"]
        return value["bytes"] if isinstance(value, dict) else value


@dataclass(frozen=True, slots=True)
class Example:
    """An image with its ground truth.

    Attributes:
        image_id: unique within a data set.
        width, height: of the original image, in pixels; 0 where a file that is only evaluated does not state them.
        graph: the annotation; boxes are xyxy in pixels of the original image.
        image: a path, the encoded bytes of an image file, in memory or stored, or None where only sizes are known
            (scoring needs no pixels).
        query: the labels that open-vocabulary detection prompts for, absent ones included; None for scene graphs.
        referring: the query is one sentence about one object. Its box is the answer, whatever label it has.
        provided: a detector's objects, for tasks whose prompt provides objects; None provides those of ``graph``.
        crowds: regions that hold many objects of a label (COCO's ``iscrowd``). They are no targets, and detection
            metrics ignore predictions that lie on them, as pycocotools does.
        tried: where the image file was looked for, if it is in none of these places.
    """

    image_id: str
    width: int
    height: int
    graph: SceneGraph
    image: Path | bytes | StoredImage | None = None
    query: tuple[str, ...] | None = None
    provided: tuple[SceneObject, ...] | None = None
    crowds: tuple[SceneObject, ...] = ()
    tried: tuple[Path, ...] = ()
    referring: bool = False

    @property
    def image_wh(self) -> tuple[int, int]:
        return self.width, self.height


FAILURES = {
    "no_answer": "there is no answer at all (null, or the engine gave up)",
    "empty": "the answer holds nothing but white space",
    "invalid_json": "it holds no JSON value of the requested kind",
    "wrong_schema": "it parses, but is not what the format requires (a missing key, a list in place of an object)",
    "truncated": "it breaks off in the middle",
}
"""Whole-answer failures: name to meaning."""

ISSUES = {
    "malformed_object": "an object that lacks its label or its box",
    "malformed_relation": "a relation that lacks subject, predicate or object, or is not an object itself",
    "bad_box": "the box is not four finite numbers",
    "no_area": "the box has no area (reversed corners included)",
    "point": "a point in place of a box",
    "duplicate_id": "an object id that an earlier object has",
    "duplicate_relation": "the same subject, predicate and object as an earlier relation",
    "dangling_relation": "a relation that names an object which is not there",
    "self_relation": "a relation from an object to itself",
    "unknown_label": "an object label outside the closed vocabulary",
    "unknown_predicate": "a predicate outside the closed vocabulary",
    "unknown_end": "a relation of an object whose label is outside the closed vocabulary",
    "too_many": "elements beyond the parser's bound",
}
"""Element issues: the element is dropped and counted, the rest is kept."""

OBJECT_ISSUES = frozenset({"malformed_object", "bad_box", "no_area", "point", "duplicate_id", "unknown_label"})
"""Issues of one dropped object each."""

RELATION_ISSUES = frozenset(ISSUES) - OBJECT_ISSUES - {"too_many"}
"""Issues of one dropped relation each."""

INVALID_ISSUES = frozenset({"malformed_object", "malformed_relation", "bad_box", "no_area", "dangling_relation"})
"""Issues of elements that are not well-formed. The failure rate counts an answer with one of them as failed.

Duplicates, self-relations, labels outside a vocabulary (with the relations that go with them) and elements beyond a
bound are well-formed. Source: R1-SGG, arXiv 2504.13617.
"""


@dataclass(frozen=True, slots=True)
class Issue:
    """One dropped element: a name from :data:`ISSUES`, where it stood (``objects[3]``, ``line 4``), and an excerpt.

    ``too_many`` stands for all elements beyond the bound; ``detail`` begins with their number.
    """

    kind: str
    where: str
    detail: str = ""

    @property
    def num_objects(self) -> int:
        """How many objects were dropped."""
        return int(self.kind in OBJECT_ISSUES) + (self._excess if self.where.startswith(_OBJECT_LISTS) else 0)

    @property
    def num_relations(self) -> int:
        """How many relations were dropped."""
        return int(self.kind in RELATION_ISSUES) + (0 if self.where.startswith(_OBJECT_LISTS) else self._excess)

    @property
    def _excess(self) -> int:
        number = self.detail.split(" ", 1)[0]
        is_count = self.kind == "too_many" and number.isascii() and number.isdigit() and len(number) <= _COUNT_DIGITS
        return int(number) if is_count else 0


_COUNT_DIGITS = 9  # no answer is long enough for more elements; a row of a file may say anything
_OBJECT_LISTS = ("object", "detection")  # how `where` of `too_many` begins where objects are meant


@dataclass(frozen=True, slots=True)
class ParseResult:
    """What an answer turned out to be. ``graph`` is None exactly when ``status`` is a failure: could not parse is never
    the same as found nothing.

    ``in_template`` says whether the answer was in the requested response template, with nothing around it.
    """

    status: str
    graph: SceneGraph | None
    issues: tuple[Issue, ...] = ()
    in_template: bool = False

    def __post_init__(self) -> None:
        assert (self.graph is not None) == (self.status == "ok"), self.status

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def num_dropped_objects(self) -> int:
        """Objects of a parsed answer that the parser dropped. They count as predictions that match nothing."""
        return sum(issue.num_objects for issue in self.issues) if self.ok else 0

    @property
    def num_dropped_relations(self) -> int:
        """Relations of a parsed answer that the parser dropped. They count as predictions that match nothing."""
        return sum(issue.num_relations for issue in self.issues) if self.ok else 0
