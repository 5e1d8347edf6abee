"""A memory of which nothing is known: what tokens ask of it is kept as conditions.

A token is walked through the automaton once for all memories, with a :class:`Trial` in the memory's place. What it
would have asked, a real memory answers later (:mod:`scenerl.decoding.conditions`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SHOWS = re.compile(rb"[!-~]")


class TooHard(Exception):
    """A token asks what a trial's conditions cannot say; it has to be walked through the real memory."""


Span = tuple[bool, bytes]
"""Text of a slot as a trial knows it: whether the text before the token comes first, and what the token added."""


@dataclass(slots=True)
class Trial:
    """A memory of which nothing is known but what a token itself added.

    Attributes:
        conditions: what a real memory must hold for the token to be allowed.
        box: the numbers of the current box that the token wrote, by axis; None for one that it only ended.
        bounds: for x2 and y2 of the current box, the number below which x1 and y1 must be.
    """

    text: Span = (True, b"")
    box: tuple[tuple[int, int | None], ...] = ()
    num_new: int = 0
    num_related: int = 0
    subject: Span | None = None
    predicate: Span | None = None
    conditions: tuple[tuple, ...] = ()
    bounds: tuple[int | None, int | None] = (None, None)

    def _with(
        self, text=None, box=None, new=None, related=None, subject=None, predicate=None, conditions=None, bounds=None
    ) -> Trial:
        """As :func:`dataclasses.replace`, which takes several times as long."""
        return Trial(
            self.text if text is None else text,
            self.box if box is None else box,
            self.num_new if new is None else new,
            self.num_related if related is None else related,
            self.subject if subject is None else subject,
            self.predicate if predicate is None else predicate,
            self.conditions if conditions is None else conditions,
            self.bounds if bounds is None else bounds,
        )

    def _if(self, *condition, last: str | None = None) -> Trial:
        """Under one more condition, which replaces the one before it where that said less of the same."""
        held = self.conditions
        if held and held[-1][0] == last:
            held = held[:-1]
        return self._with(conditions=(*held, condition))

    def typed(self, byte: int) -> Trial:
        return self._with(text=(self.text[0], self.text[1] + bytes((byte,))))

    def opened(self) -> Trial:
        return self._with(text=(False, b""))

    def boxed(self) -> Trial:
        return self._with(box=())

    def above(self, axis: int, bound: int) -> Trial | None:
        if axis < 2:
            return self
        for other, value in self.box:
            if other == axis - 2:
                if value is None:
                    raise TooHard
                return self if value < bound else None
        bounds = list(self.bounds)
        bounds[axis - 2] = bound if bounds[axis - 2] is None else min(bound, bounds[axis - 2])
        return self._with(bounds=tuple(bounds))

    def numbered(self, axis: int, value: int | None) -> Trial:
        return self._with(box=(*self.box, (axis, value)))

    def add(self) -> Trial:
        return self._if("add", self.num_new + 1)

    def count(self) -> Trial:
        return self._with(new=self.num_new + 1)

    def line(self) -> Trial:
        return self._if("line", self.text)._with(new=self.num_new + 1)

    def tail(self) -> Trial:
        return self._related("tail", self.subject, self.text)._counting()

    def claim(self) -> Trial:
        if self.num_new:
            raise TooHard
        return self._if("new", self.text, last="new")._with(new=1)

    def listed(self) -> Trial:
        return self.add().count()

    def relate(self) -> Trial:
        return self._related("relate")

    def refer(self, role: str, whole: bool) -> Trial:
        if role == "subject":
            trial = self._related("subject", self.text, whole)
            return trial._with(subject=self.text) if whole else trial
        trial = self._related("object", self.subject, self.predicate, self.text, whole)
        return trial._counting() if whole else trial

    def say(self, whole: bool) -> Trial:
        trial = self._related("predicate", self.subject, self.text, whole)
        return trial._with(predicate=self.text) if whole else trial

    def _related(self, kind: str, *asked) -> Trial:
        """Under a condition on relations, of which the token itself has written some."""
        if self.num_new:
            raise TooHard
        return self._if(kind, self.num_related, *asked, last=kind)

    def _counting(self) -> Trial:
        return self._with(related=self.num_related + 1)

    def label(self) -> Trial:
        # a letter makes any text that the node takes a label
        return self if _SHOWS.search(self.text[1]) else self._if("label", self.text)
