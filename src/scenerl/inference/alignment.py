"""Which characters of an answer each of its tokens wrote."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from scenerl.answers.locate import Span

MAX_DAMAGE = 64
"""Tokens in a row that make no whole character; the work grows with the square of their number."""
_DAMAGED = "\ufffd".encode()


def spans_of_tokens(
    tokenizer: Tokenizer, ids: Sequence[int], text: str, special_ids: Collection[int] = ()
) -> tuple[Span, ...] | None:
    """The characters [start, end) of ``text`` that each token wrote.

    Tokens that hold a part of a character are taken together until the character is whole, and each of them counts as
    having written all of that.

    Args:
        text: what the tokenizer makes of all tokens, special ones left out.
        special_ids: tokens that leave no text.

    Returns:
        A span for each token, empty for special ones; starts and ends of the others never fall. None where the tokens
        are not found in the text or cannot be decoded one by one, or more than :data:`MAX_DAMAGE` in a row make no
        whole character.
    """
    stream = DecodeStream(skip_special_tokens=True)
    spans: list[Span] = []
    waiting: list[int] = []  # tokens whose character is not whole yet
    place = 0
    for token in ids:
        if token in special_ids:
            spans.append((place, place))
            continue
        waiting.append(len(spans))
        spans.append((place, len(text)))
        try:
            piece = stream.step(tokenizer, token)
        except Exception as error:
            if type(error) is not Exception:  # tokenizers has no narrower type for tokens that it cannot put together
                raise
            return None
        if piece is not None:
            if not text.startswith(piece, place):
                return None
            for index in waiting:
                spans[index] = (place, place + len(piece))
            place += len(piece)
            waiting.clear()
        elif len(waiting) > MAX_DAMAGE:
            return None
    return tuple(spans) if waiting or place == len(text) else None


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
