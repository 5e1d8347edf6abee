"""What stands in an answer so far, and what may therefore still be said."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

from scenerl.answers.elements import MAX_OBJECTS, MAX_RELATIONS


@dataclass(frozen=True, slots=True)
class Memory:
    """The objects and relations of an answer up to some place.

    Attributes:
        predicates: the closed vocabulary, as it is spelt in the answer; None for an open one.
        num_objects: those begun.
        names: by which relations refer to objects, in order.
        box: the numbers of the current box, in steps.
        subject, predicate: of the current relation.
        relations: (subject, predicate, object) of those written.
    """

    predicates: tuple[str, ...] | None = None
    num_objects: int = 0
    names: tuple[str, ...] = ()
    box: tuple[int, ...] = ()
    subject: str = ""
    predicate: str = ""
    relations: frozenset[tuple[str, str, str]] = frozenset()

    def with_object(self) -> Memory | None:
        """Another object begun; None where the parser would not read it."""
        if self.num_objects >= MAX_OBJECTS:
            return None
        return replace(self, num_objects=self.num_objects + 1, box=())

    def with_relation(self) -> Memory | None:
        """Itself where there is a relation left to say."""
        return self if self.subjects() else None

    def named(self, name: str) -> Memory:
        return replace(self, names=(*self.names, name))

    def about(self, subject: str) -> Memory:
        return replace(self, subject=subject)

    def saying(self, predicate: str) -> Memory | None:
        """With the predicate of the current relation; None where it leaves no object."""
        return replace(self, predicate=predicate) if self.is_free(predicate) else None

    def related(self, name: str) -> Memory:
        return replace(self, relations=self.relations | {(self.subject, self.predicate, name)})

    def subjects(self) -> tuple[str, ...]:
        """The objects of which a relation is left to say."""
        others = len(self.names) - 1
        if others < 1 or len(self.relations) >= MAX_RELATIONS:
            return ()
        most = math.inf if self.predicates is None else others * len(self.predicates)
        if len(self.relations) < most:
            return self.names
        written = Counter(subject for subject, _, _ in self.relations)
        return tuple(name for name in self.names if written[name] < most)

    def free_predicates(self) -> tuple[str, ...]:
        """The predicates of the closed vocabulary that leave an object."""
        if len(self.relations) < len(self.names) - 1:
            return self.predicates
        return tuple(name for name in self.predicates if self.is_free(name))

    def is_free(self, predicate: str) -> bool:
        """Whether subject and predicate leave an object to name."""
        written = sum(relation[:2] == (self.subject, predicate) for relation in self.relations)
        return written < len(self.names) - 1

    def objects(self) -> tuple[str, ...]:
        """What the current relation may name as its object."""
        said = {other for subject, name, other in self.relations if (subject, name) == (self.subject, self.predicate)}
        return tuple(name for name in self.names if name != self.subject and name not in said)
