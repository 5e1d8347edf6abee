"""Which tokens an answer may go on with, as masks over the vocabulary.

xgrammar says once for every place of the automaton which tokens the grammar allows there. These are walked through the
automaton, and what was found is kept: tokens that are always allowed, and those that are under some condition. A step
then copies a mask and asks a few conditions of the memory; in plain text nothing is asked. Only where the token limit
is near, every token that is left is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from scenerl.answers.grammar import GrammarSpec, build_grammar
from scenerl.decoding.automaton import Automaton
from scenerl.decoding.conditions import Conditions, Facts
from scenerl.decoding.nodes import Node, State, walk
from scenerl.decoding.texts import MAX_SUFFIX
from scenerl.decoding.trial import TooHard, Trial
from scenerl.decoding.vocabulary import Vocabulary
from scenerl.errors import UserError


@dataclass(slots=True)
class _Place:
    """What is known of the tokens at one place of the automaton.

    Attributes:
        allowed: (V) bool, the tokens that pass, those under conditions included.
        bounded: for x1 and for y1 (2, N): bounds below which it must be, the smallest first, and tokens that then pass.
        conditions: under which some of them do.
        hard: tokens that are walked through the memory each time.
        free: (V) bool, the tokens that leave the place as it is; None where there are none.
    """

    allowed: np.ndarray
    bounded: list[np.ndarray]
    conditions: Conditions | None
    hard: list[int]
    free: np.ndarray | None


class Constraint:
    """The tokens that an answer of one shape may hold.

    Raises:
        UserError: no answer of this shape can be written with these tokens.
    """

    def __init__(self, shape: GrammarSpec, vocabulary: Vocabulary):
        self.automaton = Automaton(shape)
        self.vocabulary = vocabulary
        self.grammar = build_grammar(shape.output_format, shape.bounds_wh)
        self._places: dict[tuple[Node, tuple], _Place] = {}
        self._costs: dict[tuple, int] = {}
        words = self.automaton.words
        vocabulary.require([*words, self.automaton.example])
        self.least = self.cost(self.automaton.start)
        longest = max((len(vocabulary.spell(word)) for word in words), default=0)
        self._element = max(map(self.cost, self.automaton.examples())) + longest + MAX_SUFFIX
        self._names = lru_cache(maxsize=256)(self._longest_name)

    def require(self, limit: int) -> None:
        """Raise ValueError where not even the smallest answer fits into so many tokens."""
        if self.least > limit:
            raise UserError(
                f"constrain: the smallest answer takes {self.least} tokens, but the limit is {limit}; raise it"
            )

    def plan(self, state: State) -> list[int]:
        """The tokens of a short end of the answer; the one that stops it is not among them."""
        return [token for chunk in self.automaton.rest(state) for token in self.vocabulary.spell(chunk)]

    def cost(self, state: State) -> int:
        """How many tokens end the answer, the one that stops it included."""
        node, inner, memory = state
        context = node.context(memory)
        if context is None:
            return self._cost(self.automaton.rest(state))
        key = node, inner, context
        if key not in self._costs:
            self._costs[key] = self._cost(self.automaton.rest(state))
        return self._costs[key]

    def _cost(self, chunks: Iterable[bytes]) -> int:
        return 1 + sum(len(self.vocabulary.spell(chunk)) for chunk in chunks)

    def _longest_name(self, ids: tuple[bytes, ...]) -> int:
        """Tokens of the name that takes most, some for its spelling in parts included."""
        return max((len(self.vocabulary.spell(name)) for name in ids), default=0) + 2

    def most(self, state: State) -> int:
        """No state that a token leads to takes more tokens to end; tokens that are walked each time aside."""
        return self._element + 2 * self._names(state[2].ids)

    def mask(self, state: State, row: Row, left: int) -> np.ndarray:
        """Which tokens may follow, (V) bool, so that the answer can end within ``left`` more; the caller's own."""
        node, inner, memory = state
        if node.is_full(inner):
            return self._full(state, left)
        place = self._place(node, inner, row)
        mask = place.allowed.copy()
        if place.conditions is not None:
            place.conditions.apply(mask, Facts(memory), lambda tokens: self._walk_each(mask, state, tokens, left))
        for low, (bounds, tokens) in zip(memory.box, place.bounded, strict=False):
            mask[tokens[: bounds.searchsorted(low, side="right")]] = False
        if node.has_names:
            mask[self._beginning(node.names(memory))] = True
        self._walk_each(mask, state, place.hard, left)
        if left < self.most(state):
            self._fit(mask, state, place, left)
        return mask

    def _full(self, state: State, left: int) -> np.ndarray:
        """The mask where there is no room for text: what ends the slot, and tokens that begin with its last byte."""
        node, inner, memory = state
        mask = np.zeros(self.vocabulary.size, dtype=bool)
        tokens = {*self._beginning(node.endings(inner, memory)), *self.vocabulary.beginning_with(node.leave)}
        self._walk_each(mask, state, tokens, left)
        return mask

    def _beginning(self, texts: Iterable[bytes]) -> list[int]:
        """The tokens that one of these texts begins with."""
        found, lookup = [], self.vocabulary.lookup
        for text in texts:
            for end in range(1, len(text) + 1):
                found += lookup.get(text[:end], ())
        return found

    def _walk_each(self, mask: np.ndarray, state: State, tokens: Iterable[int], left: int) -> None:
        """Set the mask for tokens of which nothing is known."""
        for token in tokens:
            after = walk(state, self.vocabulary.pieces[token])
            mask[token] = after is not None and self.cost(after) <= left

    def _fit(self, mask: np.ndarray, state: State, place: _Place, left: int) -> None:
        """Take out the tokens after which the answer could not end in time."""
        if place.free is not None:
            mask &= ~place.free
        self._walk_each(mask, state, mask.nonzero()[0].tolist(), left)
        if place.free is not None and self._cost_behind_text(state) <= left:
            mask |= place.free

    def _cost_behind_text(self, state: State) -> int:
        """At most so many tokens end the answer after any more text in an open slot."""
        node, inner, memory = state
        suffix, chunks = node.parted_rest(inner, memory)
        return self._cost([node.longest_suffix, chunks[0][len(suffix) :], *chunks[1:]]) + self._names(memory.ids)

    def _place(self, node: Node, inner: tuple, row: Row) -> _Place:
        key = node, node.key(inner)
        if key not in self._places:
            self._places[key] = self._look(*key, row)
        return self._places[key]

    def _look(self, node: Node, inner: tuple, row: Row) -> _Place:
        pieces = self.vocabulary.pieces
        candidates = np.zeros(self.vocabulary.size, dtype=bool) if node.has_names else row.candidates()
        if node.leaves_by_text:
            candidates |= self.vocabulary.having(node.leave, lambda piece: node.leave in piece)
        allowed, free = np.zeros(self.vocabulary.size, dtype=bool), None
        if room := node.free_room(inner):
            plain = self.vocabulary.having(type(node), node.is_plain)
            free = candidates & plain & (self.vocabulary.num_characters <= room)
            allowed |= free
            candidates = candidates & ~free
        groups: dict[tuple, list[int]] = {}
        bounded: list[list[tuple[int, int]]] = [[], []]
        hard: list[int] = []
        for token in candidates.nonzero()[0].tolist():
            try:
                state = walk((node, inner, Trial()), pieces[token])
            except TooHard:
                hard.append(token)
                continue
            if state is None:
                continue
            allowed[token] = True
            trial = state[2]
            if trial.conditions:
                groups.setdefault(trial.conditions, []).append(token)
            for bound, column in zip(trial.bounds, bounded, strict=True):
                if bound is not None:
                    column.append((bound, token))
        return _Place(
            allowed,
            [np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T for pairs in bounded],
            Conditions(groups) if groups else None,
            hard,
            free,
        )


class Row:
    """One answer that is being written, of at most ``limit`` tokens.

    Raises:
        UserError: not even the smallest answer fits the limit.
    """

    def __init__(self, constraint: Constraint, limit: int):
        constraint.require(limit)
        self.constraint, self.left = constraint, limit
        self.state = constraint.automaton.start
        self.is_done = False
        self._plan: list[int] | None = None
        self._matcher = constraint.vocabulary.matcher(constraint.grammar)
        self._unmatched: list[int] = []

    def copy(self) -> Row:
        row = object.__new__(Row)
        row.__dict__.update(self.__dict__)
        row._matcher, row._unmatched = self._matcher.copy(), list(self._unmatched)
        return row

    def candidates(self) -> np.ndarray:
        tokens, self._unmatched = self._unmatched, []
        return self._matcher.candidates(tokens)

    def mask(self) -> np.ndarray:
        """Which tokens may follow, (V) bool."""
        constraint = self.constraint
        left = self.left - 1
        if self._plan is None and left < constraint.most(self.state):
            self._plan = constraint.plan(self.state)
        mask = constraint.mask(self.state, self, left)
        if self._plan is not None:
            assert len(self._plan) < self.left, "an answer that cannot end in time"
            mask[self._plan[:1]] = True
        if constraint.automaton.is_end(self.state):
            mask[constraint.vocabulary.stop_ids] = True
        return mask

    def take(self, token: int) -> None:
        """Go on with a token that the mask allows."""
        self.left -= 1
        if token in self.constraint.vocabulary.stop_ids:
            self.is_done = True
            return
        self._unmatched.append(token)
        self.state = walk(self.state, self.constraint.vocabulary.pieces[token])
        assert self.state is not None, f"token {token} is not allowed here"
        if self._plan is not None:
            planned = self._plan[1:] if self._plan[0:1] == [token] else None
            anew = self.constraint.plan(self.state)
            self._plan = planned if planned is not None and len(planned) < len(anew) else anew


@lru_cache(maxsize=256)
def constraint_of(shape: GrammarSpec, vocabulary: Vocabulary) -> Constraint:
    """The constraint of a shape, built once."""
    return Constraint(shape, vocabulary)
