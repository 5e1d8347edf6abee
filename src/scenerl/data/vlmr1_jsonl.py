"""VLM-R1's JSONL as detection: a conversation for each image, the labels in the question and the boxes in the answer.

A row has an ``id``, an ``image`` (a file name, or a list of one) and ``conversations``, question and answer::

    {"from": "human", "value": "… detect the following objects: ['a horse', 'helmet']. …"}
    {"from": "gpt", "value": "[{\\"bbox_2d\\": [3, 218, 799, 533], \\"label\\": \\"a horse\\"}]"}

The answer is such a list, in a code fence, in tags or bare, or ``None``; or, for a single phrase, one box alone. Boxes
are xyxy in pixels of the image as stored, as released: VLM-R1 trains on them so and rescales what Qwen2.5-VL says about
its resized input. Files made for InternVL hold 0 to 1000.

The query is parsed from the question: names in ``<ref>`` tags, a list in brackets, a phrase behind ``describes:``, or
names between a colon and the end of the sentence. Where a question holds none of these, the answer's labels become the
query, with a warning. Sizes are those of the images' headers, unless rows state ``width`` and ``height``. Ids need not
differ in these files: where one comes again, the row's number goes behind it.

Source ``vlmr1_jsonl:FILE``, then settings: ``images=FOLDER`` (by default ``images`` beside the file, or its folder) and
``frame=pixels`` (the default) or ``frame=norm1000``.

Source: VLM-R1's repository, grpo_jsonl.py and issue 246 (an example of its detection data).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from scenerl.answers.elements import excerpt, normal_text
from scenerl.answers.template import TEMPLATES, unfence
from scenerl.boxes import rescale
from scenerl.data.arguments import path_and_settings
from scenerl.data.images import image_size, missing_file
from scenerl.data.instances import tidy_id
from scenerl.data.jsonl import read_rows
from scenerl.data.published import ImageFolders, image_folders, refuse_split
from scenerl.data.records import MissingFile, Record, build_example, four_finite
from scenerl.errors import DataError

BOX_FORMATS = ("pixels", "norm1000")
MAX_QUESTION = 100_000
"""Characters of a question that are searched for labels."""

_QUOTED = r"""(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|“[^”\n]*”|‘[^’\n]*’)"""
_LIST = re.compile(rf"\[\s*({_QUOTED}(?:\s*[,，、;；]\s*{_QUOTED})*)\s*\]")
_TAGGED = re.compile(r"<ref>(.*?)</ref>|<\|object_ref_start\|>(.*?)<\|object_ref_end\|>", re.DOTALL | re.IGNORECASE)
_PHRASE = re.compile(r"""describes[:：]?\s*(?:"([^"\n]+)"|'([^'\n]+)'|“([^”\n]+)”|([^\n]+?))\s*[.。]?\s*(?:\n|$)""")
_LEAD = (
    r"(?:\b(?:objects?|object\(s\)|targets?|labels|categories|classes|items|phrases|image)"
    r"|目标|物体|物品|对象|类别|标签|图中的?)\s*+[:：]\s*+"
)
_BULLET = r"(?:[-*•]|[0-9]{1,3}[.)、]|[(（][0-9]{1,3}[)）])\s*+"
_LINES = re.compile(rf"{_LEAD}({_BULLET}[^\n]++(?:\n\s*+{_BULLET}[^\n]++)++)")
_NAMES = re.compile(rf"{_LEAD}([^\n\[\]{{}}]++(?:\[[^\n\[\]]*+\][^\n\[\]{{}}]*+)*)(\n|$)?")
_BARE_LIST = re.compile(rf"{_LEAD}(?:\[([^\n\[\]{{}}]*+)\]|\{{([^\n\[\]{{}}]*+)\}}|\(([^\n()]*+)\)[.。]?(?=\s|$))")
_SENTENCE_END = re.compile(r"\.\s++(?=[A-Z])|。")
_DOT = re.compile(r"(\s?)\.(?=\s|$)")
_NAME = re.compile(r"[^\W\d_][^\n.:?!,;]{0,40}(?:\.[^\n:?!,;]{0,40})?")
"""One of Grounding DINO's names, ``dog. traffic light. St. Bernard``: a point inside belongs to an abbreviation."""
_ABBREVIATION = re.compile(r"st|mt|dr|mrs?|ms|no|vs|jr|sr|(?:\w\.)*[A-Z]", re.ASCII | re.IGNORECASE)
_MAX_NAME = 80
_NO_NAME = re.compile(
    r"(?:answer|describe|detect|do|each|every|find|give|he|if|in|it|list|locate|look|no|none|only|output|please|provide"
    r"|report|respond|return|say|she|show|some|state|tell|that|the|there|these|they|this|those|use|when|where|write|you|your)\b"
    r"|.*\s(?:are|be|can|is|may|must|should|will)\s",
    re.IGNORECASE,
)
"""What a sentence looks like that stands behind names with capitals."""
_OPENING, _CLOSING = "([{（【「《", ")]}）】」》"
_SEPARATORS = ",，、;；|"


def read(argument: str, split: str | None = None) -> Iterator[Record]:
    """Every row of a file as a record, row by row; the module says what ``argument`` may hold.

    Raises:
        DataError: the file is missing, or a setting is unknown.
    """
    defaults = {"images": "", "frame": "pixels"}
    path, settings = path_and_settings(argument, "vlmr1_jsonl", defaults, {"frame": BOX_FORMATS})
    refuse_split(split, f"vlmr1_jsonl:{path}")
    folders = image_folders(settings["images"], path.parent, ["images", "."])
    seen: set[str] = set()
    for number, row, error in read_rows(path):
        where = f"{path}, row {number}"
        if error:
            yield Record(where, None, (error,))
            continue
        image_id = tidy_id(row.get("id", number)) or str(number)
        image_id = f"{image_id} row {number}" if image_id in seen else image_id
        seen.add(image_id)
        try:
            yield _record(row, where, image_id, folders, settings["frame"])
        except DataError as problem:
            yield Record(where, None, (str(problem),))


def queried_labels(question: str) -> list[str]:
    """The labels that a question names, in its order, each once; empty where it names none in a known way.

    >>> queried_labels("Detect the following objects: ['a dog', \\"rider's helmet\\"]. Answer as [{'bbox_2d': …}].")
    ['a dog', "rider's helmet"]
    >>> queried_labels('Detect the object this sentence describes: "black chair".')
    ['black chair']
    >>> queried_labels("Detect the following targets: st. bernard, red ball (small, round) and a cat.")
    ['st. bernard', 'red ball (small, round) and a cat']
    >>> queried_labels("请检测以下物体：猫、红色的球，狗。")
    ['猫', '红色的球', '狗']
    >>> queried_labels("Find <ref>a dog</ref> and <ref>a cat</ref>.")
    ['a dog', 'a cat']
    """
    question = question[:MAX_QUESTION]
    if found := _TAGGED.findall(question):
        labels = [inner or other for inner, other in found]
    elif found := _LIST.search(question):
        labels = [re.sub(r"\\(.)", r"\1", quoted[1:-1]) for quoted in re.findall(_QUOTED, found[1])]
    elif found := _BARE_LIST.search(question):
        labels = split_names(next(part for part in found.groups() if part is not None))
    elif found := _LINES.search(question):
        labels = [name for line in found[1].splitlines() for name in split_names(line)]
    elif found := _PHRASE.search(question):
        labels = [next(part for part in found.groups() if part)]
    else:
        labels = _names_behind_a_colon(question)
    return list(dict.fromkeys(label for part in labels if (label := normal_text(part))))


def _names_behind_a_colon(question: str) -> list[str]:
    """The names between a colon and the end of its sentence or line, whichever comes first."""
    for found in _NAMES.finditer(question):
        if dotted := _dotted_names(found[1])[0]:
            return dotted
        ends = (end.start() for end in _SENTENCE_END.finditer(found[1]))
        end = next(
            (end for end in ends if not _is_abbreviation(found[1][max(0, end - 9) : end].rpartition(" ")[2])), None
        )
        if end is not None or found[2] is not None:
            return split_names(found[1][:end].strip().removesuffix("."))
    names, is_all = _dotted_names(question)
    return names if is_all else []


def _dotted_names(text: str) -> tuple[list[str], bool]:
    """Grounding DINO's names at the start of a text, two at least, and whether there is nothing behind them.

    A point ends a name where white space or nothing follows, unless an abbreviation or a single capital letter stands
    before it without a space. Names have at most four words. Those with capitals have at most three, only stand where
    the first has one, and do not read as a sentence.
    """
    names: list[str] = []
    start, text = 0, text.strip()
    for dot in (*_DOT.finditer(text), None):
        end = dot.start() if dot else len(text)
        name = text[start:end].strip() if end - start <= _MAX_NAME else ""
        if dot and name and not dot[1] and _is_abbreviation(name.split()[-1]):
            continue
        if not _is_name(name, names):
            break
        names.append(name)
        start = dot.end() if dot else len(text)
    return (names, not text[start:].strip()) if len(names) > 1 else ([], False)


def _is_abbreviation(word: str) -> bool:
    """Whether the point behind a word is its own."""
    return _ABBREVIATION.fullmatch(word) is not None and not (len(word) == 1 and word.islower())


def _is_name(name: str, before: list[str]) -> bool:
    if not _NAME.fullmatch(name):
        return False
    if not name[0].isupper():
        return len(name.split()) <= 4
    return len(name.split()) <= 3 and not _NO_NAME.match(name) and (not before or before[0][0].isupper())


def split_names(text: str) -> list[str]:
    """Names between separators: commas and semicolons, Chinese ones too, ``|``, and points with spaces around them, or
    behind short names, as Grounding DINO has them.
    Separators in brackets and quotes belong to a name.

    >>> split_names("a cup (white, chipped); 'salt, pepper' | 桌子、椅子 . and a lamp")
    ['a cup (white, chipped)', 'salt, pepper', '桌子', '椅子', 'a lamp']
    >>> split_names("dog. traffic light. person"), split_names("a st. bernard"), split_names("Mr. Bean. U.S. flag.")
    (['dog', 'traffic light', 'person'], ['a st. bernard'], ['Mr. Bean', 'U.S. flag'])
    """
    dotted, is_all = _dotted_names(text)
    if is_all:
        return dotted
    names, start, depth, quote = [], 0, 0, ""
    for place, character in enumerate(text):
        around = text[max(0, place - 1) : place + 2]
        if quote:
            quote = "" if character == quote else quote
        elif character in '"“' or (character == "'" and not text[start:place].strip()):
            closing = {"“": "”"}.get(character, character)
            quote = closing if closing in text[place + 1 :] else ""
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth = max(0, depth - 1)
        elif not depth and (character in _SEPARATORS or around == " . "):
            names.append(text[start:place])
            start = place + 1
    names.append(text[start:])
    names = [re.sub(rf"^{_BULLET}(?:(?<=\s)|(?=\D))", "", name.strip()) for name in names]
    names = [name.removeprefix("and ").removeprefix("or ") if number else name for number, name in enumerate(names)]
    return [name.strip("\"“”'") if name[:1] in "\"“'" and name[-1:] in "\"”'" else name for name in names if name]


def _record(row: Mapping, where: str, image_id: str, folders: ImageFolders, box_format: str) -> Record:
    """One row.

    Raises:
        DataError: it is not of the schema; the message does not name the row.
    """
    turns = row.get("conversations")
    turns = turns[:2] if isinstance(turns, list) else []
    values = [turn.get("value") if isinstance(turn, Mapping) else None for turn in turns]
    if len(values) < 2 or not all(isinstance(value, str) for value in values):
        raise DataError(
            "conversations must be a list of two turns, question and answer, each with a text as value, found "
            f"{excerpt(row.get('conversations'))}"
        )
    question, answer = values
    image = row.get("image")
    image = image[0] if isinstance(image, list) and len(image) == 1 else image
    if not isinstance(image, str) or not image or "\0" in image:
        raise DataError(f"image must be the name of one image file, found {excerpt(row.get('image'))}")
    file = folders.find_named(image)
    size = row.get("width"), row.get("height")
    if None in size and isinstance(file, MissingFile):
        raise missing_file(f"image {excerpt(image)}", file.tried)
    if None in size:
        size = image_size(file, "the image") if file is not None else (None, None)
    query = queried_labels(question.replace("<image>", ""))
    labels, boxes = detections_of(answer, query)
    if not query and not labels:
        raise DataError(f"neither question nor answer names a label: {excerpt(question)}")
    if box_format == "norm1000" and all(type(side) is int and side > 0 for side in size):
        # what is no box stays, for the record's checks to name
        boxes = [rescale([box], (1000, 1000), size)[0].tolist() if four_finite(box) else box for box in boxes]
    warnings = ()
    unlisted = [label for label in dict.fromkeys(labels) if label not in query]
    if unlisted or not query:
        known = "names no labels that can be parsed" if not query else f"does not name {excerpt(unlisted)}"
        warnings = (f"the question {known}; the answer's labels join the query",)
    record = build_example(
        where, image_id, size, labels, boxes, query=[*query, *unlisted], image=file, empty_is_error=True
    )
    return Record(where, record.example, record.errors, (*warnings, *record.warnings))


def detections_of(answer: str, query: list[str]) -> tuple[list[str], list[object]]:
    """Labels and boxes of an answer; a box alone has the label of a query of one.

    Raises:
        DataError: it is no answer of VLM-R1's kind.
    """
    body = unfence(TEMPLATES["think"].open(answer).body.removesuffix("</answer>"))
    if body.strip().rstrip(".").lower() == "none":
        return [], []
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise DataError(f"the answer is neither a JSON list of boxes nor None: {excerpt(body)}") from None
    if len(query) == 1 and four_finite(value):
        return query, [value]
    items = [value] if isinstance(value, dict) else value
    if not isinstance(items, list) or not all(
        isinstance(item, dict) and isinstance(item.get("label"), str) and "bbox_2d" in item for item in items
    ):
        raise DataError(f"the answer must be a list of objects with bbox_2d and label, found {excerpt(value)}")
    return [normal_text(item["label"]) for item in items], [item["bbox_2d"] for item in items]
