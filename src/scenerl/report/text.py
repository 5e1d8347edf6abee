"""Text of unknown origin made fit to be shown: nothing invisible, nothing that reorders its surroundings, bounded."""

from __future__ import annotations

import re

LABEL_LIMIT = 48
ANSWER_LIMIT = 20_000

_CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029"
_DIRECTION = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_NOTHING = "\u200b-\u200d\u2060-\u2064\ufeff\ufffe\uffff\ud800-\udfff"
_UNSHOWABLE = re.compile(f"[{_CONTROL}{_DIRECTION}{_NOTHING}]")


def _picture(match: re.Match) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return f"\u27e8U+{code:04X}\u27e9"


def visible(text: str) -> str:
    """The text with control characters, direction overrides, zero-width characters and lone surrogates spelled out.

    Tabs and line feeds stay; CR LF becomes LF.

    >>> visible("a\\x00b")
    'a\u2400b'
    """
    return _UNSHOWABLE.sub(_picture, text.replace("\r\n", "\n"))


def short(text: object, limit: int = LABEL_LIMIT) -> str:
    """One line of at most ``limit`` characters (counted before characters are spelled out); longer ends in an ellipsis.
    Values that are no text are shown as Python writes them."""
    text = text if isinstance(text, str) else repr(text)
    shown = text if len(text) <= limit else text[: limit - 1] + "\u2026"
    return visible(shown).replace("\n", "\u2424").replace("\t", " ")


def truncated(text: str, limit: int = ANSWER_LIMIT) -> tuple[str, str]:
    """The start of a long text and a note that says what is missing; the note is empty when nothing is."""
    if len(text) <= limit:
        return visible(text), ""
    return visible(text[:limit]), f"cut: the first {limit:,} of {len(text):,} characters"
