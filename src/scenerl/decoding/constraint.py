"""Which tokens an answer may go on with, as masks over the vocabulary.

xgrammar says once for every place of the automaton which tokens the grammar allows there. These are walked through the
automaton, and what was found is kept: tokens that are always allowed, and those that are under some condition. A step
then copies a mask and asks a few conditions of the memory; in plain text nothing is asked. Only where the token limit
is near, every token that is left is looked at by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from scenerl.answers.grammar import MAX_ID_DIGITS, AnswerShape, build_grammar
from scenerl.decoding.automaton import Automaton
from scenerl.decoding.memory import TooHard, Trial
from scenerl.decoding.nodes import Node, State
from scenerl.decoding.texts import OpenText, Reference
from scenerl.decoding.vocabulary import MAX_PIECE, Vocabulary

_SLACK = 40
"""Tokens that what is begun of a mark, a number or a word may take beyond the shortest element."""


@dataclass(slots=True)
class _Place:
    """What is known of the tokens at one place of the automaton.

    Attributes:
        allowed: (V) bool, the tokens that pass, those under conditions included.
        bounded: tokens that pass where x1 and y1 are below the two columns of ``bounds``.
        groups: conditions with the tokens that pass where they hold.
        hard: tokens that are walked through the memory each time.
        free: (V) bool, the tokens that leave the place as it is; None where there are none.
    """

    allowed: np.ndarray
    bounded: np.ndarray
    bounds: np.ndarray
    groups: list[tuple[tuple, np.ndarray]]
    hard: list[int]
    free: np.ndarray | None


class Constraint:
    """The tokens that an answer of one shape may hold.

    Raises:
        ValueError: no answer of this shape can be written with these tokens.
    """

    def __init__(self, shape: AnswerShape, vocabulary: Vocabulary):
        self.automaton = Automaton(shape)
        self.vocabulary = vocabulary
        self.grammar = build_grammar(shape.style, shape.bounds_wh)
        self._places: dict[tuple[Node, tuple], _Place] = {}
        vocabulary.require([self.automaton.example, *self.automaton.words])
        self.least = self.cost(self.automaton.start)
        self._element = max(map(self.cost, self.automaton.examples())) + _SLACK
        # the longest name that a token can leave behind, twice in a relation
        self._name = 0 if shape.style.objects is None else max(map(len, self.automaton.words)) + MAX_ID_DIGITS + 1

    def require(self, limit: int) -> None:
        """Raise ValueError where not even the smallest answer fits into so many tokens."""
        if self.least > limit:
            raise ValueError(
                f"constrain: the smallest answer takes {self.least} tokens, but the limit is {limit}; raise it"
            )

    def plan(self, state: State) -> list[int]:
        """The tokens of a short end of the answer; the one that stops it is not among them."""
        return [token for chunk in self.automaton.rest(state) for token in self.vocabulary.spell(chunk)]

    def cost(self, state: State) -> int:
        """How many tokens end the answer, the one that stops it included."""
        return 1 + sum(len(self.vocabulary.spell(chunk)) for chunk in self.automaton.rest(state))

    def most(self, state: State) -> int:
        """No state that a token leads to takes more tokens to end."""
        memory = state[2]
        name = self._name or max(max(map(len, memory.ids), default=0), len(memory.text) + MAX_PIECE)
        return self._element + 2 * name

    def allowed(self, state: State, row: Row) -> np.ndarray:
        """Which tokens may follow, (V) bool, whatever the token limit; a mask of the caller's own."""
        node, inner, memory = state
        if isinstance(node, OpenText) and inner[3] <= 0:
            return self._walked(state, self.vocabulary.having("any", bool).nonzero()[0])
        place = self._place(node, inner, row)
        mask = place.allowed.copy()
        if len(place.bounded):
            x1, y1 = (*memory.box, -1, -1)[:2]
            mask[place.bounded[(place.bounds[:, 0] <= x1) | (place.bounds[:, 1] <= y1)]] = False
        for conditions, tokens in place.groups:
            if not all(map(memory.holds, conditions)):
                mask[tokens] = False
        for token in place.hard:
            mask[token] = self.automaton.walk(state, self.vocabulary.pieces[token]) is not None
        if isinstance(node, Reference):
            for rest in node.names(memory):
                for end in range(1, len(rest) + 1):
                    mask[self.vocabulary.lookup.get(rest[:end], [])] = True
        return mask

    def _walked(self, state: State, tokens) -> np.ndarray:
        mask = np.zeros(self.vocabulary.size, dtype=bool)
        mask[[t for t in tokens if self.automaton.walk(state, self.vocabulary.pieces[t]) is not None]] = True
        return mask

    def fitting(self, state: State, row: Row, left: int) -> np.ndarray:
        """Of the tokens that may follow, those after which the answer can end within ``left`` tokens."""
        mask = self.allowed(state, row)
        node, inner, memory = state
        place = None if isinstance(node, OpenText) and inner[3] <= 0 else self._place(node, inner, row)
        tokens = mask.nonzero()[0]
        if place is not None and place.free is not None:
            longest = max(map(len, memory.ids), default=0)
            mask &= ~place.free
            tokens = mask.nonzero()[0]
            if self.cost(state) + 8 + longest <= left:
                mask |= place.free & self.vocabulary.is_usable
        for token in tokens:
            after = self.automaton.walk(state, self.vocabulary.pieces[token])
            mask[token] = self.cost(after) <= left
        return mask

    def _place(self, node: Node, inner: tuple, row: Row) -> _Place:
        key = node, node.key(inner)
        if key not in self._places:
            self._places[key] = self._look(*key, row)
        return self._places[key]

    def _look(self, node: Node, inner: tuple, row: Row) -> _Place:
        pieces = self.vocabulary.pieces
        if isinstance(node, Reference):  # what stands before the quote is looked up when it is known
            candidates = self.vocabulary.having("quote", lambda piece: b'"' in piece)
        else:
            candidates = row.candidates()
        allowed, free = np.zeros(self.vocabulary.size, dtype=bool), None
        if node.is_free(inner):
            free = candidates & self.vocabulary.having(type(node), node.is_plain)
            allowed |= free
            candidates = candidates & ~free
        groups: dict[tuple, list[int]] = {}
        bounded: list[tuple[int, float, float]] = []
        hard: list[int] = []
        for token in candidates.nonzero()[0].tolist():
            try:
                state = self.automaton.walk((node, inner, Trial()), pieces[token])
            except TooHard:
                hard.append(token)
                continue
            if state is None:
                continue
            allowed[token] = True
            trial = state[2]
            if trial.conditions:
                groups.setdefault(trial.conditions, []).append(token)
            if trial.bounds != (None, None):
                bounded.append((token, *(np.inf if bound is None else bound for bound in trial.bounds)))
        return _Place(
            allowed,
            np.array([row[0] for row in bounded], dtype=np.int64),
            np.array([row[1:] for row in bounded]).reshape(-1, 2),
            [(conditions, np.array(tokens)) for conditions, tokens in groups.items()],
            hard,
            free,
        )


class Row:
    """One answer that is being written, of at most ``limit`` tokens.

    Raises:
        ValueError: not even the smallest answer fits the limit.
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
        if left >= constraint.most(self.state):
            mask = constraint.allowed(self.state, self)
        else:
            self._plan = self._plan or constraint.plan(self.state)
            assert len(self._plan) < self.left, "an answer that cannot end in time"
            mask = constraint.fitting(self.state, self, left)
            if self._plan:
                mask[self._plan[0]] = True
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
        self.state = self.constraint.automaton.walk(self.state, self.constraint.vocabulary.pieces[token])
        assert self.state is not None, f"token {token} is not allowed here"
        if self._plan is not None:
            planned = self._plan[1:] if self._plan[0:1] == [token] else None
            anew = self.constraint.plan(self.state)
            self._plan = planned if planned is not None and len(planned) < len(anew) else anew


@lru_cache(maxsize=256)
def constraint_of(shape: AnswerShape, vocabulary: Vocabulary) -> Constraint:
    """The constraint of a shape, built once."""
    return Constraint(shape, vocabulary)
