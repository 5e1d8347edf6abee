"""Conditions of many tokens, asked of a memory at once.

Tokens at one place share what they ask first, so that conditions make a tree. Names, of which a vocabulary has as many
beginnings as tokens, are looked up from the few that the memory knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from scenerl.decoding.memory import Memory, beginnings
from scenerl.decoding.trial import Span


@dataclass(slots=True)
class _Branch:
    """Tokens under one condition, and what else they ask."""

    tokens: np.ndarray
    more: Conditions | None


@dataclass(slots=True)
class _Stem:
    """Conditions that differ in a text only: ``absolute`` by the text, ``relative`` by what follows the slot's text;
    ``alone`` is the branch of one without a text."""

    condition: tuple
    tokens: np.ndarray
    absolute: dict[bytes, _Branch]
    relative: dict[bytes, _Branch]
    alone: _Branch | None = None


class Conditions:
    """The conditions of some tokens.

    Args:
        groups: tokens by the conditions under which they pass, in the order in which they are asked.
    """

    def __init__(self, groups: dict[tuple[tuple, ...], list[int]]):
        stems: dict[tuple, dict[Span | None, dict[tuple, list[int]]]] = {}
        for (first, *others), tokens in groups.items():
            has_text = first[0] in _TEXTUAL
            stem, text = ((*first[:-2], first[-1]), first[-2]) if has_text else (first, None)
            stems.setdefault(stem, {}).setdefault(text, {})[tuple(others)] = tokens
        self._stems = [self._stem(*item) for item in stems.items()]

    @staticmethod
    def _stem(condition: tuple, by_text: dict) -> _Stem:
        stem = _Stem(condition, _all(tokens for rests in by_text.values() for tokens in rests.values()), {}, {})
        for text, rests in by_text.items():
            more = {others: tokens for others, tokens in rests.items() if others}
            branch = _Branch(_all(rests.values()), Conditions(more) if more else None)
            if text is None:
                stem.alone = branch
            else:
                (stem.relative if text[0] else stem.absolute)[text[1]] = branch
        return stem

    def apply(self, mask: np.ndarray, facts: Facts, walk: Callable[[Iterable[int]], None]) -> None:
        """Clear the mask where a condition does not hold; ``walk`` sees to tokens of which it cannot be told."""
        for stem in self._stems:
            if stem.alone is not None:
                holds = facts.hold(stem.condition)
                branches = [stem.alone]
            else:
                holds, branches = facts.fitting(stem)
            if holds is None:
                walk(stem.tokens.tolist())
                continue
            if not holds:
                mask[stem.tokens] = False
                if stem.alone is not None:
                    continue
            for branch in branches:
                if not holds:
                    mask[branch.tokens] = True
                if branch.more:
                    branch.more.apply(mask, facts, walk)


_TEXTUAL = ("subject", "predicate", "object")
"""Conditions that a text is a name or a predicate, or begins one: their last parts are the text and whether it is
whole."""


def _all(parts: Iterable[list[int]]) -> np.ndarray:
    return np.array([token for part in parts for token in part])


class Facts:
    """What a memory makes of conditions."""

    def __init__(self, memory: Memory):
        self._memory = memory
        self.text = memory.text

    def _whole(self, span: Span) -> bytes:
        return self.text + span[1] if span[0] else span[1]

    def hold(self, condition: tuple) -> bool | None:
        """Whether a condition holds; None where that cannot be told without walking the token."""
        kind, *asked = condition
        memory = self._memory
        if kind == "add":
            return memory.can_add(*asked)
        if kind == "new":
            return memory.is_new(self._whole(*asked))
        if kind == "label":
            return memory.rules.is_id(self._whole(*asked))
        if kind == "line":
            return memory.rules.is_line(self._whole(*asked))
        num_related, *asked = asked
        if kind == "relate":
            return memory.can_relate(num_related)
        subject = self._known(asked[0], memory.subject)
        return memory.tail_of(subject, self._whole(asked[1])) is not None if not num_related else None

    def fitting(self, stem: _Stem) -> tuple[bool | None, Iterable[_Branch]]:
        """Whether every text of a stem fits, or None where that cannot be told, and the branches whose text does."""
        kind, num_related, *spans, is_whole = stem.condition
        memory = self._memory
        if kind == "predicate":
            subject = self._known(spans[0], memory.subject)
            is_any_free = memory.is_any_free(num_related)
            if is_any_free and not is_whole:
                return True, [*stem.absolute.values(), *stem.relative.values()]
            if num_related and not is_any_free:
                return None, ()
            texts = [*stem.absolute.items(), *((self.text + text, branch) for text, branch in stem.relative.items())]
            return False, [branch for text, branch in texts if memory.can_say(subject, text, is_whole)]
        if num_related and (kind == "object" or not memory.is_any_free(num_related)):
            return None, ()
        if kind == "subject":
            names = memory.subjects()
        else:
            names = memory.objects_of(self._known(spans[0], memory.subject), self._known(spans[1], memory.predicate))
        found = []
        for name in names if is_whole else beginnings(names):
            if stem.absolute and name in stem.absolute:
                found.append(stem.absolute[name])
            if stem.relative and name.startswith(self.text) and name[len(self.text) :] in stem.relative:
                found.append(stem.relative[name[len(self.text) :]])
        return False, found

    def _known(self, span: Span | None, known: bytes) -> bytes:
        return known if span is None else self._whole(span)
