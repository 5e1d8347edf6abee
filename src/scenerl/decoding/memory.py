"""What an answer has said so far, as far as it limits what it may say next.

:class:`Memory` is the real thing. :class:`Trial` stands in for one that is not known: a token is walked through the
automaton once for all memories, and what it would have asked is kept as conditions, which a real memory answers later
(:meth:`Memory.holds`). Both are never changed; every method gives a new one, or None where the answer would go wrong.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from scenerl.answers.elements import MAX_OBJECTS, MAX_RELATIONS


class TooHard(Exception):
    """A token asks what a trial's conditions cannot say; it has to be walked through the real memory."""


Span = tuple[bool, bytes]
"""Text of a slot as a trial knows it: whether the text before the token comes first, and what the token added."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is the same for all answers of one style.

    Attributes:
        is_id: whether a text may name an object, apart from being new.
        is_predicate: whether a text may be a predicate.
        predicates: the closed vocabulary, spelt as in the answer; None for an open one.
    """

    is_id: Callable[[bytes], bool]
    is_predicate: Callable[[bytes], bool]
    predicates: tuple[bytes, ...] | None


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
        # every byte comes through here, and dataclasses.replace takes four times as long
        return Memory(self.rules, text, self.box, self.ids, self.subject, self.predicate, self.relations)

    def opened(self) -> Memory:
        """At the start of a slot."""
        return self.at(b"") if self.text else self

    def boxed(self) -> Memory:
        """At the start of a box."""
        return replace(self, box=()) if self.box else self

    def low(self, axis: int) -> int | None:
        """What number ``axis`` of the box must exceed; None where that is not known, -1 for any number."""
        return self.box[axis - 2] if axis >= 2 else -1

    def above(self, axis: int, bound: int) -> Memory | None:
        """Whether a number that reaches ``bound`` can exceed what it has to."""
        return self if self.low(axis) < bound else None

    def numbered(self, value: int) -> Memory:
        """With one more number in the box."""
        return replace(self, box=(*self.box, value))

    def add(self) -> Memory | None:
        """Before one more object."""
        return self if self.can_add(1) else None

    def can_add(self, count: int) -> bool:
        return len(self.ids) + count <= MAX_OBJECTS

    def claim(self) -> Memory | None:
        """With the slot's text as the name of one more object."""
        return replace(self, ids=(*self.ids, self.text)) if self.is_new(self.text) else None

    def is_new(self, text: bytes) -> bool:
        return text not in self.ids and self.rules.is_id(text)

    def is_fresh(self) -> Memory | None:
        """The slot's text, to which nothing can be added any more, may still become a name."""
        return self if self.is_new(self.text) else None

    def listed(self) -> Memory:
        """With one more object that nothing refers to."""
        return replace(self, ids=(*self.ids, b""))

    def relate(self) -> Memory | None:
        """Before one more relation."""
        return self if self.can_relate() else None

    def can_relate(self) -> bool:
        return len(self.relations) < min(MAX_RELATIONS, len(self.ids) * self._per_subject())

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

    def subjects(self) -> Sequence[bytes]:
        """What a relation may have as its subject."""
        most = self._per_subject()
        if len(self.relations) < most:
            return self.ids
        written = Counter(relation[0] for relation in self.relations)
        return [name for name in self.ids if written[name] < most]

    def objects(self) -> Sequence[bytes]:
        """What the relation that is being written may have as its object."""
        start = (self.subject, self.predicate)
        return [name for name in self.ids if name != self.subject and (*start, name) not in self.relations]

    def can_refer(self, names: Sequence[bytes], text: bytes, whole: bool) -> bool:
        return text in names if whole else any(name.startswith(text) for name in names)

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
        if not self.can_refer(names, self.text, whole):
            return None
        if not whole:
            return self
        if role == "subject":
            return replace(self, subject=self.text)
        return replace(self, relations=self.relations | {(self.subject, self.predicate, self.text)})

    def say(self, whole: bool) -> Memory | None:
        """Whether the slot's text is a predicate that can be said of the subject, or begins one."""
        if not self.can_say(self.subject, self.text, whole):
            return None
        return replace(self, predicate=self.text) if whole else self

    def label(self) -> Memory | None:
        """The slot's text as a label that names nothing."""
        return self if self.rules.is_id(self.text) else None

    def holds(self, condition: tuple) -> bool:
        """Whether this memory meets a trial's condition."""
        kind, *rest = condition
        if kind == "add":
            return self.can_add(*rest)
        if kind == "relate":
            return self.can_relate()
        if kind == "new":
            return self.is_new(self._whole(rest[0]))
        if kind == "label":
            return self.rules.is_id(self._whole(rest[0]))
        if kind == "subject":
            return self.can_refer(self.subjects(), self._whole(rest[0]), rest[1])
        subject = self.subject if rest[0] is None else self._whole(rest[0])
        if kind == "predicate":
            return self.can_say(subject, self._whole(rest[1]), rest[2])
        predicate = self.predicate if rest[1] is None else self._whole(rest[1])
        names = replace(self, subject=subject, predicate=predicate).objects()
        return self.can_refer(names, self._whole(rest[2]), rest[3])

    def _whole(self, span: Span) -> bytes:
        return self.text + span[1] if span[0] else span[1]


@dataclass(slots=True)
class Trial:
    """A memory of which nothing is known but what a token itself added.

    Attributes:
        conditions: what a real memory must hold for the token to be allowed.
        bounds: for x2 and y2 of the current box, the number below which x1 and y1 must be.
    """

    text: Span = (True, b"")
    box: tuple[int | None, ...] | None = None
    num_new: int = 0
    has_related: bool = False
    subject: Span | None = None
    predicate: Span | None = None
    conditions: tuple[tuple, ...] = ()
    bounds: tuple[int | None, int | None] = (None, None)

    def _if(self, *condition, last: str | None = None) -> Trial:
        """Under one more condition, which replaces the one before it where that said less of the same."""
        held = self.conditions
        if held and held[-1][0] == last:
            held = held[:-1]
        return replace(self, conditions=(*held, condition))

    def typed(self, byte: int) -> Trial:
        return replace(self, text=(self.text[0], self.text[1] + bytes((byte,))))

    def opened(self) -> Trial:
        return replace(self, text=(False, b""))

    def boxed(self) -> Trial:
        return replace(self, box=())

    def low(self, axis: int) -> int | None:
        if axis < 2:
            return -1
        return None if self.box is None else self.box[axis - 2]

    def above(self, axis: int, bound: int) -> Trial | None:
        low = self.low(axis)
        if low is not None:
            return self if low < bound else None
        bounds = list(self.bounds)
        bounds[axis - 2] = bound if bounds[axis - 2] is None else min(bound, bounds[axis - 2])
        return replace(self, bounds=tuple(bounds))

    def numbered(self, value: int) -> Trial:
        return self if self.box is None else replace(self, box=(*self.box, value))

    def add(self) -> Trial:
        return self._if("add", self.num_new + 1)

    def claim(self) -> Trial:
        if self.num_new:
            raise TooHard
        return replace(self._if("new", self.text, last="new"), num_new=1)

    def is_fresh(self) -> Trial:
        return self._if("new", self.text)

    def listed(self) -> Trial:
        return replace(self, num_new=self.num_new + 1)

    def relate(self) -> Trial:
        if self.has_related or self.num_new:
            raise TooHard
        return self._if("relate")

    def refer(self, role: str, whole: bool) -> Trial:
        if role == "subject":
            trial = self._if("subject", self.text, whole, last="subject")
            return replace(trial, subject=self.text) if whole else trial
        trial = self._if("object", self.subject, self.predicate, self.text, whole, last="object")
        return replace(trial, has_related=True) if whole else trial

    def say(self, whole: bool) -> Trial:
        trial = self._if("predicate", self.subject, self.text, whole, last="predicate")
        return replace(trial, predicate=self.text) if whole else trial

    def label(self) -> Trial:
        return self._if("label", self.text)
