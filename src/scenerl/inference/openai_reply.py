"""What a server with OpenAI's API answers, made into replies. It comes from outside, so nothing in it is believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scenerl.answers.locate import Span
from scenerl.inference.alignment import TokenAligner
from scenerl.inference.engine import Reply, Unanswered
from scenerl.inference.openai_client import Unreadable

_DAMAGED = "\ufffd".encode()


def read_replies(answer: dict, count: int, logprobs: bool, aligner: TokenAligner | None = None) -> list[Reply]:
    """The answers in a chat completion, in order.

    The token that ended an answer is not counted where the server tells the tokens apart; where it only gives their
    number, it is among them, and of several answers, or without a number, 0 stands for it.

    Args:
        count: how many were asked for; further ones are dropped.
        logprobs: they were asked for, and a reply without them is none.
        aligner: of the served model, for servers that give the ids of tokens; they know best who wrote what.

    Raises:
        Unreadable: what is missing or of another kind; or an answer that ended for another reason than its end or the
            token limit.
        Unanswered: the server took a thought out of the answer, and will do so again.
    """
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise Unreadable("an answer without choices")
    if all(type(choice.get("index")) is int for choice in choices):
        choices = sorted(choices, key=lambda choice: choice["index"])
    if len(choices) < count:
        raise Unreadable(f"{len(choices)} answers in place of {count}")
    usage = answer.get("usage")
    total = usage.get("completion_tokens") if isinstance(usage, dict) and len(choices) == 1 else None
    return [_reply(choice, total, logprobs, aligner) for choice in choices[:count]]


def tells_lengths(answer: dict, count: int) -> bool:
    """Whether so many answers are in a chat completion, each with its tokens."""
    choices = answer.get("choices")
    return (
        isinstance(choices, list)
        and len(choices) >= count
        and all(isinstance(choice, dict) and (choice.get("token_ids") or choice.get("logprobs")) for choice in choices)
    )


def prompt_tokens(answer: dict) -> list[int] | int | None:
    """The tokens that the server read, image included, or else their number; None where it does not say."""
    if (ids := _ids(answer.get("prompt_token_ids"))) is not None:
        return ids
    usage = answer.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if type(count) is int else None


def _reply(choice: dict, total: object, logprobs: bool, aligner: TokenAligner | None) -> Reply:
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    text = "" if text is None and isinstance(message, dict) else text
    if not isinstance(text, str):
        raise Unreadable("an answer without text")
    if message.get("reasoning_content") or message.get("reasoning"):
        raise Unanswered("the server keeps thoughts apart from answers; start it without a reasoning parser")
    ended = choice.get("finish_reason")
    if ended not in ("stop", "length"):
        raise Unreadable(f"an answer that was ended by {ended!r:.80}")
    ids = _ids(choice.get("token_ids"))
    if ids is not None and ended == "stop":
        ids = ids[:-1]  # the one that ended the answer
    known = type(total) is int and total >= 0
    reply = Reply(text, len(ids) if ids is not None else total if known else 0, ended)
    if not logprobs:
        return reply
    pieces, values = _tokens(choice.get("logprobs"))
    spans = None
    if ids is not None:
        pieces, values = pieces[: len(ids)], values[: len(ids)]
        spans = aligner.spans(ids, text) if aligner and len(ids) == len(values) else None
    spans = spans_of(pieces, text) if spans is None else spans
    if ids is None and ended == "stop" and spans and spans[-1][0] == spans[-1][1]:
        values, spans = values[:-1], spans[:-1]
    return replace(reply, num_tokens=len(values), logprobs=tuple(values), spans=spans)


def _ids(found: object) -> list[int] | None:
    return found if isinstance(found, list) and found and all(type(token) is int for token in found) else None


def _tokens(found: object) -> tuple[list[bytes], list[float]]:
    """The bytes and the log-probability of each token."""
    content = found.get("content") if isinstance(found, dict) else None
    if not isinstance(content, list):
        raise Unreadable("an answer without log-probabilities")
    pieces, values = [], []
    for token in content:
        piece, value = (token.get("bytes"), token.get("logprob")) if isinstance(token, dict) else (None, None)
        if piece is None and isinstance(token, dict):
            piece = list(str(token.get("token", "")).encode("utf-8", "replace"))
        if not isinstance(piece, list):
            raise Unreadable("a token without text")
        try:
            pieces.append(bytes(piece))
            values.append(float(value))
        except (TypeError, ValueError, OverflowError) as error:
            raise Unreadable(f"a token with unreadable log-probability or bytes ({error})") from error
    return pieces, values


def spans_of(pieces: Sequence[bytes], text: str) -> tuple[Span, ...] | None:
    """The characters [start, end) of ``text`` that each token wrote, from the bytes that each is said to be.

    A token that wrote a part of a character counts as having written all of it. Servers give such a token no bytes and
    the whole character to the token that finished it, and no token the sign for damaged characters. A token that is not
    in the text, as special ones are, gets an empty span.

    Returns:
        None where the bytes do not make the text.

    >>> spans_of([b"dog", b" 4", b"<|im_end|>"], "dog 4")
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
    """How many characters the first ``end`` bytes hold; one that they cut in two counts only if ``whole``."""
    while whole and end < len(data) and data[end] & 0xC0 == 0x80:
        end += 1
    return len(data[:end].decode("utf-8", "ignore"))
