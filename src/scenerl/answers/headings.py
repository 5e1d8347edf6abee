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
_PREPOSITIONS = re.compile(
    r"(?:above|against|along|around|at|behind|below|beside|between|by|for|from|holding|in|inside|near|next|of|off|on|over"
    r"|to|under|wearing|with|within)\b",
    re.IGNORECASE,
)
"""What follows one belongs to the name before it: the dog in ``the dog on the left``."""
MAX_WORDS = 3
"""Words of such a name where any label is allowed; more are a sentence."""
_NO_NAME = re.compile(
    r"\b(?:all|answers?|are|assistant|at|bbox(?:es)?|bounding|box(?:es)?|certainly|conclusion|coordinates?|detect(?:ed|ions?)"
    r"|final|follow(?:s|ing)?|format|found|here|images?|in|instances?|is|its?|items?|json|list|locations?|notes?|objects?"
    r"|ok(?:ay)?|output|picture|positions?|predictions?|questions?|reasoning|regions?|request(?:ed)?|response|results?|see"
    r"|solution|steps?|sure|targets?|that|them|there|these|this|thoughts?|to|yes|you|your)\b"
    "|答案|回答|结果|输出|坐标|位置|边界框|目标",
    re.IGNORECASE,
)
"""Words that stand before a box and name no object."""


def heading_before(
    body: str, start: int, end: int, names: tuple[str, ...] | None, never: Collection[str]
) -> tuple[str, Span] | None:
    """The name before a list, and where it is: what stands before the colon that ends ``body[start:end]``, without the
    marks of an enumeration around it. It is one of ``names``, or a few words where any label is allowed. One of
    ``names`` needs no colon, if it has the line for itself or, as InternVL writes it, touches its boxes."""
    text = body[start:end].replace("：", ":")
    if link := _LINK.search(text):
        return _subject(text[: link.start()], start, names, never)
    is_attached = _is_attached(body, start, end)
    head, colon, rest = text.rpartition(":")
    if not colon or rest.strip(" \t\r\n`*").lower() not in ("", "json"):
        if names is None and not is_attached:
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
        return _subject(text, start, names, never) if is_attached and names is not None else None
    first = start + len(head) - len(line) + line.rindex(raw)
    return name, (first, first + len(raw))


def other_heading(body: str, start: int, end: int, label: str, never: Collection[str]) -> tuple[str, Span] | None:
    """The name before a list where one label was requested and the name is another: ``dog: [[…]]`` where cats were
    requested. Words of the label itself, its plural and what names no object (``Answer: [[…]]``) are none. Arguments as
    for :func:`heading_before`."""
    found = heading_before(body, start, end, None, never)
    if found is None and _is_attached(body, start, end):
        found = _subject(body[start:end], start, None, never)
        if found is None:
            raw = body[start:end].split()[-1]
            found = raw, (end - len(raw), end)
    words = found[0].lower().split() if found else []
    *before, last = label.lower().split()
    forms = [[*before, last + ending] for ending in ("", "s", "es")]
    is_label = any(words[-len(form) :] == form or {*words} <= {*form, "a", "an", "the"} for form in forms)
    if is_label or _NO_NAME.search(" ".join(words)) or not any(map(str.isalpha, words)):
        return None
    return found


def _is_attached(body: str, start: int, end: int) -> bool:
    """Whether a word touches a list of boxes: ``dog[[x1, y1, x2, y2]]``."""
    return body.startswith("[[", end) and body[start:end][-1:].isalnum()


def _subject(text: str, start: int, names: tuple[str, ...] | None, never: Collection[str]) -> tuple[str, Span] | None:
    """The name at the end of a text, behind its last mark or article; of requested names, one that its last words are,
    before a preposition. ``start``: where the text begins in the answer. Otherwise as for :func:`heading_before`."""
    first = 0
    for mark in _BEFORE_NAME.finditer(text):
        is_mark = not mark[0][0].isalpha()
        if is_mark or not _PREPOSITIONS.fullmatch(text[: mark.start()].rstrip().rpartition(" ")[2]):
            first = mark.end()
    words = list(re.finditer(r"\S+", text[first:]))
    is_preposition = [_PREPOSITIONS.fullmatch(word[0]) is not None for word in words]
    if not words or is_preposition[0] or words[0][0].lower() in _NEGATIONS:
        return None
    count = is_preposition.index(True) if True in is_preposition else len(words)
    candidates = [(0, len(words))] + [(n, count) for n in range(count if names is not None else 1)]
    for begin, stop in candidates:
        raw = text[first + words[begin].start() : first + words[stop - 1].end()].strip(_MARKS)
        name = clean_label(raw)
        if names is None and stop - begin > MAX_WORDS:
            continue
        if name is not None and (name.lower() not in never if names is None else name in names):
            place = start + text.index(raw, first + words[begin].start())
            return name, (place, place + len(raw))
    return None
