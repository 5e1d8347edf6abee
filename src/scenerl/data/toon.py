"""SceneGraphVLM's line format (TOON), in JSONL rows with the ground truth (``content``) and the answer (``predict``).

Boxes are pixels of the image that the model saw, on both sides.

Source ``toon:FILE.jsonl``, or the file itself. Width and height come from the prompt (``of size (640 x 480)``); where
it does not state them, they are 0 and the rows can only be evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from scenerl.answers import OutputFormat, parse_answer
from scenerl.data.instances import tidy_id
from scenerl.data.jsonl import read_rows
from scenerl.data.published import refuse_split
from scenerl.data.records import Record
from scenerl.errors import DataError
from scenerl.types import Example, ParseResult

_SIZE = re.compile(r"of size \((\d{1,6}) x (\d{1,6})\)")
_TEXT = OutputFormat("toon", box_format="pixels")
_PIXELS = (1, 1)  # boxes stay as they are, whatever the size


def parse(text: object) -> ParseResult:
    """A scene graph in SceneGraphVLM's format (:mod:`scenerl.answers.toon`); boxes stay as they are."""
    return parse_answer(text.rpartition("</think>")[2] if isinstance(text, str) else text, _TEXT, _PIXELS)


def is_toon(path: Path) -> bool:
    """Whether the first readable row of a JSONL file is SceneGraphVLM's; False for a file that cannot be read."""
    try:
        return {"predict", "content"} <= next((row for _, row, error in read_rows(path) if not error), {}).keys()
    except DataError:
        return False


def image_id_of(row: Mapping) -> str | None:
    """The name of the image file without its ending, else the row's ``image_id``."""
    images = row.get("images")
    if isinstance(images, list) and images and isinstance(images[0], str):
        return PurePosixPath(images[0].replace("\\", "/")).stem
    return tidy_id(row.get("image_id"))


def read(argument: str, split: str | None = None) -> Iterator[Record]:
    """The ground truth of every row; of several rows with one image the first counts.

    Raises:
        DataError: the file is missing, or has no splits.
    """
    refuse_split(split, argument)
    seen = set()
    for number, row, error in read_rows(argument):
        where = f"{argument}, row {number}"
        if error:
            yield Record(where, None, (error,))
            continue
        image_id, result = image_id_of(row), parse(row.get("content"))
        if image_id is None or result.graph is None:
            error = f"needs 'images' and a 'content' in the line format ({result.status})"
            yield Record(where, None, (error,))
        elif image_id not in seen:
            seen.add(image_id)
            size = _SIZE.search(str(row.get("messages", "")))
            width, height = (int(size[1]), int(size[2])) if size else (0, 0)
            yield Record(where, Example(image_id, width, height, result.graph))
