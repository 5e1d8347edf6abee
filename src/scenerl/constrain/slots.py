"""The parts of a template: slots that the model fills, and links of forced text between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from scenerl.constrain.memory import Memory

MAX_TEXT = 240
"""Characters of open text, less than the parser's bound by what may have to be added at its end."""


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """What may stand behind a slot.

    Attributes:
        next: the slot that follows; None at the end of the answer.
        text: forced text, spelt by itself; may depend on the memory.
        lead: forced text that is spelt together with the first word of the next slot.
        when: what it does to the memory; None where the link is closed.
    """

    next: Words | OpenText | None
    text: str | Callable[[Memory], str] = ""
    lead: str = ""
    when: Callable[[Memory], Memory | None] = lambda memory: memory

    def forced(self, memory: Memory) -> str:
        return self.text if isinstance(self.text, str) else self.text(memory)


@dataclass(slots=True, eq=False)
class Words:
    """A choice of words.

    Attributes:
        words: those that may be written.
        finish: the memory after the word of this index.
        bound: the index that the word's must exceed.
        is_joint: the words are spelt together with the forced text of the links behind them.
        all_words: a superset of ``words`` that is known when the element is opened; None: the same.
        links: the last is the shortest way to the end of the answer.
    """

    words: Callable[[Memory], tuple[str, ...]]
    finish: Callable[[Memory, int, str], Memory]
    bound: Callable[[Memory], int] = lambda memory: -1
    all_words: Callable[[Memory], tuple[str, ...]] | None = None
    is_joint: bool = False
    links: list[Link] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class OpenText:
    """Text that ends where the model begins a link.

    Attributes:
        kind: which characters it holds, see :mod:`scenerl.constrain.vocabulary`.
        finish: the memory after the text; None where it may not end so.
        endings: what may be added so that it may end, the shortest first.
        reserve: tokens that the shortest ending takes at most.
        links: the last is the shortest way to the end of the answer.
    """

    kind: str
    finish: Callable[[Memory, str], Memory | None]
    endings: Callable[[Memory], Iterable[str]]
    reserve: int
    links: list[Link] = field(default_factory=list)
