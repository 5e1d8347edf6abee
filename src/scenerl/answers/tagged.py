"""Boxes in tags, as several families write them: a label in one pair of tags, its boxes in another behind it.

::

    qwen2-vl      <|object_ref_start|>dog<|object_ref_end|><|box_start|>(x1,y1),(x2,y2)<|box_end|>
    internvl      <ref>dog</ref><box>[[x1, y1, x2, y2], [x1, y1, x2, y2]]</box>; also Qwen-VL's (x1,y1),(x2,y2)
    deepseek-vl2  <|ref|>dog<|/ref|><|det|>[[x1, y1, x2, y2]]<|/det|>
    rex-omni      <|object_ref_start|>dog<|object_ref_end|><|box_start|><x1><y1><x2><y2>, <x1><y1><x2><y2><|box_end|>
    glm-4v        <|begin_of_box|>[[x1, y1, x2, y2]]<|end_of_box|>, or a JSON list of boxes with labels in these tags

Tags may be in upper case. Boxes without a label of their own have the requested one where only one is requested.
Qwen2-VL's tags are special tokens, which decoding often leaves out; ``dog(x1,y1),(x2,y2)`` is read, too. Sources:
docs/answers.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from scenerl.answers import detections
from scenerl.answers.elements import MAX_OBJECTS, GraphBuilder, Place, Reading, Span, clean_label
from scenerl.answers.headings import attached_name, heading_before
from scenerl.answers.template import unfence
from scenerl.answers.written_boxes import NUMBER

_MARKS = " \t\r\n\"'`*#-•,;.:=："
"""Characters around a name without tags."""

INSTRUCTION = """\
Find every instance of these in the image: {{query}}.
Some of them may be absent. Answer with the label and the boxes of each, shaped like this:
{}
Boxes are left, top, right, bottom {{unit}}.
Use the names above as labels. If none of them is there, answer None."""

_TEXT = re.compile(NUMBER)
_TOKEN = re.compile(r"<([0-9]{1,4})>")
_GROUP = re.compile(r"\[([^\[\]]*)\]")
_NO_TAG = r"[^<\n]|<(?![|/a-z])"
"""A character of a label: ``a < b`` is one."""
_UNTAGGED = re.compile(r"\([0-9.]{1,20},\s?[0-9.]{1,20}\),\s?\([0-9.]{1,20},\s?[0-9.]{1,20}\)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tags:
    """A family's tags. ``tokens``: coordinates are ``<12>``, else numbers. ``largest``: the number that stands for the
    right and the bottom edge, where the family fixes it; boxes are then given as 0 to 1."""

    label: tuple[str, str]
    box: tuple[str, str]
    tokens: bool = False
    largest: float | None = None

    def pattern(self) -> re.Pattern:
        """One part of an answer: a label or its boxes. No part is looked at twice, however long it is."""
        (label, end_label), (box, end_box) = ([re.escape(tag) for tag in tags] for tags in (self.label, self.box))
        boxes = r"(?:<[0-9]{1,4}>|[\s,]|none)*+" if self.tokens else r"[^<]*+"
        return re.compile(
            rf"{label}(?P<label>(?:{_NO_TAG}){{0,300}}+){end_label}|{box}(?P<boxes>{boxes}){end_box}", re.IGNORECASE
        )


QWEN2_VL = Tags(("<|object_ref_start|>", "<|object_ref_end|>"), ("<|box_start|>", "<|box_end|>"))
REX_OMNI = Tags(QWEN2_VL.label, QWEN2_VL.box, tokens=True, largest=999)
INTERNVL = Tags(("<ref>", "</ref>"), ("<box>", "</box>"))
DEEPSEEK_VL2 = Tags(("<|ref|>", "<|/ref|>"), ("<|det|>", "<|/det|>"), largest=999)
_GLM = re.compile(r"<\|begin_of_box\|>((?:[^<]|<(?!\|))*+)<\|end_of_box\|>", re.IGNORECASE)
_GLM_OPENER = re.compile(r"<\|begin_of_box\|>", re.IGNORECASE)
_LOOK_BACK = 300
"""Characters before a box in which its name is looked for, where no tags name it."""
_OPENERS = str.maketrans("[{", "  ")


def read(tags: Tags, body: str, builder: GraphBuilder) -> Reading:
    """Put the boxes in ``body`` into ``builder``.

    Returns:
        ``truncated`` where a tag is opened and not closed at the end; ``wrong_schema`` where there is no box in tags.
    """
    inner = unfence(body)
    if detections.NONE.fullmatch(inner):
        return Reading(None, True)
    parts = list(tags.pattern().finditer(body))
    end = parts[-1].end() if parts else 0
    rest = body[end:].lower()
    for opener, closer in (tags.label, tags.box):
        start = rest.rfind(opener)
        if (start >= 0 and rest.find(closer, start) < 0) or _ends_in_part(rest, opener):
            return Reading("truncated", False)
    found: list[tuple[Span | None, list[Span], str]] = []  # label, coordinates, the text of the box
    label, said_none, last, is_tagged = None, False, 0, False
    for part in parts:
        if part["label"] is None and not is_tagged:
            named = attached_name(body, max(last, part.start() - _LOOK_BACK), part.start(), builder.objects)
            label = named[1] if named else label
        last, is_tagged = part.end(), part["label"] is not None
        if part["label"] is not None:
            label = part.span("label")
        elif part["boxes"].strip(" \t\r\n[](),").lower() in ("", "none"):
            said_none = True
        else:
            found += [(label, *group) for group in _groups(tags, body, *part.span("boxes"))]
    if tags == QWEN2_VL and not parts and "<|" not in body:
        found = list(_untagged(body, builder.objects))
    if not any(coordinates for _, coordinates, _ in found):
        return Reading(None if said_none else "wrong_schema", False)
    for where, (span, coordinates, raw) in builder.bounded(found, "detections", MAX_OBJECTS):
        name = builder.only_label if span is None else clean_label(body[slice(*span)])
        numbers = [float(body[slice(*place)].strip("<>")) for place in coordinates]
        if tags.largest is not None:
            numbers = [number / tags.largest for number in numbers]
        if name is None:
            builder.drop("malformed_object", where, raw)
        elif len(numbers) == 2:
            builder.drop("point", where, raw)
        else:
            builder.add_object(where, name, numbers, where, raw)
    left = tags.pattern().sub("", inner)
    return Reading(None, not left.strip(" \t\r\n,;."), objects=lambda n: _place(body, *found[n][:2]))


def _untagged(body: str, names: tuple[str, ...] | None) -> Iterator[tuple[Span | None, list[Span], str]]:
    """Label, coordinates and text of the boxes of Qwen2-VL where its tags are left out: a label is what stands on the
    line before its first box, or the name in a sentence there."""
    label, end = None, 0
    for part in _UNTAGGED.finditer(body):
        between = body[end : part.start()]
        line = between.rpartition("\n")[2]
        first = max(part.start() - len(line), part.start() - _LOOK_BACK)
        named = heading_before(body, first, part.start(), names, ())
        if named is None and names is not None:
            named = attached_name(body, first, part.start(), names)
        if named is not None:
            label = named[1]
        elif name := line.strip(_MARKS).removeprefix("and "):
            first = part.start() - len(line) + line.index(name)
            label = first, first + len(name)
        end = part.end()
        numbers = [(part.start() + n.start(), part.start() + n.end()) for n in _TEXT.finditer(part[0])]
        yield label, numbers, part[0]


def read_glm(body: str, builder: GraphBuilder) -> Reading:
    """Put the boxes in GLM's tags into ``builder``."""
    if detections.NONE.fullmatch(unfence(body)):
        return Reading(None, True)
    parts = list(_GLM.finditer(body))
    end = parts[-1].end() if parts else 0
    if _GLM_OPENER.search(body, end):
        return Reading("truncated", False)
    if not parts:
        return Reading("wrong_schema", False)
    # Outside the tags no list begins, but names may stand there; places stay what they are.
    masked, last = [], 0
    for part in parts:
        masked += [body[last : part.start()].translate(_OPENERS), " " * (part.start(1) - part.start()), part[1]]
        masked.append(" " * (part.end() - part.end(1)))
        last = part.end()
    return detections.read("".join(masked), builder)


def _groups(tags: Tags, body: str, start: int, end: int) -> list[tuple[list[Span], str]]:
    """The coordinates of every box between two tags, and its text: in brackets, as pairs in parentheses, or alone."""
    text = body[start:end]
    if tags.tokens:
        pieces = [(start + piece.start(), piece[0]) for piece in re.finditer(r"[^,]+", text)]
    elif "[" in text:
        pieces = [(start + piece.start(1), piece[1]) for piece in _GROUP.finditer(text)]
    else:
        pieces = [(start + piece.start(), piece[0]) for piece in re.finditer(r"[^;]+", text)]
    found = []
    for first, piece in pieces:
        pattern = _TOKEN if tags.tokens else _TEXT
        numbers = [(first + number.start(), first + number.end()) for number in pattern.finditer(piece)]
        if "(" in piece and len(numbers) > 4 and len(numbers) % 4 == 0:  # several boxes as pairs of corners
            found += [(numbers[n : n + 4], piece) for n in range(0, len(numbers), 4)]
        else:
            found.append((numbers, piece))
    return found


def _ends_in_part(text: str, tag: str) -> bool:
    """Whether a text ends in a part of a tag, more than its first character."""
    return any(text.endswith(tag[:length]) for length in range(2, len(tag)))


def _place(body: str, label: Span | None, coordinates: list[Span]) -> Place:
    if label is not None:
        raw = body[slice(*label)]
        start = label[0] + len(raw) - len(raw.lstrip())
        label = start, start + len(raw.strip())
    return Place(label, tuple(coordinates))
