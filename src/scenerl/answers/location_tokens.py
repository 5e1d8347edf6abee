"""Boxes as location tokens, of models whose vocabulary has a token for each place.

::

    kosmos-2    <phrase> a dog</phrase><object><patch_index_0044><patch_index_0863></object>: the cells of the first and
                the last corner in a grid of 32 x 32; several boxes are separated by </delimiter_of_multi_objects/>
    florence-2  dog<loc_52><loc_332><loc_932><loc_774>: the label, then x1, y1, x2, y2 in bins of 1/1000, whose middle
                counts; further boxes of the label follow directly
    paligemma   <loc0428><loc0515><loc0508><loc0559> dog ; …: y1, x1, y2, x2 from 0 to 1023 in 1024ths, then the label

Boxes are given as 0 to 1. What else such models write, such as segmentation tokens, is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from scenerl.answers import detections
from scenerl.answers.elements import MAX_OBJECTS, GraphBuilder, Reading, clean_label
from scenerl.answers.headings import attached_name
from scenerl.answers.template import unfence

_GRID = 32
_LOOK_BACK = 300
"""Characters before a box in which its name is looked for, where no tags name it."""
_PHRASE = re.compile(
    r"<phrase>([^<]{0,300}+)</phrase>|<object>((?:<patch_index_[0-9]{1,5}>|</delim\w{1,40}/>|\s)*+)</obj", re.IGNORECASE
)
_DELIMITER = re.compile(r"</delim\w{1,40}/>", re.IGNORECASE)
_PATCH = re.compile(r"<patch_index_([0-9]{1,5})>", re.IGNORECASE)
_LOC_FLORENCE = re.compile(r"(?:<loc_[0-9]{1,4}>[ \t]*+)++", re.IGNORECASE)
_LOC_PALIGEMMA = re.compile(r"(?:<loc[0-9]{1,4}>[ \t]*+)++", re.IGNORECASE)
_SEGMENT = re.compile("<seg[0-9]{3}>", re.IGNORECASE)
_DIGITS = re.compile("[0-9]+")

Box = tuple[str | None, list[float], str]
"""Label, coordinates and text of a box."""


def read_kosmos(body: str, builder: GraphBuilder) -> Reading:
    """Put the boxes of an answer of Kosmos-2 into ``builder``."""

    def boxes() -> Iterator[Box]:
        phrase, last = None, 0
        for part in _PHRASE.finditer(body):
            if part[1] is None and phrase is None:
                named = attached_name(body, max(last, part.start() - _LOOK_BACK), part.start(), builder.objects)
                phrase = named[0] if named else None
            last = part.end()
            if part[1] is not None:
                phrase = part[1]
                continue
            for pair in _DELIMITER.split(part[2]):
                yield phrase, _cells([int(index) for index in _PATCH.findall(pair)]), pair
            phrase = None

    lower = body.lower()
    start = lower.rfind("<object>")
    return _read(body, builder, boxes(), start >= 0 and lower.find("</object>", start) < 0)


def _cells(corners: list[int]) -> list[float]:
    """The box between two cells of the grid: between their middles, or all of both in one row or column."""
    if len(corners) != 2 or max(corners) >= _GRID**2:
        return []
    (y1, x1), (y2, x2) = (divmod(corner, _GRID) for corner in corners)
    inset = 0.0 if x1 == x2 or y1 == y2 else 0.5
    return [(x1 + inset) / _GRID, (y1 + inset) / _GRID, (x2 + 1 - inset) / _GRID, (y2 + 1 - inset) / _GRID]


def read_florence(body: str, builder: GraphBuilder) -> Reading:
    """Put the boxes of an answer of Florence-2 into ``builder``."""

    def boxes() -> Iterator[Box]:
        before = 0
        for run in _LOC_FLORENCE.finditer(body):
            label = body[before : run.start()].rpartition(">")[2]  # behind other tokens, such as </s><s>
            before = run.end()
            for bins in _fours(run[0]):
                yield label, [(value + 0.5) / 1000 for value in bins] if max(bins) < 1000 else [], run[0]

    return _read(body, builder, boxes(), _ends_in_part("<loc_", body))


def read_paligemma(body: str, builder: GraphBuilder) -> Reading:
    """Put the boxes of an answer of PaliGemma into ``builder``."""

    def boxes() -> Iterator[Box]:
        runs = list(_LOC_PALIGEMMA.finditer(body))
        ends = [*(run.start() for run in runs), len(body)][1:]
        for run, end in zip(runs, ends, strict=True):
            label = re.split("[;\n<]", _SEGMENT.sub("", body[run.end() : end]).lstrip(), maxsplit=1)[0]
            for bins in _fours(run[0]):
                # an incomplete run is no box, in whatever order
                ordered = [bins[side] for side in (1, 0, 3, 2)] if len(bins) == 4 and max(bins) < 1024 else []
                yield label, [value / 1024 for value in ordered], run[0]

    return _read(body, builder, boxes(), _ends_in_part("<loc", body))


def _fours(run: str) -> list[list[int]]:
    """The numbers in a run of tokens, four by four; the last may be fewer."""
    numbers = [int(digits) for digits in _DIGITS.findall(run)]
    return [numbers[n : n + 4] for n in range(0, len(numbers), 4)]


def _ends_in_part(token: str, body: str) -> bool:
    """Whether the text ends in a location token that breaks off, or in fewer than four."""
    tail = re.search(rf"(?:{token}[0-9]{{1,4}}>[ \t]*+)*+(?:{token}?[0-9]{{0,4}})?\s*$", body[-100:].lower())
    return tail is not None and (tail[0].count(">") % 4 != 0 or token in tail[0].rpartition(">")[2])


def _read(body: str, builder: GraphBuilder, boxes: Iterator[Box], truncated: bool) -> Reading:
    """Check and keep boxes, unless the answer is cut off within one."""
    if detections.NONE.fullmatch(unfence(body)):
        return Reading(None, True)
    if truncated:
        return Reading("truncated", False)
    found = list(boxes)
    if not any(box for _, box, _ in found):
        return Reading("wrong_schema", False)
    for where, (raw_label, box, raw) in builder.bounded(found, "detections", MAX_OBJECTS):
        label = clean_label(raw_label) or builder.only_label
        if label is None:
            builder.drop("malformed_object", where, raw)
        else:
            builder.add_object(where, label, box, where, raw)
    return Reading(None, False, objects=lambda number: None)  # a token is no coordinate of its own
