"""The nodes of the compact format's lines.

In a closed vocabulary a label ends where a space and a digit follow: the vocabularies that this cannot tell apart are
refused. In an open one a label may hold spaces and numbers, and it is the end of a line that says what it was. What a
line is, the reader of the format decides (:mod:`scenerl.answers.compact`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from operator import methodcaller

from scenerl.answers.compact import split_object
from scenerl.decoding.memory import Memory
from scenerl.decoding.nodes import Node, joined
from scenerl.decoding.slots import DIGITS, Slot, Trie
from scenerl.decoding.texts import MAX_OPEN, OpenSlot, is_text, next_partial, next_tag, whole_character
from scenerl.errors import UserError

_NEWLINE, _SPACE, _LESS = b"\n <"
_STOP = b"end"
_PLAIN = re.compile("[^<\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def check_words(words: Iterable[str], what: str) -> None:
    """Raise ValueError for a vocabulary that lines cannot hold: two words of which the longer goes on with a number."""
    known = set(words)
    for word in known:
        for match in re.finditer(r" [0-9]", word):
            if word[: match.start()] in known:
                raise UserError(
                    f"constrain: the {what} {word[: match.start()]!r} and {word!r} cannot be told apart in the compact "
                    "format"
                )
        if what == "predicates" and split_object(f"1 {word} 1") is not None:
            raise UserError(f"constrain: the compact format cannot hold the predicate {word!r}: too many numbers")


class Words(Slot):
    """A word of a closed vocabulary, then a space, then a digit that the next node takes.

    ``inner``: the place in the vocabulary, or None, and whether the last byte was a space behind a whole word.
    """

    def __init__(self, words: Iterable[bytes], next: Node, take: Callable, check: Callable | None = None):
        super().__init__(next, take, check, leave=_SPACE)
        self.words = sorted(set(words), key=len)
        self.start = (Trie.of(self.words), False)

    def step(self, inner, memory, byte):
        place, has_ended = inner
        if has_ended and byte in DIGITS:
            left = self._left(memory)
            return None if left is None else left[0].step(left[1], left[2], byte)
        after = place.children.get(byte) if place is not None else None
        if has_ended:
            return None if after is None else self._stays((after, False), memory.typed(_SPACE), byte)
        if byte == _SPACE and place.whole:
            return self, (after, True), memory
        return None if after is None else self._stays((after, False), memory, byte)

    def endings(self, inner, memory):
        yield from (word[len(memory.text) :] for word in self.words if word.startswith(memory.text))

    def rest(self, inner, memory):
        if not inner[1]:
            return super().rest(inner, memory)
        left = self._left(memory)
        if left is not None:
            return left[0].rest(left[1], left[2])
        return super().rest((inner[0], False), memory.at(memory.text + b" "))


class ObjectWords(Node):
    """A line of the objects, up to its box, over a closed vocabulary; or ``end``, or an empty line.

    ``inner`` as in :class:`Words`. ``end`` is a word of the vocabulary too, and ``stop`` follows it.
    """

    def __init__(self, words: Iterable[bytes], box: Node, relations: Node, stop: Node):
        self.box, self.relations, self.stop = box, relations, stop
        root = Trie.of([*words, _STOP])
        self.start = (root, False)
        place = root
        self._begun = {root: _STOP}  # places from which the answer may still end, and what is missing
        for at, byte in enumerate(_STOP):
            place = place.children[byte]
            self._begun[place] = _STOP[at + 1 :]
        self._stop_place = place
        self._is_label = set(words)

    def _is_whole(self, place: Trie) -> bool:
        return place.whole and (place is not self._stop_place or _STOP in self._is_label)

    def step(self, inner, memory, byte):
        place, has_ended = inner
        if has_ended and byte in DIGITS:
            node, inner, memory = self.box.enter(memory)
            return node.step(inner, memory, byte)
        if place is self._stop_place and not self._goes_on(place, byte):
            node, inner, memory = self.stop.enter(memory)
            return node.step(inner, memory, byte)
        if place is self.start[0] and byte == _NEWLINE:
            return self.relations.enter(memory)
        after = place.children.get(byte) if place is not None else None
        ends = not has_ended and byte == _SPACE and place is not None and self._is_whole(place)
        if after is None and not ends:
            return None
        if place in self._begun and after not in self._begun:  # from here on it is an object
            memory = memory.add()
        return None if memory is None else (self, (after, ends), memory)

    def _goes_on(self, place: Trie, byte: int) -> bool:
        return byte in place.children or (byte == _SPACE and _STOP in self._is_label)

    def rest(self, inner, memory):
        place, has_ended = inner
        if place in self._begun and not has_ended:
            node, start, memory = self.stop.enter(memory)
            return joined(self._begun[place], node.rest(start, memory))
        word = b"" if has_ended else place.shortest + b" "
        node, start, memory = self.box.enter(memory)
        return joined(word, node.rest(start, memory)) if word else node.rest(start, memory)

    def is_end(self, inner):
        return inner[0] is self._stop_place and not inner[1] and self.stop.is_end(self.stop.start)


class _OpenLine(OpenSlot):
    """Any text up to the end of a line, without control characters and tags.

    ``inner``: the bytes of a character that is not whole, the beginning of a tag, the room, and how many characters of
    ``end`` the line is, or -1.
    """

    start = (b"", b"", MAX_OPEN, -1)
    room_at = 2
    leaves_by_text = True

    def free_room(self, inner):
        return inner[2] if inner[:2] == (b"", b"") and inner[3] < 0 else 0

    def is_plain(self, piece):
        return is_text(_PLAIN, piece)

    def step(self, inner, memory, byte):
        partial, tag, room, begun = inner
        if byte == _NEWLINE and not partial:
            return self._left(memory)
        if room <= 0:
            return self._beyond(inner, memory, byte)
        partial = next_partial(partial, byte)
        tag = next_tag(tag, byte)
        if partial is None or tag is None:
            return None
        begun = begun + 1 if 0 <= begun < len(_STOP) and byte == _STOP[begun] else -1
        return self._stays((partial, tag, room if partial else room - 1, begun), memory, byte)

    def _head(self, inner):
        return whole_character(inner[0])


class OpenObject(_OpenLine):
    """A line of the objects over an open vocabulary; or ``end``, or an empty line.

    Args:
        box: the end of a line with the smallest box, a space before it.
    """

    start = (b"", b"", MAX_OPEN, 0)

    def __init__(self, box: bytes, relations: Node, stop: Node):
        super().__init__(
            self, methodcaller("line"), lambda memory: iter((b"", box, b"a" + box)), b"a" + box, leave=_NEWLINE
        )
        self.relations, self.stop = relations, stop

    def step(self, inner, memory, byte):
        begun = inner[3]
        if begun == 0 and byte == _NEWLINE:
            return self.relations.enter(memory)
        if begun == len(_STOP) and byte in (_NEWLINE, _LESS):
            node, start, memory = self.stop.enter(memory)
            return node.step(start, memory, byte)
        state = super().step(inner, memory, byte)
        if state is None or begun < 0 or state[1][3] >= 0:
            return state
        memory = state[2].add()  # from here on it is an object
        return None if memory is None else (*state[:2], memory)

    def rest(self, inner, memory):
        if inner[3] < 0:
            return super().rest(inner, memory)
        node, start, memory = self.stop.enter(memory)
        return joined(_STOP[inner[3] :], node.rest(start, memory))

    def is_end(self, inner):
        return inner[3] == len(_STOP) and self.stop.is_end(self.stop.start)


class OpenTail(_OpenLine):
    """Predicate and object of a relation line over an open vocabulary."""

    def __init__(self, next: Node):
        super().__init__(next, methodcaller("tail"), _tails, b"a9999 9999", leave=_NEWLINE)


def _tails(memory: Memory) -> Iterator[bytes]:
    yield b""
    for middle in (b"", b"a", *(b"a%d" % number for number in range(len(memory.relations) + 1))):
        yield from (middle + b" " + name for name in memory.ids if name != memory.subject)
