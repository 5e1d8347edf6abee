"""The nodes of open text: labels and predicates of an open vocabulary in JSON strings, and thoughts.

Nearly every token may follow in such text and leaves the state as it is, which is found out by a pattern for all tokens
at once.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import lru_cache

from scenerl.answers.template import END_THINK, TAGS
from scenerl.decoding.memory import Memory
from scenerl.decoding.nodes import Node, joined
from scenerl.decoding.slots import BACKSLASH, QUOTE, Slot, new_numbers
from scenerl.decoding.trial import Trial

MAX_OPEN = 240
"""Characters of an open label; the parser takes 256, and some are kept for the number of an id."""
MAX_SUFFIX = 24
"""Bytes of what ends a slot or a line behind any text."""
FAR = 64
"""The most characters that a token may have: an open label with more room than that lets every one pass."""

_LABEL = re.compile('[^"\\\\<\x00-\x1f\x7f-\x9f\u2028\u2029]+')
_REASONING = re.compile("[^<\x00-\x08\x0b-\x1f\x7f-\x9f]+")
_TAG_BYTES = tuple(tag.encode() for tag in TAGS)


class FreeText(Node):
    """Where plain text may follow: it leaves the state as it is, but for the room that is left and the memory's text.

    Attributes:
        longest_suffix: what ends the text, in as many tokens as it ever takes.
    """

    longest_suffix: bytes

    @abstractmethod
    def free_room(self, inner):
        """How many characters of plain text may follow; 0 also where the state is not that of plain text."""

    @abstractmethod
    def is_plain(self, piece: bytes) -> bool:
        """Whether a token is plain text."""

    @abstractmethod
    def parted_rest(self, inner: tuple, memory: Memory) -> tuple[bytes, list[bytes]]:
        """What ends the text, and the rest of the answer, which begins with it."""


class OpenSlot(Slot, FreeText):
    """Any text of a bounded length. Behind the last character that there is room for comes only what ends the slot.

    Args:
        suffixes: ends to try, given the memory; the memory takes one of them behind any text.
        longest_suffix: one of them that takes as many tokens as any.

    Attributes:
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
            if self.leave == QUOTE and (len(base) - len(base.rstrip(b"\\"))) % 2:
                continue  # in the middle of an escape
            suffix = self._suffix(memory.at(base))
            if suffix.startswith(typed):
                yield suffix[len(typed) :]

    def _suffix(self, memory: Memory) -> bytes:
        return next(end for end in self.suffixes(memory) if self.take(memory.at(memory.text + end)) is not None)

    @abstractmethod
    def _head(self, inner: tuple) -> bytes:
        """What makes a begun character whole."""

    def endings(self, inner, memory):
        if inner[self.room_at] <= 0:
            yield from sorted(self._begun(inner, memory), key=len)
            return
        head = self._head(inner)
        yield from (head + suffix for suffix in self.suffixes(memory.at(memory.text + head) if head else memory))

    def parted_rest(self, inner, memory):
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
        return is_text(_LABEL, piece)

    def step(self, inner, memory, byte):
        partial, escaped, tag, room = inner
        if byte == QUOTE and not escaped and not partial:
            return self._left(memory)
        if room <= 0:
            return self._beyond(inner, memory, byte)
        if escaped:
            return self._stays((b"", False, b"", room - 1), memory, byte) if byte in (QUOTE, BACKSLASH) else None
        if byte == BACKSLASH and not partial:
            return self._stays((b"", True, b"", room), memory, byte)
        partial = next_partial(partial, byte)
        tag = next_tag(tag, byte)
        if partial is None or tag is None:
            return None
        return self._stays((partial, False, tag, room if partial else room - 1), memory, byte)

    def _head(self, inner):
        return b'"' if inner[1] else whole_character(inner[0])


def id_suffixes(memory: Memory) -> Iterator[bytes]:
    """Ends that make any text an id that is new."""
    yield b""
    yield b"." + next(new_numbers(memory))
    yield from (b"a." + number for number in new_numbers(memory))


def label_suffixes(memory: Memory) -> Iterator[bytes]:
    """Ends that make any text a label."""
    yield from (b"", b"a")


def predicate_suffixes(memory: Memory) -> Iterator[bytes]:
    """Ends that make any text a predicate that can be said of the subject."""
    yield b""
    yield from (str(number).encode() for number in range(len(memory.relations) + 2))


class Reasoning(FreeText):
    """Any text up to ``</think>`` in which no ``<`` stands before ``/``, ``a``, ``t`` or ``<`` (as the grammar has it).

    ``inner``: the bytes of a character that is not whole, and how much of the tag stands there.
    """

    start = (b"", 0)
    longest_suffix = b""
    _tag = END_THINK.encode()

    def __init__(self, next: Node):
        self.next = next

    def free_room(self, inner):
        return FAR if inner == self.start else 0

    def is_plain(self, piece):
        return is_text(_REASONING, piece)

    def step(self, inner, memory, byte):
        partial, at = inner
        if not partial and byte == self._tag[at]:
            at += 1
            return self.next.enter(memory) if at == len(self._tag) else (self, (b"", at), memory)
        if at > 1 or (at == 1 and byte in b"<at"):
            return None
        if not partial and byte in b"\t\n":
            return self, self.start, memory
        partial = next_partial(partial, byte)
        return None if partial is None else (self, (partial, 0), memory)

    def rest(self, inner, memory):
        partial, at = inner
        node, start, memory = self.next.enter(memory)
        return joined(whole_character(partial) + self._tag[at:], node.rest(start, memory))

    def parted_rest(self, inner, memory):
        return b"", self.rest(inner, memory)


def is_text(pattern: re.Pattern, piece: bytes) -> bool:
    """Whether bytes are whole characters that match."""
    try:
        return pattern.fullmatch(piece.decode()) is not None
    except UnicodeDecodeError:
        return False


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
