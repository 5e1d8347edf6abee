"""What every reader hands on: a record per row, and the one place where examples are checked.

What cannot be meant is an error (a box that is not four finite numbers, a relation to nothing). What work can go on
with is mended and comes back as a warning: a box that leaves its image is clipped; repeated relations and relations of
an object to itself, both common in Visual Genome, are left out. In published sets, which nobody can correct, boxes
without area in the image are left out as well, with their relations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from scenerl.answers.elements import MAX_LABEL, clean_label, excerpt
from scenerl.answers.template import TAGS
from scenerl.errors import DataError, counted
from scenerl.types import Box, Example, Relation, SceneGraph, SceneObject

MAX_SIDE = 1_000_000
"""Largest width or height a row may state, in pixels."""

FAR = 1e12  # no coordinate is this large; comparing with it also catches NaN, infinities and endless integers
_NUMBER = frozenset({int, float})
_SHOWN = 3  # objects that a warning lists

INVERTED = "must have x1 < x2 and y1 < y2"
OUTSIDE = "lies outside"
CLIPPED = "and was clipped"
"""What messages say of a box; :mod:`scenerl.data.inspect.conventions` counts them."""


class MissingFile(NamedTuple):
    """An image file that is not there: the path that it should have, None where no folder of images is there, and the
    paths that were tried."""

    path: Path | None
    tried: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a data set as a reader hands it on: where it stands and the example, or what is wrong with it.

    ``example`` is None exactly when there are ``errors``. Messages do not repeat ``where``.
    """

    where: str
    example: Example | None
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def unwrap(self) -> Example:
        """The example.

        Raises:
            DataError: the row has errors; the message holds the first and the number of the others.
        """
        if self.example is None:
            more = f" (and {len(self.errors) - 1} more in this row)" if len(self.errors) > 1 else ""
            raise DataError(f"{self.where}: {self.errors[0]}{more}")
        return self.example


def build_example(
    where: str,
    image_id: object,
    size: tuple[object, object],
    labels: Sequence[object],
    boxes: Sequence[object],
    relations: Iterable[tuple[int, str, int]] = (),
    *,
    query: Sequence[object] | None = None,
    crowds: Sequence[tuple[object, object]] = (),
    image: Path | bytes | MissingFile | None = None,
    exact: bool = False,
    empty_is_error: bool = False,
) -> Record:
    """One image of a published set as a record, with the checks that rows get.

    Args:
        where: names file and entry in messages.
        size: width and height in pixels, as the file has them.
        labels: N object labels.
        boxes: N boxes xyxy in pixels; what is no box is an error.
        relations: subject index, predicate, object index; an index outside 0..N-1 is an error.
        query: the labels that detection prompts for; None for scene graphs.
        crowds: labels and boxes of crowd regions.
        exact: take boxes and relations as they stand: nothing is clipped or left out but repeated relations, and
            width and height may be missing (0). For evaluation as other projects do it.
        empty_is_error: refuse a box without area in the image instead of leaving it out, with its relations.

    Returns:
        The record; objects keep their order.
    """
    checks = Checks(exact)
    image_id = checks.image_id(image_id)
    checks.width, checks.height = checks.side(size[0], "width"), checks.side(size[1], "height")
    name = "objects" if query is None else "detections"
    objects: list[SceneObject] = []
    place: dict[int, int] = {}
    empty = []
    for n, (label, box) in enumerate(zip(labels, boxes, strict=True)):
        if not (exact or empty_is_error) and lacks_area(box, size):
            empty.append(f"{excerpt(label)} {box}")
            continue
        place[n] = len(objects)
        objects.append(checks.element(label, box, name, n))
    if empty:
        shown = ", ".join(empty[:_SHOWN]) + (", …" if len(empty) > _SHOWN else "")
        checks.warnings.insert(0, f"{counted(len(empty), 'box')} without area in the image left out: {shown}")
    edges: dict[tuple[int, str, int], Relation] = {}
    for n, (subject, predicate, object_) in enumerate(relations):
        if not (0 <= subject < len(labels) and 0 <= object_ < len(labels)):
            checks.errors.append(
                f"a relation {excerpt(predicate)} names objects {subject} and {object_}, but there are {len(labels)}"
            )
        elif subject in place and object_ in place:
            predicate = checks.text(predicate, "the predicate of relationships", n)
            checks.relation(edges, (place[subject], predicate, place[object_]), n, labels[subject])
    if query is not None:
        query = checks.query(query, objects)
    around = tuple(
        checks.element(label, box, "crowds", n)
        for n, (label, box) in enumerate(crowds)
        if exact or not lacks_area(box, size)
    )
    example = None
    if not checks.errors:
        graph = SceneGraph(tuple(objects), tuple(edges.values()))
        image, tried = image if isinstance(image, MissingFile) else (image, ())
        example = Example(image_id, checks.width, checks.height, graph, image, query, crowds=around, tried=tried)
    return Record(where, example, tuple(checks.errors), tuple(checks.warnings))


def lacks_area(box: object, size: tuple[object, object]) -> bool:
    """Whether four numbers are a box without area in the image; anything else is no box, which is another error."""
    box, (width, height) = four_finite(box), size
    if box is None or type(width) not in _NUMBER or type(height) not in _NUMBER:
        return False
    x1, y1, x2, y2 = box
    return not (x1 < x2 and y1 < y2 and x1 < width and y1 < height and min(x2, y2, width, height) > 0)


class Checks:
    """Checks the parts of one example and collects what is wrong with them."""

    def __init__(self, exact: bool = False) -> None:
        self.exact = exact
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.width = 0
        self.height = 0

    def image_id(self, value: object) -> str:
        number = whole_number(value)
        return self.text(value, "image_id") if number is None else str(number)

    def side(self, value: object, name: str) -> int:
        least = int(not self.exact)
        if type(value) in (int, float) and least <= value <= MAX_SIDE and (self.exact or not value % 1):
            return int(value)
        if value is not None or not self.exact:
            self.errors.append(
                f"{name} must be a whole number of pixels from {least} to {MAX_SIDE}, found {excerpt(value)}"
            )
        return 0

    def text(self, value: object, name: str, n: int | None = None) -> str:
        """A label, predicate or id: white space is tidied, and what no answer could hold is refused.

        ``name`` and ``n`` say in messages what the text is; they are put together only when there is something to say,
        because scoring reads many rows.
        """
        if isinstance(value, str) and (text := _clean_text(value)) is not None:
            return text
        place = name if n is None else f"{name}[{n}]"
        self.errors.append(
            f"{place} must be a text of 1 to {MAX_LABEL} characters without control characters, lone surrogates or the "
            f"tags {' '.join(TAGS)}, found {kind_of(value)} {excerpt(value)}"
        )
        return ""

    def element(self, label: object, box: object, name: str, n: int) -> SceneObject:
        """The object of a label and a box, the ``n``-th of a list called ``name``."""
        label = self.text(label, f"the label of {name}", n)
        return SceneObject(label, self.box(box, name, n, label))

    def box(self, value: object, name: str, n: int, label: object) -> Box:
        """A box inside the image; on an error any box, since the row is refused then."""
        box = four_finite(value)
        if box is not None:
            x1, y1, x2, y2 = box
            if self.exact or (0 <= x1 < x2 <= self.width and 0 <= y1 < y2 <= self.height):
                return box
        place = f"the box of {name}[{n}] ({excerpt(label)})"
        if box is None:
            self.errors.append(f"{place} must be four finite numbers [x1, y1, x2, y2], found {excerpt(value)}")
            return 0.0, 0.0, 0.0, 0.0
        if x1 >= x2 or y1 >= y2:
            self.errors.append(f"{place} {INVERTED}, found {excerpt(value)}")
            return box
        if not (self.width and self.height):  # the size is an error of its own
            return box
        inside = max(x1, 0.0), max(y1, 0.0), min(x2, float(self.width)), min(y2, float(self.height))
        size = f"the image ({self.width} x {self.height})"
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            self.errors.append(f"{place} {OUTSIDE} {size}: {excerpt(value)}")
        else:
            self.warnings.append(f"{place} leaves {size} {CLIPPED}: {excerpt(value)}")
        return inside

    def relation(
        self, found: dict[tuple[int, str, int], Relation], key: tuple[int, str, int], n: int, shown: object
    ) -> None:
        """Keep a relation unless it is there already or relates an object to itself; ``shown`` names the subject."""
        if key[0] == key[2] and not self.exact:
            self.warnings.append(f"relationships[{n}] relates {excerpt(shown)} to itself: left out")
        elif key not in found:
            found[key] = Relation(*key)
        elif not self.exact:
            self.warnings.append(f"relationships[{n}] repeats an earlier relation ({excerpt(key[1])}): left out")

    def query(self, value: Sequence[object], objects: list[SceneObject]) -> tuple[str, ...]:
        try:
            query = _clean_query(tuple(value))
        except TypeError:  # an entry that cannot be a key is no text
            query = None
        if query is None:
            query = tuple(self.text(label, "query", n) for n, label in enumerate(value))
            if len(set(query)) < len(query):
                self.errors.append(f"query names a label twice: {excerpt(list(query))}")
        if not self.exact and (missing := sorted({found.label for found in objects} - set(query))):
            self.errors.append(f"labels in detections that query does not list: {excerpt(missing)}")
        return query


@lru_cache(256)  # every image of COCO has the same one
def _clean_query(labels: tuple[str, ...]) -> tuple[str, ...] | None:
    """The labels of a query, tidied; None where one is no label or comes twice."""
    query = tuple(_clean_text(label) if isinstance(label, str) else None for label in labels)
    return query if None not in query and len(set(query)) == len(query) else None


@lru_cache(1 << 14)  # labels and predicates repeat, and scoring reads many rows
def _clean_text(value: str) -> str | None:
    text = clean_label(" ".join(value.split()))
    return None if text is None or ("<" in text and any(tag in text for tag in TAGS)) else text


def four_finite(value: object) -> Box | None:
    """Four numbers that are not truth values; coordinates beyond any image count as infinite."""
    if not isinstance(value, (list, tuple)) or len(value) != 4 or not _NUMBER.issuperset(map(type, value)):
        return None
    a, b, c, d = value
    if -FAR < a < FAR and -FAR < b < FAR and -FAR < c < FAR and -FAR < d < FAR:
        return float(a), float(b), float(c), float(d)
    return None


def whole_number(value: object) -> int | None:
    """A whole number, also one written with a point, as pandas writes those of a column with gaps; else None."""
    if type(value) is int:
        return value
    return int(value) if type(value) is float and value.is_integer() and abs(value) < FAR else None


def kind_of(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")
