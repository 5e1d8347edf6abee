"""The nodes of slots: labels of a closed vocabulary, and references.

A slot's text stands in the memory. It ends at its quote (in lines at a space), where the memory is asked to take the
text.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import methodcaller

from scenerl.decoding.memory import Memory
from scenerl.decoding.nodes import Node, joined

DIGITS = frozenset(b"0123456789")
QUOTE, BACKSLASH, _DOT = b'"\\.'


@dataclass(slots=True, eq=False)
class Trie:
    """A place in a closed vocabulary. ``shortest``: what is missing to the shortest word from here."""

    whole: bool = False
    shortest: bytes = b""
    children: dict[int, Trie] = field(default_factory=dict)

    @classmethod
    def of(cls, words: Iterable[bytes]) -> Trie:
        root = cls()
        for word in sorted(words, key=len):
            place = root
            for at, byte in enumerate(word):
                if byte not in place.children:
                    place.children[byte] = cls(shortest=word[at + 1 :])
                place = place.children[byte]
            place.whole = True
            root.shortest = root.shortest or word
        return root


class Slot(Node):
    """Text up to a quote.

    Args:
        next: follows the quote.
        take: what the memory does with the whole text; None where it is no good. None: nothing.
        check: what it says to a beginning; None where it is no good. None: every beginning will do.
        leave: the byte that ends the slot, where it is no quote.
    """

    def __init__(self, next: Node, take: Callable | None, check: Callable | None = None, leave: int = QUOTE):
        self.next, self.take, self.check, self.leave = next, take, check, leave

    def enter(self, memory):
        return self, self.start, memory.opened()

    def _left(self, memory):
        """The state behind the slot."""
        if self.take is not None:
            memory = self.take(memory)
        return None if memory is None else self.next.enter(memory)

    def _stays(self, inner, memory, byte):
        """The state after one more byte of text."""
        memory = memory.typed(byte)
        if self.check is not None:
            memory = self.check(memory)
        return None if memory is None else (self, inner, memory)

    def _rest_after(self, memory: Memory, text: bytes) -> list[bytes] | None:
        """The rest with ``text`` as the end of the slot, or None where the memory does not take it."""
        left = self._left(memory.at(memory.text + text) if text else memory)
        if left is None:
            return None
        node, inner, memory = left
        return joined(text + bytes((self.leave,)), node.rest(inner, memory))

    def rest(self, inner, memory):
        for text in self.endings(inner, memory):
            rest = self._rest_after(memory, text)
            if rest is not None:
                return rest
        raise AssertionError(f"no end for {memory}")

    @abstractmethod
    def endings(self, inner: tuple, memory: Memory) -> Iterator[bytes]:
        """Ends of the slot's text, the shortest first; the memory takes one of them."""


class ClosedId(Slot):
    """The id of an object: a label of a closed vocabulary, and mostly a dot and a number.

    ``inner``: the place in the vocabulary, or None, and whether a number has digits, or None where there is none.
    """

    def __init__(self, labels: Iterable[bytes], next: Node):
        super().__init__(next, take=methodcaller("claim"))
        self.start = (Trie.of(labels), None)

    def step(self, inner, memory, byte):
        place, has_number = inner
        if byte == QUOTE and (has_number or (place is not None and place.whole)):
            return self._left(memory)
        if has_number is not None and byte in DIGITS:
            has_number = True
        else:
            has_number = False if byte == _DOT and place is not None and place.whole else None
        place = place.children.get(byte) if place is not None else None
        if place is None and has_number is None:
            return None
        return self._stays((place, has_number), memory, byte)

    def endings(self, inner, memory):
        place, has_number = inner
        if has_number is not None:
            yield from [b""] if has_number else []
            yield from new_numbers(memory)
        if place is not None:
            yield place.shortest
            yield from (place.shortest + b"." + number for number in new_numbers(memory))


def new_numbers(memory: Memory) -> Iterator[bytes]:
    """Numbers that may make a name new: first that of the object to come, which mostly does."""
    yield str(len(memory.ids) + 1).encode()
    yield from (str(number).encode() for number in range(len(memory.ids) + 2))


class ClosedText(Slot):
    """A word of a closed vocabulary. ``inner``: the place in it."""

    def __init__(self, words: Iterable[bytes], next: Node, take: Callable | None = None, check: Callable | None = None):
        super().__init__(next, take, check)
        self.words = sorted(set(words), key=len)
        self.start = (Trie.of(self.words),)

    def step(self, inner, memory, byte):
        (place,) = inner
        if byte == QUOTE and place.whole:
            return self._left(memory)
        place = place.children.get(byte)
        return None if place is None else self._stays((place,), memory, byte)

    def endings(self, inner, memory):
        yield inner[0].shortest
        yield from (word[len(memory.text) :] for word in self.words if word.startswith(memory.text))


class Reference(Slot):
    """The name of an object that is there already; ``role`` is ``subject`` or ``object``.

    ``inner``: whether a backslash was the last byte.
    """

    start = (False,)
    has_names = True
    leaves_by_text = True

    def __init__(self, role: str, next: Node, leave: int = QUOTE):
        super().__init__(next, methodcaller("refer", role, True), methodcaller("refer", role, False), leave)
        self.role = role

    def step(self, inner, memory, byte):
        (escaped,) = inner
        if byte == self.leave and not escaped:
            return self._left(memory)
        return self._stays((byte == BACKSLASH and not escaped,), memory, byte)

    def names(self, memory: Memory) -> list[bytes]:
        """What may still follow of the names that begin with the slot's text."""
        names = memory.subjects() if self.role == "subject" else memory.objects()
        return [name[len(memory.text) :] for name in names if name.startswith(memory.text)]

    def endings(self, inner, memory):
        yield from sorted(self.names(memory), key=len)
