"""The tokens of a checkpoint as bytes: what each writes, how text is spelt in them, and tries of words."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product

import numpy as np

from scenerl.answers.template import TAGS
from scenerl.errors import UserError

MAX_PIECE = 64
"""Bytes of a token; constrained answers use no longer ones. Prompts that are one token are such."""
_CHECKED = 512
"""Tokens whose bytes are compared with what the tokenizer decodes them to."""
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
_BYTE_OF = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + n): byte for n, byte in enumerate(_OTHERS)}
"""The characters by which byte-level BPE, since GPT-2, writes bytes."""

_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
_OPEN = {
    "string": re.compile(rf'(?:[^"\\{_CONTROL}]|\\["\\])*+\\?'),
    "line": re.compile(rf"[^{_CONTROL}]*"),
    "reasoning": re.compile(r"(?:[^<\x00-\x08\x0b-\x1f\x7f]|<[^</at\x00-\x08\x0b-\x1f\x7f])*+<?"),
}
"""Kinds of open text: labels in JSON strings, labels in lines, and reasoning (as the grammar has it)."""


@dataclass(slots=True, eq=False)
class Trie:
    """A place in the token sequences of some words.

    Attributes:
        index: of the word that ends here; -1 for none.
        last: the largest index of a word that ends here or further on.
        depth: the most tokens that may still follow.
    """

    index: int = -1
    last: int = -1
    depth: int = 0
    children: dict[int, Trie] = field(default_factory=dict)

    def add(self, tokens: Sequence[int], index: int) -> None:
        place = self
        for count, token in enumerate(tokens):
            place.last, place.depth = max(place.last, index), max(place.depth, len(tokens) - count)
            place = place.children.setdefault(token, Trie())
        place.index, place.last = index, max(place.last, index)


class Vocabulary:
    """What a tokenizer's tokens write.

    Args:
        tokenizer: a Hugging Face tokenizer.
        size: how many logits the model has, unused ones included.
        stop_ids: tokens that end an answer.
        banned_ids: tokens that must not be sampled.

    Attributes:
        pieces: the bytes of each token; empty for tokens that no answer may hold.

    Raises:
        UserError: the tokenizer's tokens are not bytes, as those of byte-level BPE are.
    """

    def __init__(self, tokenizer, size: int, stop_ids: Collection[int], banned_ids: Collection[int] = ()):
        self._tokenizer = tokenizer
        self.size = size
        self.stop_ids = sorted(stop_ids)
        added = tokenizer.added_tokens_decoder
        special = (number for number, token in added.items() if token.special)
        unusable = {*self.stop_ids, *banned_ids, *special, *tokenizer.all_special_ids}
        self.pieces = [b""] * size
        for token, number in tokenizer.get_vocab().items():
            piece = token.encode() if number in added else _as_bytes(token, number)
            if number < size and number not in unusable and len(piece) <= MAX_PIECE:
                self.pieces[number] = piece
        self._check(added)
        if {bytes((byte,)) for byte in range(256)} - set(self.pieces):
            # a character that was begun could then not always be finished
            self.pieces = [piece if _is_whole(piece) else b"" for piece in self.pieces]
        self.num_characters = np.array([num_characters(piece) for piece in self.pieces])
        self.closing_tags = [number for number, piece in enumerate(self.pieces) if b">" in piece]
        self._number_of = {piece: number for number, piece in reversed([*enumerate(self.pieces)]) if piece}
        self._sorted = sorted(self._number_of)
        self._longest = max(map(len, self._sorted), default=0)
        self.spell = lru_cache(maxsize=1 << 16)(self._spell)
        self.trie = lru_cache(maxsize=512)(self._trie)
        self.plain = lru_cache(maxsize=512)(self._plain)
        self.joined = lru_cache(maxsize=512)(self._joined)

    @classmethod
    def of(cls, checkpoint, stop_ids: Collection[int]) -> Vocabulary:
        """That of a :class:`scenerl.models.loading.Checkpoint`."""
        size = checkpoint.model.config.get_text_config().vocab_size
        return cls(checkpoint.processor.tokenizer, size, stop_ids, checkpoint.banned_ids)

    def _check(self, added: Collection[int]) -> None:
        for number in {*range(0, self.size, max(1, self.size // _CHECKED)), *added}:
            piece = self.pieces[number] if number < self.size else b""
            if not piece or not _is_whole(piece):
                continue
            alone = self._tokenizer.decode([number], skip_special_tokens=True)
            if alone != piece.decode():
                raise _not_bytes(number, piece.decode(), alone)

    def _spell(self, text: str) -> tuple[int, ...]:
        """The tokens of a text by itself: the tokenizer's own where they write just that, else the fewest."""
        tokens = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        data = text.encode()
        pieces = [self.pieces[token] for token in tokens]
        return tuple(tokens) if all(pieces) and b"".join(pieces) == data else self._fewest(data)

    def _fewest(self, data: bytes) -> tuple[int, ...]:
        best: list[tuple[int, ...] | None] = [()] + [None] * len(data)
        for end in range(1, len(data) + 1):
            for start in range(max(0, end - self._longest), end):
                token = self._number_of.get(data[start:end])
                before = best[start]
                if token is None or before is None:
                    continue
                if best[end] is None or len(before) + 1 < len(best[end]):
                    best[end] = (*before, token)
        if best[-1] is None:
            raise UserError(f"constrain: the tokenizer cannot write {data.decode()!r}, so no answer can hold it")
        return best[-1]

    def spell_bytes(self, data: bytes) -> tuple[int, ...]:
        """The fewest tokens for bytes that may begin within a character."""
        return self.spell(data.decode()) if _is_whole(data) else self._fewest(data)

    def _trie(self, lead: str, words: tuple[str, ...], ends: tuple[str, ...] = ("",)) -> Trie:
        """The words as tokens, each spelt together with the forced text before it, and with each end in turn."""
        root = Trie()
        for index, (end, word) in enumerate(product(ends, words)):
            tokens = self.spell(lead + word)
            if end:
                apart = (*tokens, *self.spell(end))
                tokens = min(self.spell(lead + word + end), apart, key=len)  # no longer than is reckoned with
            root.add(tokens, index)
        return root

    def _plain(self, kind: str, carry: bytes) -> np.ndarray:
        """(V) bool: the tokens that go on with open text, behind the bytes of :func:`carry_of`."""
        if carry == b"\\":
            first = b'"\\'
        else:
            first = range(0x80, 0xC0) if carry > b"\x7f" else range(256)
        return np.array(
            [bool(piece) and piece[0] in first and is_open_text(kind, carry + piece) for piece in self.pieces]
        )

    def _joined(self, kind: str, lead: bytes) -> tuple[int, ...]:
        """The tokens that write forced text and go on with open text."""
        start = bisect_left(self._sorted, lead + b"\x00")
        found = []
        for piece in self._sorted[start:]:
            if not piece.startswith(lead):
                break
            if is_open_text(kind, piece[len(lead) :]):
                found.append(self._number_of[piece])
        return tuple(found)

    def require(self, words: Iterable[str]) -> None:
        """Raise UserError for the first word that the tokenizer cannot write."""
        for word in words:
            self.spell(word)


def _as_bytes(token: str, number: int) -> bytes:
    try:
        return bytes(map(_BYTE_OF.__getitem__, token))
    except KeyError:
        raise _not_bytes(number, token, "other text") from None


def _not_bytes(number: int, token: str, alone: str) -> UserError:
    return UserError(
        f"constrain: token {number} of this tokenizer is {token!r} but decodes to {alone!r}; only tokenizers whose "
        "tokens are bytes (byte-level BPE) can be constrained"
    )


def _is_whole(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def num_characters(data: bytes) -> int:
    """Characters that begin in some bytes."""
    return sum(byte & 0xC0 != 0x80 for byte in data)


def is_open_text(kind: str, data: bytes) -> bool:
    """Whether open text may begin so; its last character may be unfinished."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return False
        text = data[: error.start].decode()
    return _OPEN[kind].fullmatch(text) is not None and not any(tag in text for tag in TAGS)


def carry_of(kind: str, data: bytes) -> bytes:
    """The end of open text that decides what may follow: an unfinished character, a backslash, a ``<``."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return data[error.start :]
    if kind == "string" and (len(data) - len(data.rstrip(b"\\"))) % 2:
        return b"\\"
    return b"<" if kind == "reasoning" and data.endswith(b"<") else b""


@lru_cache(maxsize=4096)
def finished(kind: str, carry: bytes) -> bytes:
    """The fewest bytes after which :func:`carry_of` is empty: they finish a character or an escape."""
    if not carry:
        return b""
    if carry in (b"\\", b"<"):
        return b"\\" if carry == b"\\" else b" "
    for byte in (0xA1, 0x91, 0x81):
        longer = carry + bytes((byte,))
        if is_open_text(kind, longer):
            return bytes((byte,)) + finished(kind, carry_of(kind, longer))
    raise AssertionError(f"{carry!r} begins no character")
