"""What an answer has said so far, as far as it limits what it may say next.

:class:`Memory` is never changed; its methods give a new one, or None where the answer would go wrong.
:class:`scenerl.decoding.trial.Trial` has the same methods and stands in for one that is not known.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from scenerl.answers.elements import MAX_OBJECTS, MAX_RELATIONS


@lru_cache(maxsize=1024)
def beginnings(names: tuple[bytes, ...]) -> frozenset[bytes]:
    """What names begin with, the empty text and whole names included."""
    return frozenset(name[:end] for name in names for end in range(len(name) + 1))


@lru_cache(maxsize=1024)
def _unsaid(ids: tuple, relations: frozenset, subject: bytes, predicate: bytes) -> tuple[bytes, ...]:
    """Kept because it is asked at every byte of a name."""
    return tuple(name for name in ids if name != subject and (subject, predicate, name) not in relations)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is the same for all answers of one style.

    Attributes:
        is_id: whether a text may name an object, apart from being new.
        is_predicate: whether a text may be a predicate.
        predicates: the closed vocabulary, spelt as in the answer; None for an open one.
        is_line: whether a line of the compact format holds an object.
        tail: predicate and object of a line that begins with a subject, or None.
    """

    is_id: Callable[[bytes], bool]
    is_predicate: Callable[[bytes], bool]
    predicates: tuple[bytes, ...] | None
    is_line: Callable[[bytes], bool] | None = None
    tail: Callable[[bytes, bytes], tuple[bytes, bytes] | None] | None = None


@dataclass(slots=True)
class Memory:
    """The objects and relations that stand in an answer so far, and the element that is being written.

    Attributes:
        text: what stands in the current slot.
        box: the numbers of the current box, in units of the frame.
        ids: the names by which relations refer to objects, in order.
        subject, predicate: of the relation that is being written.
        relations: (subject, predicate, object) of those written.
    """

    rules: Rules
    text: bytes = b""
    box: tuple[int, ...] = ()
    ids: tuple[bytes, ...] = ()
    subject: bytes = b""
    predicate: bytes = b""
    relations: frozenset[tuple[bytes, bytes, bytes]] = frozenset()

    def typed(self, byte: int) -> Memory:
        """With one more byte in the slot."""
        return self.at(self.text + bytes((byte,)))

    def at(self, text: bytes) -> Memory:
        """With another text in the slot."""
        return self._with(text=text)

    def _with(self, text=None, box=None, ids=None, subject=None, predicate=None, relations=None) -> Memory:
        """As :func:`dataclasses.replace`, which takes four times as long: each byte comes through here."""
        return Memory(
            self.rules,
            self.text if text is None else text,
            self.box if box is None else box,
            self.ids if ids is None else ids,
            self.subject if subject is None else subject,
            self.predicate if predicate is None else predicate,
            self.relations if relations is None else relations,
        )

    def opened(self) -> Memory:
        """At the start of a slot."""
        return self.at(b"") if self.text else self

    def boxed(self) -> Memory:
        """At the start of a box."""
        return self._with(box=()) if self.box else self

    def low(self, axis: int) -> int | None:
        """What number ``axis`` of the box must exceed; None where that is not known, -1 for any number."""
        return self.box[axis - 2] if axis >= 2 else -1

    def above(self, axis: int, bound: int) -> Memory | None:
        """Whether a number that reaches ``bound`` can exceed what it has to."""
        return self if self.low(axis) < bound else None

    def numbered(self, axis: int, value: int) -> Memory:
        """With number ``axis`` in the box, which is the next."""
        return self._with(box=(*self.box, value))

    def add(self) -> Memory | None:
        """Before one more object."""
        return self if self.can_add(1) else None

    def can_add(self, count: int) -> bool:
        """Whether there is room for so many more objects."""
        return len(self.ids) + count <= MAX_OBJECTS

    def claim(self) -> Memory | None:
        """With the slot's text as the name of one more object."""
        return self._with(ids=(*self.ids, self.text)) if self.is_new(self.text) else None

    def is_new(self, text: bytes) -> bool:
        """Whether one more object may be called so."""
        return text not in self.ids and self.rules.is_id(text)

    def listed(self) -> Memory | None:
        """With one more object that nothing refers to."""
        return self._with(ids=(*self.ids, b"")) if self.can_add(1) else None

    def count(self) -> Memory:
        """With one more object that relations call by its number."""
        return self._with(ids=(*self.ids, str(len(self.ids) + 1).encode()))

    def line(self) -> Memory | None:
        """With the slot's text as the line of one more object."""
        return self.count() if self.rules.is_line(self.text) else None

    def tail(self) -> Memory | None:
        """With the slot's text as predicate and object of a relation."""
        found = self.tail_of(self.subject, self.text)
        return None if found is None else self._with(relations=self.relations | {(self.subject, *found)})

    def tail_of(self, subject: bytes, text: bytes) -> tuple[bytes, bytes] | None:
        """Predicate and object in the text behind a subject, if that can be said."""
        found = self.rules.tail(subject, text)
        if found is None or found[1] == subject or found[1] not in self.ids:
            return None
        return None if (subject, *found) in self.relations else found

    def relate(self) -> Memory | None:
        """Before one more relation."""
        return self if self.can_relate() else None

    def can_relate(self, more: int = 0) -> bool:
        """Whether a relation is left to write once there are so many more."""
        return len(self.relations) + more < min(MAX_RELATIONS, len(self.ids) * self._per_subject())

    def is_any_free(self, more: int = 0) -> bool:
        """Whether any subject and predicate have an object left, by their number, once there are so many more."""
        return len(self.relations) + more < min(MAX_RELATIONS, len(self.ids) - 1)

    def _per_subject(self) -> float:
        """How many relations one object can be the subject of."""
        others = max(0, len(self.ids) - 1)
        return others * (math.inf if others and self.rules.predicates is None else len(self.rules.predicates or ()))

    def is_free(self, subject: bytes, predicate: bytes) -> bool:
        """Whether there is an object left of which subject and predicate are not said yet."""
        others = len(self.ids) - 1
        if len(self.relations) < others:
            return True
        return sum(relation[:2] == (subject, predicate) for relation in self.relations) < others

    def subjects(self) -> tuple[bytes, ...]:
        """What a relation may have as its subject."""
        most = self._per_subject()
        if len(self.relations) >= MAX_RELATIONS:
            return ()
        if len(self.relations) < most:
            return self.ids
        written = Counter(relation[0] for relation in self.relations)
        return tuple(name for name in self.ids if written[name] < most)

    def objects(self) -> tuple[bytes, ...]:
        """What the relation that is being written may have as its object."""
        return self.objects_of(self.subject, self.predicate)

    def objects_of(self, subject: bytes, predicate: bytes) -> tuple[bytes, ...]:
        """Of what subject and predicate have not been said yet."""
        return _unsaid(self.ids, self.relations, subject, predicate)

    def can_say(self, subject: bytes, text: bytes, whole: bool) -> bool:
        """Whether ``text`` is, or begins, a predicate that leaves an object to choose."""
        vocabulary = self.rules.predicates
        if whole:
            return self.rules.is_predicate(text) and self.is_free(subject, text)
        if vocabulary is None or not self.relations:
            return True
        return any(self.is_free(subject, name) for name in vocabulary if name.startswith(text))

    def refer(self, role: str, whole: bool) -> Memory | None:
        """Whether the slot's text names an object that fits the role, or begins to; ``whole``: and is taken for it."""
        names = self.subjects() if role == "subject" else self.objects()
        if not whole:
            return self if self.text in beginnings(names) else None
        if self.text not in names:
            return None
        if role == "subject":
            return self._with(subject=self.text)
        return self._with(relations=self.relations | {(self.subject, self.predicate, self.text)})

    def say(self, whole: bool) -> Memory | None:
        """Whether the slot's text is a predicate that can be said of the subject, or begins one."""
        if not self.can_say(self.subject, self.text, whole):
            return None
        return self._with(predicate=self.text) if whole else self

    def label(self) -> Memory | None:
        """The slot's text as a label that names nothing."""
        return self if self.rules.is_id(self.text) else None
