"""Which characters of an answer each of its tokens wrote, for any tokenizer that can decode."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scenerl.answers.locate import Span

MAX_PREFIXES = 2048
"""Tokens of an answer that are aligned by decoding every prefix, which takes quadratic time."""
_MAX_GROUP = 8
"""Tokens of a damaged character that are tried for an end one by one; UTF-8 needs four at most."""
_INCOMPLETE = "\ufffd"
_DAMAGED = _INCOMPLETE.encode()


class TokenAligner:
    """Aligns tokens with the text that a tokenizer makes of them.

    Usually every token has its own text, and these texts in a row are the answer. Tokens that hold a part of a
    character are taken together until the character is whole, and each of them counts as having written all of that.
    Where the texts in a row are not the answer (some tokenizers tidy up white space), prefixes of growing length are
    decoded, and a token wrote what they have in common with the answer beyond the prefix before.

    Args:
        decode: token ids to text, special tokens left out.
        special_ids: of the tokens that leave no text.
    """

    def __init__(self, decode: Callable[[list[int]], str], special_ids: Sequence[int] = ()):
        self._decode = decode
        self._special = frozenset(special_ids)
        self._texts: dict[int, str] = {}  # at most one entry for each token of the vocabulary

    def spans(self, ids: Sequence[int], text: str) -> tuple[Span, ...] | None:
        """The characters [start, end) of ``text`` that each token wrote.

        Args:
            ids: the answer's tokens. text: what ``decode`` makes of all of them.

        Returns:
            A span for each token, empty for one that wrote nothing, as special tokens do; starts and ends of the others
            never fall. None where the tokens cannot be found in the text.
        """
        visible = [token for token in ids if token not in self._special]
        found = self._by_pieces(visible, text)
        if found is None:
            found = self._by_prefixes(visible, text)
        if found is None:
            return None
        spans, place, rest = [], 0, iter(found)
        for token in ids:
            span = (place, place) if token in self._special else next(rest)
            spans.append(span)
            place = span[0] if token in self._special else span[1]
        return tuple(spans)

    def _by_pieces(self, ids: list[int], text: str) -> list[Span] | None:
        spans: list[Span] = []
        start = index = 0
        while index < len(ids):
            piece = self._text(ids[index])
            count = 1
            if _INCOMPLETE in piece:
                piece, count = self._whole(ids, index)
            if not text.startswith(piece, start):
                return None
            spans += [(start, start + len(piece))] * count
            start += len(piece)
            index += count
        return spans if start == len(text) else None

    def _whole(self, ids: list[int], index: int) -> tuple[str, int]:
        """The text of the tokens from ``index`` on up to where a character ends, and how many they are."""
        for count in range(1, min(_MAX_GROUP, len(ids) - index) + 1):
            piece = self._decode(ids[index : index + count])
            if not piece.endswith(_INCOMPLETE):
                return piece, count
        end = index
        while end < len(ids) and _INCOMPLETE in self._text(ids[end]):
            end += 1
        return self._decode(ids[index:end]), end - index

    def _by_prefixes(self, ids: list[int], text: str) -> list[Span] | None:
        if not ids or len(ids) > MAX_PREFIXES:
            return None
        ends = []
        end = 0
        for count in range(1, len(ids) + 1):
            prefix = self._decode(ids[:count])
            while end < min(len(prefix), len(text)) and prefix[end] == text[end]:
                end += 1
            ends.append(end)
        if end != len(text):
            return None
        # a token that finished no character shares the next one that is finished
        spans: list[Span] = []
        after = len(text)
        for start, end in zip(reversed([0, *ends[:-1]]), reversed(ends), strict=True):
            after = end if end > start else after
            spans.append((start, after))
        return spans[::-1]

    def _text(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = self._decode([token])
        return self._texts[token]


def spans_of_bytes(pieces: Sequence[bytes], text: str) -> tuple[Span, ...] | None:
    """The characters [start, end) of ``text`` that each token wrote, from the bytes that each is said to be.

    A token that wrote a part of a character counts as having written all of it. Servers give such a token no bytes and
    the whole character to the token that finished it, and no token the sign for damaged characters. A token that is not
    in the text, as special ones are, gets an empty span.

    Returns:
        None where the bytes do not make the text.

    >>> spans_of_bytes([b"dog", b" 4", b"<|im_end|>"], "dog 4")
    ((0, 3), (3, 5), (5, 5))
    """
    data = text.encode("utf-8", "replace")
    found: list[Span] = []
    place = waiting = 0
    for piece in pieces:
        start = place
        while not data.startswith(piece, start) and data.startswith(_DAMAGED, start):
            start += len(_DAMAGED)
        if not piece:
            waiting += 1
        elif data.startswith(piece, start):
            end = start + len(piece)
            found += [(place, end)] * waiting + [(start, end)]
            place, waiting = end, 0
        else:
            found += [(place, place)] * (waiting + 1)
            waiting = 0
    found += [(place, len(data))] * waiting
    if data[place:].replace(_DAMAGED, b""):
        return None
    return tuple((_characters(data, start), _characters(data, end, whole=True)) for start, end in found)


def _characters(data: bytes, end: int, whole: bool = False) -> int:
    """How many characters the first ``end`` bytes hold; one that they split counts only if ``whole``."""
    while whole and end < len(data) and data[end] & 0xC0 == 0x80:
        end += 1
    return len(data[:end].decode("utf-8", "ignore"))
