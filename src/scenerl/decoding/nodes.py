"""The automaton of answers: nodes that read one byte at a time.

A *state* is a tuple (node, inner, memory). ``inner`` is how far the node is; it and the node say what may come next but
for what :mod:`scenerl.decoding.memory` holds. A node has

- ``enter(memory)``: the state at its start;
- ``step(inner, memory, byte)``: the state after one more byte, or None where the answer goes wrong;
- ``rest(inner, memory)``: the shortest end of the answer from here, in chunks; every state that is reached has one;
- ``is_end(inner)``: whether the answer may stop here.

Nodes are linked from the end: each is given the one that follows. Everything is bytes, because tokens are: one may end
in the middle of a character.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from scenerl.answers.grammar import MAX_SPACE
from scenerl.decoding.memory import Memory
from scenerl.decoding.trial import Trial

State = tuple["Node", tuple, "Memory | Trial"]
SPACES = frozenset(b" \n\t")


class Node(ABC):
    """What the nodes have in common."""

    start: tuple = ()
    has_names = False
    """Whether the text is one of the memory's names: these are looked up, and the grammar is not asked."""
    leaves_by_text = False
    """Whether the grammar allows tokens that end the node behind some texts only: all of them are looked at."""

    def enter(self, memory) -> State:
        return self, self.start, memory

    @abstractmethod
    def step(self, inner: tuple, memory, byte: int) -> State | None:
        """The state after one more byte, or None."""

    @abstractmethod
    def rest(self, inner: tuple, memory: Memory) -> list[bytes]:
        """The shortest end of the answer."""

    def is_end(self, inner: tuple) -> bool:
        return False

    def key(self, inner: tuple) -> tuple:
        """``inner`` without differences that no token can tell."""
        return inner

    def context(self, memory: Memory) -> tuple | None:
        """The part of the memory that the rest depends on, besides ``inner``; None: all of it."""
        return None

    def is_full(self, inner: tuple) -> bool:
        """Whether there is no room for text, and what may follow depends on the memory alone."""
        return False

    def free_room(self, inner: tuple) -> int:
        """How many characters of plain text may follow (:class:`scenerl.decoding.texts.FreeText`)."""
        return 0


class End(Node):
    """The end of the answer."""

    def step(self, inner, memory, byte):
        return None

    def rest(self, inner, memory):
        return []

    def is_end(self, inner):
        return True

    def context(self, memory):
        return ()


class Option(NamedTuple):
    """A mark, the node behind it, and what it does to the memory."""

    mark: bytes
    next: Node
    act: Callable | None = None


class Marks(Node):
    """One of several marks, told apart by their first bytes.

    Args:
        options: the last is what ends the answer soonest.
        space: how much white space may come first.
        spaces: what it may begin with.
        lead: the white space that the writer puts there.
        instead: what may follow without a mark.
        ends: whether that ends the answer sooner.
    """

    def __init__(
        self,
        *options: Option,
        space: int = MAX_SPACE,
        spaces: frozenset[int] = SPACES,
        lead: bytes = b"",
        instead: Node | None = None,
        ends: bool = True,
    ):
        self.space, self.spaces, self.lead, self.instead, self.ends = space, spaces, lead, instead, ends
        self.start = (0, None, 0)
        self.set(*options)

    def set(self, *options: Option) -> None:
        """Give the options later, where nodes go round in a circle."""
        self.options = {option.mark[0]: option for option in options}
        self.default = options[-1] if options else None

    def step(self, inner, memory, byte):
        spaces, option, at = inner
        if option is None:
            option = self.options.get(byte)
            if option is None:
                if byte in (SPACES if spaces else self.spaces) and spaces < self.space:
                    return self, (spaces + 1, None, 0), memory
                return self._instead(memory, bytes((byte,)))
        elif option.mark[at] != byte:
            return self._instead(memory, option.mark[:at] + bytes((byte,)))
        at += 1
        if at < len(option.mark):
            return self, (spaces, option, at), memory
        if option.act is not None:
            memory = option.act(memory)
            if memory is None:
                return None
        return option.next.enter(memory)

    def _instead(self, memory, text: bytes) -> State | None:
        """The state behind text that is no mark, or was only the beginning of one."""
        if self.instead is None:
            return None
        return walk(self.instead.enter(memory), text)

    def rest(self, inner, memory):
        spaces, option, at = inner
        if option is None and self.instead is not None and self.ends:
            node, start, memory = self.instead.enter(memory)
            return node.rest(start, memory)
        mark = (self.lead if not spaces else b"") + self.default.mark if option is None else option.mark[at:]
        option = option or self.default
        node, inner, memory = option.next.enter(option.act(memory) if option.act else memory)
        return joined(mark, node.rest(inner, memory))

    def context(self, memory):
        if len(self.options) > 1 and any(len(mark.mark) > 1 for mark in self.options.values()):
            return None  # another option than the soonest may have begun
        ends_with = self.instead if self.instead is not None and self.ends else self.default.next
        return ends_with.context(memory)

    def is_end(self, inner):
        return inner[1] is None and self.instead is not None and self.instead.is_end(self.instead.start)


def walk(state: State, text: bytes) -> State | None:
    """The state behind ``text``, or None where it is not allowed."""
    for byte in text:
        node, inner, memory = state
        state = node.step(inner, memory, byte)
        if state is None:
            return None
    return state


def joined(mark: bytes, chunks: list[bytes]) -> list[bytes]:
    """Chunks with a mark before the first: what is spelt together takes fewer tokens."""
    return [mark + chunks[0], *chunks[1:]] if chunks else [mark]


def chain(marks: str, last: Node, act: Callable | None = None) -> Node:
    """Marks that follow each other, set apart by spaces here; ``act`` is done at the first, ``last`` follows them."""
    nodes: Node = last
    words = marks.split(" ")
    for place in reversed(range(len(words))):
        lead = b" " if place and words[place - 1][-1] in ":," else b""
        nodes = Marks(Option(words[place].encode(), nodes, None if place else act), lead=lead)
    return nodes
