"""The nodes of labels, predicates and references in JSON strings.

The slot's text stands in the memory. A slot ends at its quote, where the memory is asked to take the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from operator import methodcaller

from scenerl.answers.envelope import TAGS
from scenerl.decoding.memory import Memory
from scenerl.decoding.nodes import Node, joined
from scenerl.decoding.trial import Trial

MAX_OPEN = 240
"""Characters of an open label; the parser takes 256, and some are kept for the number of an id."""
MAX_SUFFIX = 24
"""Bytes of what ends a slot or a line behind any text."""
DIGITS = frozenset(b"0123456789")
FAR = 64
"""The most characters that a token may have: an open label with more room than that lets every one pass."""

_QUOTE, _BACKSLASH, _DOT = b'"\\.'
_PLAIN = re.compile('[^"\\\\<\x00-\x1f\x7f-\x9f\u2028\u2029]+')
_TAG_BYTES = tuple(tag.encode() for tag in TAGS)


@dataclass(slots=True)
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

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other) -> bool:
        return self is other


class Slot(Node):
    """Text up to a quote.

    Args:
        take: what the memory does with the whole text; None where it is no good.
        check: what it says to a beginning; None where every one will do.
    """

    def __init__(self, next: Node, take: Callable, check: Callable | None = None, leave: int = _QUOTE):
        self.next, self.take, self.check, self.leave = next, take, check, leave

    def enter(self, memory):
        return self, self.start, memory.opened()

    def _left(self, memory):
        memory = self.take(memory)
        return None if memory is None else self.next.enter(memory)

    def _stays(self, inner, memory, byte):
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

    def endings(self, inner: tuple, memory: Memory) -> Iterator[bytes]:
        """Ends of the slot's text, the shortest first; the memory takes one of them."""
        raise NotImplementedError


class ClosedId(Slot):
    """The id of an object: a label of a closed vocabulary, and mostly a dot and a number.

    ``inner``: the place in the vocabulary, or None, and whether a number has digits, or None where there is none.
    """

    def __init__(self, labels: Iterable[bytes], next: Node):
        super().__init__(next, take=methodcaller("claim"))
        self.start = (Trie.of(labels), None)

    def step(self, inner, memory, byte):
        place, has_number = inner
        if byte == _QUOTE and (has_number or (place is not None and place.whole)):
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
            yield from _numbers(memory)
        if place is not None:
            yield place.shortest
            yield from (place.shortest + b"." + number for number in _numbers(memory))


def _numbers(memory: Memory) -> Iterator[bytes]:
    """Numbers that may make a name new: first that of the object to come, which mostly does."""
    yield str(len(memory.ids) + 1).encode()
    yield from (str(number).encode() for number in range(len(memory.ids) + 2))


class ClosedText(Slot):
    """A word of a closed vocabulary."""

    def __init__(self, words: Iterable[bytes], next: Node, take: Callable, check: Callable | None = None, **options):
        super().__init__(next, take, check, **options)
        self.words = sorted(set(words), key=len)
        self.start = (Trie.of(self.words),)

    def step(self, inner, memory, byte):
        (place,) = inner
        if byte == self.leave and place.whole:
            return self._left(memory)
        place = place.children.get(byte)
        return None if place is None else self._stays((place,), memory, byte)

    def endings(self, inner, memory):
        yield inner[0].shortest
        yield from (word[len(memory.text) :] for word in self.words if word.startswith(memory.text))


class OpenSlot(Slot):
    """Any text of a bounded length. Behind the last character that there is room for comes only what ends the slot.

    Args:
        suffixes: ends to try, given the memory; the memory takes one of them behind any text.
        longest_suffix: one that takes as many tokens as any.
        room_at: where in ``inner`` is how many characters there is room for; below zero it counts bytes.
    """

    room_at: int

    def __init__(
        self,
        next: Node,
        take: Callable,
        suffixes: Callable[[Memory], Iterator[bytes]],
        longest_suffix: bytes,
        **options,
    ):
        super().__init__(next, take, **options)
        self.suffixes, self.longest_suffix = suffixes, longest_suffix

    def key(self, inner):
        at = self.room_at
        return (*inner[:at], min(inner[at], FAR), *inner[at + 1 :])

    def is_full(self, inner):
        return inner[self.room_at] <= 0

    def _beyond(self, inner, memory, byte):
        """The state after one more byte for which there is no room."""
        if isinstance(memory, Trial):
            return None  # tokens that reach beyond the room are left out until there is none
        at = self.room_at
        inner_after = (*inner[:at], inner[at] - 1, *inner[at + 1 :])
        goes_on = any(rest[:1] == bytes((byte,)) for rest in self._begun(inner, memory))
        return self._stays(inner_after, memory, byte) if goes_on else None

    def _begun(self, inner: tuple, memory: Memory) -> Iterator[bytes]:
        """What is missing of the suffixes that a full slot's text may be in: one is begun at the latest where the room
        ended, or a little before."""
        full = len(memory.text) + inner[self.room_at]
        for start in range(full, max(-1, full - MAX_SUFFIX - 1), -1):
            base, typed = memory.text[:start], memory.text[start:]
            if typed[:1] and typed[0] & 0xC0 == 0x80:
                continue  # in the middle of a character
            if self.leave == _QUOTE and (len(base) - len(base.rstrip(b"\\"))) % 2:
                continue  # in the middle of an escape
            suffix = self._suffix(memory.at(base))
            if suffix.startswith(typed):
                yield suffix[len(typed) :]

    def _suffix(self, memory: Memory) -> bytes:
        return next(end for end in self.suffixes(memory) if self.take(memory.at(memory.text + end)) is not None)

    def _head(self, inner: tuple) -> bytes:
        """What makes a begun character whole."""
        raise NotImplementedError

    def endings(self, inner, memory):
        if inner[self.room_at] <= 0:
            yield from sorted(self._begun(inner, memory), key=len)
            return
        head = self._head(inner)
        yield from (head + suffix for suffix in self.suffixes(memory.at(memory.text + head) if head else memory))

    def parted_rest(self, inner: tuple, memory: Memory) -> tuple[bytes, list[bytes]]:
        """The rest, and how it ends the slot's text."""
        suffix = self._suffix(memory)
        return suffix, self._rest_after(memory, suffix)


class OpenText(OpenSlot):
    """Any text in a JSON string that may be a label: without control characters and tags.

    ``inner``: the bytes of a character that is not whole, whether a backslash was the last one, the beginning of a tag,
    and the room.
    """

    start = (b"", False, b"", MAX_OPEN)
    room_at = 3

    def free_room(self, inner):
        return inner[3] if inner[:3] == (b"", False, b"") else 0

    def is_plain(self, piece):
        return is_text(_PLAIN, piece)

    def step(self, inner, memory, byte):
        partial, escaped, tag, room = inner
        if byte == _QUOTE and not escaped and not partial:
            return self._left(memory)
        if room <= 0:
            return self._beyond(inner, memory, byte)
        if escaped:
            return self._stays((b"", False, b"", room - 1), memory, byte) if byte in (_QUOTE, _BACKSLASH) else None
        if byte == _BACKSLASH and not partial:
            return self._stays((b"", True, b"", room), memory, byte)
        partial = next_partial(partial, byte)
        tag = next_tag(tag, byte)
        if partial is None or tag is None:
            return None
        return self._stays((partial, False, tag, room if partial else room - 1), memory, byte)

    def _head(self, inner):
        return b'"' if inner[1] else whole_character(inner[0])


def is_text(pattern: re.Pattern, piece: bytes) -> bool:
    try:
        return pattern.fullmatch(piece.decode()) is not None
    except UnicodeDecodeError:
        return False


def id_suffixes(memory: Memory) -> Iterator[bytes]:
    yield b""
    yield b"." + next(_numbers(memory))
    yield from (b"a." + number for number in _numbers(memory))


def label_suffixes(memory: Memory) -> Iterator[bytes]:
    yield from (b"", b"a")


def predicate_suffixes(memory: Memory) -> Iterator[bytes]:
    yield b""
    yield from (str(number).encode() for number in range(len(memory.relations) + 2))


class Reference(Slot):
    """The name of an object that is there already. ``inner``: whether a backslash was the last byte."""

    start = (False,)
    asks_grammar = False  # names are looked up
    leaves_by_text = True

    def __init__(self, role: str, next: Node, leave: int = _QUOTE):
        super().__init__(next, methodcaller("refer", role, True), methodcaller("refer", role, False), leave)
        self.role = role

    def step(self, inner, memory, byte):
        (escaped,) = inner
        if byte == self.leave and not escaped:
            return self._left(memory)
        return self._stays((byte == _BACKSLASH and not escaped,), memory, byte)

    def names(self, memory: Memory) -> list[bytes]:
        """What may still follow of the names that begin with the slot's text."""
        names = memory.subjects() if self.role == "subject" else memory.objects()
        return [name[len(memory.text) :] for name in names if name.startswith(memory.text)]

    def endings(self, inner, memory):
        yield from sorted(self.names(memory), key=len)


@lru_cache(maxsize=4096)
def next_partial(partial: bytes, byte: int) -> bytes | None:
    """The bytes of a character that is not whole after one more byte; none where it is, None where it may not be."""
    character = partial + bytes((byte,))
    try:
        text = character.decode()
    except UnicodeDecodeError as error:
        is_begun = error.reason == "unexpected end of data"
        return character if is_begun else None
    return None if text < " " or "\x7f" <= text <= "\x9f" or text in "\u2028\u2029" else b""


@lru_cache(maxsize=4096)
def whole_character(partial: bytes) -> bytes:
    """The bytes that make a begun character a whole and visible one."""
    if not partial:
        return b""
    for byte in (0xA1, 0x91, 0x81):
        longer = next_partial(partial, byte)
        if longer is not None:
            return bytes((byte,)) + whole_character(longer)
    raise AssertionError(f"{partial!r} begins no character")


@lru_cache(maxsize=4096)
def next_tag(tag: bytes, byte: int) -> bytes | None:
    """The beginning of a tag that text ends in, after one more byte; None where the tag is whole."""
    if byte == 0x3C:
        return b"<"
    longer = tag + bytes((byte,))
    if not tag or not any(whole.startswith(longer) for whole in _TAG_BYTES):
        return b""
    return None if longer in _TAG_BYTES else longer
