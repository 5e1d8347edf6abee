"""Referring expressions as VLM-R1 released them: a sentence about one region of an image, and the region's box.

``rec_jsons_processed`` holds RefCOCO, RefCOCO+ (``refcocop``), RefCOCOg and LISA-Grounding (``lisa_test``), a file for
each split: a JSON list for evaluation, JSON lines of conversations for training::

    {"id": 0, "image": "train2014/COCO_train2014_000000581857.jpg", "width": 427, "height": 640, "normal_caption": "the
     lady with the blue shirt", "problem": "… this sentence describes: the lady with the blue shirt.", "solution":
     [103.93, 299.99, 238.15, 477.41], "normalized_solution": [243, 468, 557, 745]}
    {"id": 1, "image": "…", "conversations": [{"from": "human", "value": "<image>… describes: blue shirt."}, {"from":
     "gpt", "value": "[103.93, 299.99, 238.15, 477.41]"}]}

A sentence is a row of its own; its query is the sentence, and the prompt asks for its one box
(:attr:`~scenerl.types.Example.referring`). Boxes are xyxy in pixels; those made for InternVL are 0 to 1000.

Source ``rec:FILE``, or ``rec:FOLDER`` with a split: a file's name (``refcoco_val``), or its end, which joins several:
``train`` reads ``refcoco_train``, ``refcocog_train`` and ``refcocop_train``, with the file's name before each id. Then
settings: ``images=FOLDER``, the one that holds ``train2014`` (by default ``coco`` or ``images`` beside the file, or its
folder), and ``frame=pixels`` (the default) or ``frame=norm1000``.

Source: VLM-R1's repository, README, ``src/eval/test_rec_r1.py`` and issue 11.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from scenerl.answers.elements import excerpt, normal_text
from scenerl.boxes import rescale
from scenerl.data.arguments import path_and_settings
from scenerl.data.images import image_size, missing_file
from scenerl.data.instances import tidy_id
from scenerl.data.jsonl import read_rows
from scenerl.data.published import ImageFolders, choose_split, image_folders, refuse_split
from scenerl.data.records import MissingFile, Record, build_example, four_finite
from scenerl.data.vlmr1_jsonl import BOX_FORMATS, detections_of, queried_labels
from scenerl.errors import DataError
from scenerl.json_files import iter_list

EXPECTED = "VLM-R1's referring expressions: a JSON list of objects with image, problem and solution"


def read(argument: str, split: str | None = None) -> Iterator[Record]:
    """Every sentence of a file, or of the files of a split, as a record.

    Raises:
        DataError: a file is missing, or a setting is unknown.
    """
    path, settings = path_and_settings(argument, "rec", {"images": "", "frame": "pixels"}, {"frame": BOX_FORMATS})
    if path.is_dir():
        files = _files(path, split)
    else:
        refuse_split(split, f"rec:{path}")
        files = [path]
    for file in files:
        usual = ["coco", "images", "../coco", "../images", "."]
        folders = image_folders(settings["images"], file.parent, usual)
        yield from _file(file, f"{file.stem}/" if len(files) > 1 else "", folders, settings["frame"])


def _files(folder: Path, split: str | None) -> list[Path]:
    """The files of a split; where one is there as JSON and as JSON lines, the lines."""
    found = {path.stem: path for suffix in ("json", "jsonl") for path in sorted(folder.glob(f"*.{suffix}"))}
    ends = {stem.rpartition("_")[2] for stem in found}
    choose_split(split, sorted({*found, *ends}), f"rec:{folder}")
    if split in found:
        return [found[split]]
    return [found[stem] for stem in sorted(found) if split is None or stem.endswith(f"_{split}")]


def _file(path: Path, prefix: str, folders: ImageFolders, box_format: str) -> Iterator[Record]:
    if path.suffix == ".jsonl":
        rows = read_rows(path)
    else:
        rows = ((number, row, None) for number, row in enumerate(iter_list(path, EXPECTED), start=1))
    seen: set[str] = set()
    for number, row, error in rows:
        where = f"{path}, row {number}"
        if error or not isinstance(row, Mapping):
            yield Record(where, None, (error or f"a row must be a JSON object, found {excerpt(row)}",))
            continue
        image_id = tidy_id(row.get("id", number)) or str(number)
        image_id = f"{image_id} row {number}" if image_id in seen else image_id
        seen.add(image_id)
        try:
            yield _record(row, where, prefix + image_id, folders, box_format)
        except DataError as problem:
            yield Record(where, None, (str(problem),))


def _record(row: Mapping, where: str, image_id: str, folders: ImageFolders, box_format: str) -> Record:
    """One sentence.

    Raises:
        DataError: the row is not of the schema; the message does not name it.
    """
    question, answer = row.get("problem"), row.get("solution")
    turns = row.get("conversations")
    if isinstance(turns, list) and len(turns) >= 2 and all(isinstance(turn, Mapping) for turn in turns[:2]):
        question, answer = (turn.get("value") for turn in turns[:2])
    if not isinstance(question, str):
        raise DataError("a row needs problem and solution, or conversations of a question and an answer, as texts")
    caption = row.get("normal_caption")
    phrases = [caption] if isinstance(caption, str) and caption.strip() else queried_labels(question)
    if len(phrases) != 1:
        raise DataError(f"the question must name one sentence, as in 'describes: …', found {excerpt(question)}")
    phrase = normal_text(phrases[0])
    box = _box(answer, phrase)
    file = folders.find_named(row.get("image"))
    size = row.get("width"), row.get("height")
    if None in size and isinstance(file, MissingFile):
        raise missing_file(f"image {excerpt(row.get('image'))}", file.tried)
    if None in size:
        size = image_size(file, "the image") if file is not None else (None, None)
    if box_format == "norm1000" and all(type(side) is int and side > 0 for side in size):
        box = rescale([box], (1000, 1000), size)[0].tolist()
    record = build_example(where, image_id, size, [phrase], [box], query=[phrase], image=file, empty_is_error=True)
    return replace(record, example=record.example and replace(record.example, referring=True))


def _box(answer: object, phrase: str) -> object:
    """The one box of an answer: four numbers, or such a text as models write.

    Raises:
        DataError: it holds none, or several.
    """
    boxes = detections_of(answer, [phrase])[1] if isinstance(answer, str) else [answer]
    if len(boxes) != 1 or four_finite(boxes[0]) is None:
        raise DataError(f"the answer must be one box [x1, y1, x2, y2], found {excerpt(answer)}")
    return boxes[0]
