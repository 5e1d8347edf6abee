"""Which tokens one answer may go on with.

What stands in an answer may be read in several ways until more is known (``end`` is the end of a compact answer, or
begins ``end table``), so that an answer holds several *threads*, each at one place of the template. A token may follow
if a thread allows it; where all threads together allow a single one, it is forced.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from scenerl.answers.grammar import GrammarSpec
from scenerl.answers.template import TAGS
from scenerl.constrain.memory import Memory
from scenerl.constrain.slots import MAX_TEXT, Link, OpenText
from scenerl.constrain.template import build_template
from scenerl.constrain.vocabulary import MAX_PIECE, Trie, Vocabulary, carry_of, finished, num_characters
from scenerl.errors import UserError


class Constraint:
    """The tokens that an answer of one form may hold.

    Attributes:
        least: tokens of the smallest answer, the one that ends it included.

    Raises:
        UserError: no answer of this form can be written with these tokens.
    """

    def __init__(self, spec: GrammarSpec, vocabulary: Vocabulary):
        self.template = build_template(spec)
        self.vocabulary = vocabulary
        vocabulary.require(self.template.words)
        self.least = self.cost(self.template.starts[-1], self.template.memory)

    def require(self, limit: int) -> None:
        """Raise UserError where not even the smallest answer fits into so many tokens."""
        if self.least > limit:
            raise UserError(
                f"constrain: the smallest answer takes {self.least} tokens, but the limit is {limit}; raise it"
            )

    def cost(self, link: Link | None, memory: Memory) -> int:
        """The most tokens that a link, what must follow it, and the end of the answer take."""
        count = 1
        while link is not None:
            count += len(self.vocabulary.spell(link.forced(memory)))
            slot = link.next
            if isinstance(slot, OpenText):
                count += len(self.vocabulary.spell(link.lead)) + slot.reserve
            elif slot is not None:
                words = (slot.all_words or slot.words)(memory)
                count += self.vocabulary.trie(link.lead, words).depth
            link = None if slot is None else slot.links[-1]
        return count

    def start(self, limit: int) -> list[Thread]:
        return self.behind(self.template.starts, self.template.memory, limit)

    def behind(self, links: Collection[Link], memory: Memory, left: int) -> list[Thread]:
        """The threads at the links behind a slot, of those that the answer has room for: ``left`` tokens."""
        threads: list[Thread] = []
        for link in links:
            if link is not links[-1] and not self._is_open(link, memory, left):
                continue
            after = link.when(memory)
            tokens = self.vocabulary.spell(link.forced(after))
            enter = partial(self._enter, link, after)
            threads += [Forced(tokens, enter)] if tokens else enter(left)
        return threads

    def _enter(self, link: Link, memory: Memory, left: int) -> list[Thread]:
        """The threads at the beginning of the slot behind a link."""
        slot = link.next
        if slot is None:
            return [Done(self)]
        if isinstance(slot, OpenText):
            return self.typing(slot, link.lead.encode(), b"", memory, left)
        words = slot.words(memory)
        if slot.is_joint:
            return self._enter_jointly(link, words, memory, left)
        trie = self.vocabulary.trie(link.lead, words)

        def then(index: int, left: int) -> list[Thread]:
            return self.behind(slot.links, slot.finish(memory, index, words[index]), left)

        return [Choosing(trie, slot.bound(memory), then)]

    def _enter_jointly(self, link: Link, words: tuple[str, ...], memory: Memory, left: int) -> list[Thread]:
        """The same where words are spelt together with the forced text behind them."""
        length = self.vocabulary.trie(link.lead, words).depth
        links = link.next.links
        links = [one for one in links if one is links[-1] or self._is_open(one, memory, left - length)]
        ends = tuple(one.forced(memory) for one in links)

        def then(index: int, left: int) -> list[Thread]:
            chosen = links[index // len(words)]
            return self._enter(chosen, chosen.when(memory), left)

        return [Choosing(self.vocabulary.trie(link.lead, words, ends), -1, then)]

    def _is_open(self, link: Link, memory: Memory, left: int) -> bool:
        after = link.when(memory)
        return after is not None and self.cost(link, after) <= left

    def typing(self, slot: OpenText, lead: bytes, text: bytes, memory: Memory, left: int) -> list[Thread]:
        """The threads in open text: it goes on, or it ends."""
        if lead:
            return [Typing(self, slot, lead, text, 0, memory)]
        room = MAX_PIECE
        if slot.kind != "reasoning":
            room = MAX_TEXT - num_characters(text)
        finish = partial(self._finish, slot, memory)
        has_room = room > 0 or carry_of(slot.kind, text) > b"\x7f"  # a begun character may be finished
        if has_room and left - 1 >= slot.reserve + self.cost(slot.links[-1], memory):
            return [Typing(self, slot, lead, text, room, memory), *finish(text, left)]
        ending = self._ending(slot, text, memory)
        if ending:
            return [Forced(self.vocabulary.spell_bytes(ending), partial(finish, text + ending))]
        return finish(text, left)

    def _finish(self, slot: OpenText, memory: Memory, text: bytes, left: int) -> list[Thread]:
        """The threads behind open text, where it may end so."""
        if carry_of(slot.kind, text):
            return []
        after = slot.finish(memory, text.decode())
        return [] if after is None else self.behind(slot.links, after, left)

    @staticmethod
    def _ending(slot: OpenText, text: bytes, memory: Memory) -> bytes:
        """The fewest bytes after which open text may end."""
        end = finished(slot.kind, carry_of(slot.kind, text))
        whole = (text + end).decode()
        for more in slot.endings(memory):
            if slot.finish(memory, whole + more) is not None:
                return end + more.encode()
        raise AssertionError(f"no end for {whole!r}")


@dataclass(frozen=True, slots=True)
class Done:
    """At the end of the answer."""

    constraint: Constraint

    def options(self) -> Collection[int]:
        """The tokens that may follow, as numbers or as a mask (V)."""
        return self.constraint.vocabulary.stop_ids

    def step(self, token: int, left: int) -> list[Thread]:
        """The threads behind a token, where ``left`` tokens are left."""
        return []


@dataclass(frozen=True, slots=True)
class Forced:
    """In forced text; ``tokens`` are left of it, and ``then`` gives the threads behind it."""

    tokens: tuple[int, ...]
    then: Callable[[int], list[Thread]]

    def options(self) -> Collection[int]:
        return self.tokens[:1]

    def step(self, token: int, left: int) -> list[Thread]:
        return [Forced(self.tokens[1:], self.then)] if len(self.tokens) > 1 else self.then(left)


@dataclass(frozen=True, slots=True)
class Choosing:
    """Among words, at ``place`` of their trie: one of an index above ``bound``; ``then`` gives what is behind it."""

    place: Trie
    bound: int
    then: Callable[[int, int], list[Thread]]

    def options(self) -> Collection[int]:
        children = self.place.children
        if self.bound < 0:
            return children
        return [token for token, place in children.items() if place.last > self.bound]

    def step(self, token: int, left: int) -> list[Thread]:
        place = self.place.children[token]
        threads: list[Thread] = [Choosing(place, self.bound, self.then)] if place.children else []
        return threads + self.then(place.index, left) if place.index > self.bound else threads


@dataclass(frozen=True, slots=True)
class Typing:
    """In open text with room for some characters, or in the forced text before it, of which ``lead`` is left."""

    constraint: Constraint
    slot: OpenText
    lead: bytes
    text: bytes
    room: int
    memory: Memory

    def options(self) -> Collection[int]:
        vocabulary, kind = self.constraint.vocabulary, self.slot.kind
        if self.lead:
            return {vocabulary.spell_bytes(self.lead)[0], *vocabulary.joined(kind, self.lead)}
        mask = vocabulary.plain(kind, carry_of(kind, self.text))
        if self.room < MAX_PIECE:
            mask = mask & (vocabulary.num_characters <= self.room)
        if b"<" in self.text and kind != "reasoning":
            mask = mask.copy()
            for token in vocabulary.closing_tags:
                text = self.text + vocabulary.pieces[token]
                mask[token] &= not any(tag.encode() in text for tag in TAGS)
        return mask

    def step(self, token: int, left: int) -> list[Thread]:
        piece = self.constraint.vocabulary.pieces[token]
        lead, text = self.lead[len(piece) :], self.text + piece[len(self.lead) :]
        return self.constraint.typing(self.slot, lead, text, self.memory, left)


Thread = Done | Forced | Choosing | Typing


class Row:
    """One answer that is being written, of at most ``limit`` tokens.

    Raises:
        UserError: not even the smallest answer fits the limit.
    """

    def __init__(self, constraint: Constraint, limit: int):
        constraint.require(limit)
        self.constraint, self.left, self.is_done = constraint, limit, False
        self._move(constraint.start(limit))

    def copy(self) -> Row:
        row = object.__new__(Row)
        row.__dict__.update(self.__dict__)
        return row

    def _move(self, threads: list[Thread]) -> None:
        self._threads = [(thread, thread.options()) for thread in threads]

    def forced(self) -> int | None:
        """The token that must follow, where there is one only."""
        found: set[int] = set()
        for _, options in self._threads:
            if len(options) > 1:
                return None
            found.update(options)
        return found.pop() if len(found) == 1 else None

    def mask(self) -> np.ndarray:
        """Which tokens may follow, (V) bool; the caller's own."""
        mask = np.zeros(self.constraint.vocabulary.size, dtype=bool)
        for _, options in self._threads:
            if isinstance(options, np.ndarray):
                mask |= options
            else:
                mask[list(options)] = True
        return mask

    def take(self, token: int) -> None:
        """Go on with a token that the mask allows."""
        self.left -= 1
        if token in self.constraint.vocabulary.stop_ids:
            self.is_done = True
            return
        threads: list[Thread] = []
        for thread, options in self._threads:
            if options[token] if isinstance(options, np.ndarray) else token in options:
                threads += thread.step(token, self.left)
        assert threads, f"token {token} is not allowed here"
        self._move(threads)


@lru_cache(maxsize=256)
def constraint_of(spec: GrammarSpec, vocabulary: Vocabulary) -> Constraint:
    """The constraint of a form, built once."""
    return Constraint(spec, vocabulary)
