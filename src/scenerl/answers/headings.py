"""The name of a class where it stands before a list of its boxes, or in a sentence before a box."""

from __future__ import annotations

import re
from collections.abc import Collection

from scenerl.answers.elements import Span, clean_label

_MARKS = " \t\r\"'`*#-•,;.=>|([{，；。、"
"""Characters around such a name."""
_NUMBERED = re.compile(r"^(?:[0-9]{1,4}[.)]|and )\s*")
_LINK = re.compile(
    r"\s(?:(?:is|are)\s)?(?:(?:located|found|visible|positioned|situated)\s)?(?:at|in|within)"
    r"(?:\s(?:the|a))?(?:\s(?:bounding box|box|bbox|coordinates|position|region))?:?$",
    re.IGNORECASE,
)
"""What stands in a sentence between a name and its box."""
_IS = re.compile(r"\s(?:is|are)(?:\shere)?:?$", re.IGNORECASE)
_PRONOUN = re.compile(r"(?:it|they|this|that|these|those|here|there|(?:the )?(?:object|target)s?)$", re.IGNORECASE)
_PREPOSITION = (
    r"(?:above|against|along|around|at|behind|below|beside|between|by|for|from|holding|in|inside|near|next|of|off|on|over"
    r"|to|under|wearing|with|within)"
)
"""What follows one belongs to the name before it: the dog in ``the dog on the left``."""
_BEFORE_NAME = re.compile(
    r"[.,;:!?\n]|\b(?:box(?:es)?|bbox|coordinates?|location|position)\s(?:of|for)\s(?:the\s|an?\s)?"
    rf"|\b(?P<inside>{_PREPOSITION}\s(?:the|an?)\s)|\b(?:and|the|an?|there is|there are)\s",
    re.IGNORECASE,
)
_IS_PREPOSITION = re.compile(_PREPOSITION, re.IGNORECASE)
_IS_PARTICIPLE = re.compile(
    r"sitting|standing|lying|walking|running|riding|resting|leaning|hanging|located|seen|shown|that|which|who",
    re.IGNORECASE,
)
"""What follows one may belong to the name before it, too: the cat in ``the cat sitting on the mat``."""
_NEGATIONS = frozenset(("no", "not", "neither", "nor", "without"))
MAX_WORDS = 3
"""Words of such a name where any label is allowed; more are a sentence."""
_NO_NAME = re.compile(
    r"\b(?:about|all|answers?|approximately|are|assistant|at|bbox(?:es)?|bounding|box(?:es)?|certainly|conclusion"
    r"|coordinates?|detect(?:ed|ions?)|final|follow(?:s|ing)?|format|found|here|images?|in|instances?|is|its?|items?|json"
    r"|list|locations?|notes?|now|objects?|ok(?:ay)?|output|picture|positions?|predictions?|questions?|reasoning|regions?"
    r"|request(?:ed)?|response|results?|see|so|solution|steps?|sure|targets?|that|them|then|there|these|this|thoughts?|to"
    r"|wait|yes|you|your)\b"
    "|答案|回答|结果|输出|坐标|位置|边界框|目标",
    re.IGNORECASE,
)
"""Words that stand before a box and name no object."""
_SCORE = re.compile(
    r"\s*[(\[]?(?:(?:score|conf|confidence)\s?[:=]?\s?)?(?:[01]?\.[0-9]{1,6}|[0-9]{1,3}\s?%)[)\]]?(?P<rest>\s*:?\s*)$"
)
"""A score behind a name."""
_WORD = re.compile(r"[^\W\d_][\w-]*(?:['’]\w+)?")
_LABEL = r"[\"']?\b(?:label|name|category|class|object)[\"']?\s?[:=][ \t\"']*+([^\n,;\"'\[\]{}]{1,100})(?=[\n,;\"']"
_LABEL_BEFORE = re.compile(f"{_LABEL})", re.IGNORECASE)
_LABEL_BEHIND = re.compile(rf"[\s,;]*{_LABEL}|\s*$)", re.IGNORECASE)
_FUNCTION_WORDS = """
    a an and any area around as asked based be been below bottom by can center centre clearly corner could
    described do does each edge exactly first for from given go good half has have he her his i identified if
    json just labeled labelled left let like located looking lower main me middle of on one only or part per
    photo pixel pixels plain please position provided python right second seen she shown side similar situated
    somewhere space text the third three top two upper visible was we were where which will with x xml y yaml
"""
_IS_FUNCTION_WORD = frozenset(_FUNCTION_WORDS.split())
"""Words of sentences about a box that name no object."""


def heading_before(
    body: str, start: int, end: int, names: tuple[str, ...] | None, never: Collection[str]
) -> tuple[str, Span] | None:
    """The name before a list of boxes, and where it is, in ``body[start:end]``: a line that ends in a colon, without
    the marks of an enumeration around it, what a sentence says to be there, or what stands right before the box.

    Args:
        names: the requested labels, of which it is one; None: any few words. One of them needs no colon, if it has the
            line for itself.
        never: words that are no name.
    """
    text, kind = _named(body, start, end)
    line = text.rpartition("\n")[2].rpartition(":")[2]
    raw = line.strip(_MARKS)
    if clean_label(raw) not in (names or ()):
        raw = _NUMBERED.sub("", raw).lstrip(_MARKS)
    name = clean_label(raw)
    if name is not None and (
        name in names and kind != "link" if names is not None else kind == "colon" and len(name.split()) <= MAX_WORDS
    ):
        first = start + len(text) - len(line) + line.rindex(raw)
        return None if name.lower() in never else (name, (first, first + len(raw)))
    if kind == "" or (names is None and kind in ("colon", "is")) or _is_negated(text):
        return None
    if names is None:
        found = _subject(text, start, None, never, kind == "word")
        no_name = _NO_NAME if kind == "word" else _PRONOUN
        return None if found and no_name.search(found[0]) else found
    return _subject(text, start, names, never, kind == "word")


def other_heading(body: str, start: int, end: int, label: str, never: Collection[str]) -> tuple[str, Span] | None:
    """The name before a list where one label was requested and the name is another: ``dog: [[…]]`` where cats were
    requested, or ``no cat: [[…]]``. Words of the label itself, its plural and what names no object (``Answer: [[…]]``)
    are none. Arguments as for :func:`heading_before`."""
    text, kind = _named(body, start, end)
    if kind == "":
        return _other_word(body, start, end, label, never)
    if _is_negated(text):
        phrase, first, _ = _phrase(text)
        span = phrase[0].start(), phrase[-1].end()
        return text[first:][slice(*span)], (start + first + span[0], start + first + span[1])
    found = heading_before(body, start, end, None, never) or _subject(text, start, None, never)
    words = [word[0].lower() for word in _WORD.finditer(found[0])] if found else []
    if not {*words} <= _IS_FUNCTION_WORD and not _NO_NAME.search(" ".join(words)):
        *before, last = label.lower().split()
        forms = [[*before, last + ending] for ending in ("", "s", "es")]
        is_label = any(words[-len(form) :] == form or {*words} <= {*form, "a", "an", "the"} for form in forms)
        return None if is_label else found
    return _other_word(body, start, end, label, never)


def _other_word(body: str, start: int, end: int, label: str, never: Collection[str]) -> tuple[str, Span] | None:
    """The last word of a text that may name another object than the label, if none of it names the label."""
    known = {form for word in label.lower().split() for form in (word, f"{word}s", f"{word}es", f"{word}'s")}
    words = list(_WORD.finditer(body, start, end))
    if any(word[0].lower() in known for word in words):
        return None
    for word in reversed(words):
        text = re.split("['’]", word[0].lower())[0]
        if text not in _IS_FUNCTION_WORD and text not in never and not _NO_NAME.fullmatch(text):
            return word[0], word.span()
    return None


def label_under_key(body: str, start: int, end: int) -> tuple[str, Span] | None:
    """The label that stands before a box under a key of its own: ``label: dog, bbox_2d: [x1, y1, x2, y2]``."""
    return _value([found for found in _LABEL_BEFORE.finditer(body, start, end) if found[1].strip()])


def label_behind(body: str, end: int) -> tuple[str, Span] | None:
    """The same behind the box that ends at ``end``."""
    return _value([found for found in [_LABEL_BEHIND.match(body, end)] if found])


def _value(found: list[re.Match]) -> tuple[str, Span] | None:
    name = clean_label(found[-1][1]) if found else None
    return None if name is None else (name, (found[-1].start(1), found[-1].start(1) + len(found[-1][1].rstrip())))


def attached_name(body: str, start: int, end: int, names: tuple[str, ...] | None) -> tuple[str, Span] | None:
    """The name that touches the tag of a box, ``dog<box>``, at the end of ``body[start:end]``: one of the requested
    names, or else another, if only to be dropped."""
    text = body[start:end]
    if not text[-1:].isalnum():
        return None
    if names is not None and (found := _subject(text, start, names, (), True)):
        return found
    found = _subject(text, start, None, ())
    return None if found is None or _NO_NAME.search(found[0]) else found


def _named(body: str, start: int, end: int) -> tuple[str, str]:
    """The text before a box up to the end of the name, and what follows there: a ``link`` of a sentence, a ``colon``,
    ``is``, nothing but the box (``word``), or something else (empty). The last two stand before brackets only."""
    text = body[start:end].replace("：", ":")
    if score := _SCORE.search(text):
        text = text[: score.start()] + score["rest"]
    plain = text.rstrip(" \t\r\n\"'`*")
    if link := _LINK.search(plain):
        return text[: link.start()], "link"
    head, colon, rest = text.rpartition(":")
    if colon and rest.strip(" \t\r\n`*").lower() in ("", "json"):
        return head, "colon"
    in_brackets = body.startswith("[", end)
    if in_brackets and (link := _IS.search(plain)):
        return text[: link.start()], "is"
    head = re.sub(r"(?:json)?[\s`=]*$", "", text)
    is_word = in_brackets and head[-1:].isalnum() and "\n" not in text[len(head) :]
    return head, "word" if is_word else ""


def _phrase(text: str) -> tuple[list[re.Match], int, int]:
    """The words at the end of a text, behind its last mark or article, where they begin, and how many stand before the
    first preposition."""
    first = max((mark.end() for mark in _BEFORE_NAME.finditer(text) if mark["inside"] is None), default=0)
    words = list(re.finditer(r"\S+", text[first:]))
    count = next((n for n, word in enumerate(words) if _IS_PREPOSITION.fullmatch(word[0])), len(words))
    return words, first, count


def _is_negated(text: str) -> bool:
    words, _, _ = _phrase(text)
    return bool(words) and words[0][0].lower() in _NEGATIONS


def _subject(
    text: str, start: int, names: tuple[str, ...] | None, never: Collection[str], is_adjacent: bool = False
) -> tuple[str, Span] | None:
    """The name at the end of a text; of requested names, one that its last words are, first of those before a
    preposition.

    Args:
        start: where the text begins in the answer.
        names, never: as for :func:`heading_before`.
        is_adjacent: the box stands right behind the text, so that it may be that of what follows a preposition; where
            any name is allowed, it is then not known.
    """
    words, first, count = _phrase(text)
    if not count:
        return None
    whole = len(words)
    if names is None:
        spans = [(0, whole)] * (not is_adjacent or count == whole) + [(0, count)] * (not is_adjacent)
        spans = [span for span in spans if span[1] <= MAX_WORDS]
    else:
        stops = [count, *(n for n in range(1, count) if _IS_PARTICIPLE.fullmatch(words[n][0]))]
        spans = [(0, whole), *((n, stop) for stop in stops for n in range(stop))]
        spans += [(n, whole) for n in range(count, whole)] if is_adjacent else []
    for begin, stop in spans:
        raw = text[first + words[begin].start() : first + words[stop - 1].end()].strip(_MARKS)
        name = clean_label(raw)
        if name is not None and (name.lower() not in never if names is None else name in names):
            place = start + text.index(raw, first + words[begin].start())
            return name, (place, place + len(raw))
    return None
