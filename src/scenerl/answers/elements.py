"""From raw elements to a scene graph: the rules that all formats share.

Model text is untrusted. An element that breaks a rule is dropped and becomes an :class:`~scenerl.types.Issue`; the
others are kept. Each element gets at most one issue, for the first rule it breaks.
"""

from __future__ import annotations

import re
import reprlib
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from scenerl.boxes import Array
from scenerl.errors import counted
from scenerl.types import Issue, Relation, SceneGraph, SceneObject

MAX_OBJECTS = 1000
MAX_RELATIONS = 5000
MAX_LABEL = 256
"""Characters of a label or predicate; a longer one is no label."""
MAX_COORDINATE = 1e9
"""Coordinates beyond this are no numbers of an image, and squares of them must stay finite."""
MAX_EXCERPT = 80

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

Element = TypeVar("Element")

_excerpts = reprlib.Repr()
_excerpts.maxlevel = 3
_excerpts.maxdict = _excerpts.maxlist = 6
_excerpts.maxstring = _excerpts.maxother = _excerpts.maxlong = 60


def excerpt(value: object) -> str:
    """At most 80 printable characters that show ``value``: control characters and lone surrogates come escaped."""
    text = _excerpts.repr(value)
    return text if len(text) <= MAX_EXCERPT else text[: MAX_EXCERPT - 3] + "..."


def normal_text(text: str) -> str:
    """A label or predicate as both sides have it, ground truth and predictions: no white space around it, runs of white
    space as one space, and Unicode's composed form (NFC), since ``é`` may be written as one character or as two. Case
    matters.

    >>> normal_text(" cafe\u0301  table "), normal_text("Dog")
    ('café table', 'Dog')
    """
    text = " ".join(text.split())
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def clean_label(raw: object) -> str | None:
    """A label or predicate as :func:`normal_text` makes it, or None where ``raw`` is none.

    No label are: anything but a string, an empty one, one of more than 256 characters, one with control characters,
    line breaks or lone surrogates (no file could hold it).
    """
    if type(raw) is not str:
        return None
    label = raw.strip()
    if not label or (not label.isprintable() and _UNSAFE.search(label)):
        return None
    label = normal_text(label)
    return label if len(label) <= MAX_LABEL else None


def object_ids(labels: Iterable[str]) -> list[str]:
    """Ids for objects in order: the label, a dot and the position, counted from 1.

    >>> object_ids(["dog", "ball"])
    ['dog.1', 'ball.2']
    """
    return [f"{label}.{number}" for number, label in enumerate(labels, 1)]


def label_of(object_id: str) -> str:
    """The label in an object id: the id up to its last dot-number, the whole id if it has none.

    >>> label_of("traffic light.12"), label_of("st. bernard"), label_of("no.1.2")
    ('traffic light', 'st. bernard', 'no.1')
    """
    head, dot, number = object_id.rpartition(".")
    return head if dot and number.isascii() and number.isdigit() else object_id


def read_box(raw: object) -> list | None:
    """``raw`` if it is a list of four finite numbers, else None.

    A bool is no number, nor is a string such as ``"12"``: coordinates have to be written as numbers.
    """
    if type(raw) is not list or len(raw) != 4:
        return None
    for value in raw:
        # NaN fails the comparison, infinities and absurd sizes the bound
        if type(value) not in (int, float) or not -MAX_COORDINATE <= value <= MAX_COORDINATE:
            return None
    return raw


@lru_cache(maxsize=64)
def _as_set(vocabulary: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if vocabulary is None else frozenset(vocabulary)


@dataclass(slots=True)
class GraphBuilder:
    """Takes elements in order of emission, checks them, and builds a graph of those that are kept.

    Objects have a key by which relations name them. A key belongs to the first object that claims it, even if that one
    is dropped, so that no reference ever moves to another object.

    Attributes:
        objects, predicates: closed vocabularies, None for open ones.
        any_label: objects get the only label of the vocabulary, whatever theirs is.
        issues: the elements that were dropped.
        object_places, relation_places: where each kept element was, ``objects[3]`` or ``line 7``.
    """

    objects: tuple[str, ...] | None = None
    predicates: tuple[str, ...] | None = None
    any_label: bool = False
    issues: list[Issue] = field(default_factory=list)
    object_places: list[str] = field(default_factory=list)
    relation_places: list[str] = field(default_factory=list)
    _labels: list[str] = field(default_factory=list)
    _boxes: list[list] = field(default_factory=list)
    _index: dict[Hashable, int | None] = field(default_factory=dict)
    _unknown: set[Hashable] = field(default_factory=set)
    _relations: dict[tuple[int, str, int], None] = field(default_factory=dict)

    def drop(self, kind: str, where: str, raw: object = "") -> None:
        """Record an element that is not kept."""
        self.issues.append(Issue(kind, where, excerpt(raw) if raw != "" else ""))

    def bounded(self, elements: list[Element], name: str, bound: int) -> Iterator[tuple[str, Element]]:
        """Place, ``name[n]``, and element for those within a bound; the others become one issue."""
        for number, element in enumerate(elements[:bound]):
            yield f"{name}[{number}]", element
        self.drop_rest(f"{name}[{bound}:]", len(elements) - bound)

    def drop_rest(self, where: str, count: int) -> None:
        """Record ``count`` elements beyond a bound, if there are any, as one issue."""
        if count > 0:
            self.issues.append(Issue("too_many", where, f"{counted(count, 'element')} beyond the bound"))

    def add_object(self, key: Hashable, label: str, raw_box: object, where: str, raw: object) -> None:
        """Check and keep an object whose ``label`` is clean; ``raw`` is what an issue quotes."""
        if key in self._index:
            self.drop("duplicate_id", where, raw)
            return
        self._index[key] = None
        if self.any_label and self.only_label is not None:
            label = self.only_label
        box = read_box(raw_box)
        if box is None:
            self.drop("bad_box", where, raw)
        elif box[2] <= box[0] or box[3] <= box[1]:
            self.drop("no_area", where, raw)
        elif self.objects is not None and label not in _as_set(self.objects):
            self.drop("unknown_label", where, raw)
            self._unknown.add(key)
        else:
            self._index[key] = len(self._labels)
            self.object_places.append(where)
            self._labels.append(label)
            self._boxes.append(box)

    @property
    def only_label(self) -> str | None:
        """The label of a vocabulary that has one: that of a box without a label, as in answers about one object."""
        return self.objects[0] if self.objects is not None and len(self.objects) == 1 else None

    def claim(self, key: Hashable) -> None:
        """Give ``key`` to an object that is dropped before its box is looked at."""
        self._index.setdefault(key, None)

    def has(self, key: Hashable) -> bool:
        """Whether the object of a key is kept."""
        return self._index.get(key) is not None

    def add_relation(self, subject: Hashable, predicate: str, object_: Hashable, where: str, raw: object) -> None:
        """Check and keep a relation whose ``predicate`` is clean; call after every object has been added."""
        source, target = self._index.get(subject), self._index.get(object_)
        if source is None or target is None:
            missing = {end for end, index in ((subject, source), (object_, target)) if index is None}
            # A relation of an object that was dropped for its label is well-formed, as that object is.
            self.drop("unknown_end" if missing <= self._unknown else "dangling_relation", where, raw)
        elif source == target:
            self.drop("self_relation", where, raw)
        elif self.predicates is not None and predicate not in _as_set(self.predicates):
            self.drop("unknown_predicate", where, raw)
        elif (source, predicate, target) in self._relations:
            self.drop("duplicate_relation", where, raw)
        else:
            self._relations[source, predicate, target] = None
            self.relation_places.append(where)

    def is_empty(self) -> bool:
        """Whether no element has been seen, neither kept nor dropped."""
        return not self._labels and not self.issues

    def graph(self, to_pixels: Callable[[list], Array]) -> SceneGraph:
        """The graph of everything kept; ``to_pixels`` converts all boxes, (N, 4), from their format at once."""
        boxes = to_pixels(self._boxes).tolist() if self._boxes else []
        objects = tuple(SceneObject(label, tuple(box)) for label, box in zip(self._labels, boxes, strict=True))
        return SceneGraph(objects, tuple(Relation(*relation) for relation in self._relations))


Span = tuple[int, int]
"""Characters [start, end) of a text."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object stands in the text: its label, None where that is not written there, and its four coordinates."""

    label: Span | None
    box: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a format's reader found.

    Attributes:
        failure: a name of :data:`~scenerl.types.FAILURES`, or None.
        alone: nothing but white space or one code fence stood around the answer.
        start: where in the text a JSON graph begins that did not stand alone.
        objects: of readers that note them, gives the place of an object by the number in ``object_places``, None
            where it is not known.
        relations: the same of relations: subject, predicate and object.
    """

    failure: str | None
    alone: bool
    start: int | None = None
    objects: Callable[[int], Place | None] | None = None
    relations: Callable[[int], tuple[Span, Span, Span]] | None = None
