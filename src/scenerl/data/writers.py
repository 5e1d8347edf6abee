"""What ``scenerl data convert`` writes: our JSONL, Parquet in the hub schema, COCO instances, or text
for graph stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from scenerl.data import instances
from scenerl.data.graph_files import write_cypher, write_turtle
from scenerl.data.images import without_orientation
from scenerl.data.inspect.draw import file_stem
from scenerl.data.jsonl import write_jsonl
from scenerl.data.rows import example_to_row
from scenerl.errors import DataError
from scenerl.types import Example

SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}
"""First bytes of an image file to the suffix it is written under."""

Writer = Callable[[Path, Iterable[Example]], int]
"""Writes examples, whole or not at all, and returns how many."""


def _jsonl(out: Path, examples: Iterable[Example]) -> int:
    images = out.parent / "images"

    def rows() -> Iterator[dict]:
        for example in examples:
            if not all(example.image_wh):
                raise DataError(f"image {example.image_id!r}: the source lacks its width and height, which rows need")
            yield example_to_row(example, _file_name(example, images))

    return write_jsonl(out, rows())


def _hub(out: Path, examples: Iterable[Example]) -> int:
    from scenerl.data import hub

    return hub.write(out, examples)


def _coco(out: Path, examples: Iterable[Example]) -> int:
    return instances.write(out, _with_files(examples, out))


WRITERS: dict[str, tuple[str, Writer]] = {
    "jsonl": (".jsonl", _jsonl),
    "hub": (".parquet", _hub),
    "coco": (".json", _coco),
    "turtle": (".ttl", write_turtle),
    "cypher": (".cypher", write_cypher),
}
"""Name of a file format to its suffix and its writer."""


def _with_files(examples: Iterable[Example], out: Path) -> Iterator[Example]:
    """The examples with their images as files, named by their whole path; those that are none yet, or that readers
    would turn, become files in ``images/`` beside ``out``."""
    images = out.parent / "images"
    for example in examples:
        if example.image is not None:
            example = without_orientation(example)
        name = _file_name(example, images)
        yield example if name is None else replace(example, image=(images / name).resolve())


def _file_name(example: Example, images: Path) -> str | None:
    """What goes into the row's ``file_name``; encoded images are written to ``images``."""
    if isinstance(example.image, Path):
        return str(example.image.resolve())
    if example.image is None:
        return None
    suffix = next((end for start, end in SUFFIXES.items() if example.image.startswith(start)), ".img")
    path = images / f"{file_stem(example.image_id)}{suffix}"
    if path.exists() and path.read_bytes() != example.image:
        raise DataError(f"{path} exists and is another image than that of image_id {example.image_id!r}")
    images.mkdir(parents=True, exist_ok=True)
    path.write_bytes(example.image)
    return path.name
