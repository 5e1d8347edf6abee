"""The name of a class where it stands before a list of its boxes, or in a sentence before a box."""

from __future__ import annotations

import re
from collections.abc import Collection

from scenerl.answers.elements import Span, clean_label

_MARKS = " \t\r\"'`*#-•,;.="
"""Characters around such a name."""
_NUMBERED = re.compile(r"^(?:[0-9]{1,4}[.)]|and )\s*")
_LINK = re.compile(
    r"\s(?:(?:is|are)\s)?(?:(?:located|found|visible|positioned|situated)\s)?(?:at|in|within)"
    r"(?:\s(?:the|a))?(?:\s(?:bounding box|box|bbox|coordinates|position|region))?:?\s?[\"'`*]{0,3}$",
    re.IGNORECASE,
)
"""What stands in a sentence between a name and its box."""
_BEFORE_NAME = re.compile(r"[.,;:!?\n]|\b(?:and|the|an?|there is|there are)\s", re.IGNORECASE)
_NEGATIONS = frozenset(("no", "not", "neither", "nor", "without"))
MAX_WORDS = 3
"""Words of such a name where any label is allowed; more are a sentence."""


def heading_before(
    body: str, start: int, end: int, names: tuple[str, ...] | None, never: Collection[str]
) -> tuple[str, Span] | None:
    """The name before a list, and where it is: what stands before the colon that ends ``body[start:end]``, without the
    marks of an enumeration around it. It is one of ``names``, or a few words where any label is allowed. One of
    ``names`` needs no colon, if it has the line for itself."""
    text = body[start:end].replace("：", ":")
    if link := _LINK.search(text):
        return _subject(text[: link.start()], start, names, never)
    head, colon, rest = text.rpartition(":")
    if not colon or rest.strip(" \t\r\n`*").lower() not in ("", "json"):
        if names is None and not (body.startswith("[[", end) and text[-1:].isalnum()):  # InternVL's dog[[…]]
            return None
        head = re.sub(r"(?:json)?[\s`=]*$", "", text)
    line = head.rpartition("\n")[2].rpartition(":")[2]
    raw = line.strip(_MARKS)
    if clean_label(raw) not in (names or ()):
        raw = _NUMBERED.sub("", raw).lstrip(_MARKS)
    name = clean_label(raw)
    if name is None:
        return None
    if name.lower() in never or len(name.split()) > MAX_WORDS if names is None else name not in names:
        return None
    first = start + len(head) - len(line) + line.rindex(raw)
    return name, (first, first + len(raw))


def _subject(text: str, start: int, names: tuple[str, ...] | None, never: Collection[str]) -> tuple[str, Span] | None:
    """The name at the end of a text, behind its last mark or article; of requested names, one that its last words are.
    ``start``: where the text begins in the answer. Otherwise as for :func:`heading_before`."""
    first = max((mark.end() for mark in _BEFORE_NAME.finditer(text)), default=0)
    words = list(re.finditer(r"\S+", text[first:]))
    if not words or words[0][0].lower() in _NEGATIONS or (names is None and len(words) > MAX_WORDS):
        return None
    for word in words if names is not None else words[:1]:
        raw = text[first + word.start() :].strip(_MARKS)
        name = clean_label(raw)
        if name is not None and (name.lower() not in never if names is None else name in names):
            place = start + text.rindex(raw)
            return name, (place, place + len(raw))
    return None
