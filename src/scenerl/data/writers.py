"""What ``scenerl data convert`` writes: for each form that a data set is published in, examples to a file or folder.

Adding one is a ``write`` in the data set's module, a line in :data:`WRITERS` and its name in
:class:`~scenerl.commands.data.DataOptions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from scenerl.data.draw import file_stem
from scenerl.data.jsonl import write_jsonl
from scenerl.data.rows import example_to_row
from scenerl.data.vocabulary import Vocabulary
from scenerl.errors import DataError
from scenerl.types import Example

SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}
"""First bytes of an image file to the suffix it is written under."""

Writer = Callable[[Path, Iterable[Example], str | None, Vocabulary | None], int]
"""Writes examples, whole or not at all, and says how many. Besides: the split that they are of, for forms that say it
in the file, and names whose order numbers classes and predicates, for forms that number them."""


def _jsonl(out: Path, examples: Iterable[Example], split: str | None, names: Vocabulary | None) -> int:
    images = out.parent / "images"
    return write_jsonl(out, (example_to_row(example, _file_name(example, images)) for example in examples))


def _hub(out: Path, examples: Iterable[Example], split: str | None, names: Vocabulary | None) -> int:
    from scenerl.data import hub

    return hub.write(out, examples)


def _psg(out: Path, examples: Iterable[Example], split: str | None, names: Vocabulary | None) -> int:
    from scenerl.data import psg

    return psg.write(out, _with_files(examples, out), split == "test", names)


def _vg150(out: Path, examples: Iterable[Example], split: str | None, names: Vocabulary | None) -> int:
    from scenerl.data import vg150

    return vg150.write(out, _with_files(examples, out), split == "test", names)


def _vcoco(out: Path, examples: Iterable[Example], split: str | None, names: Vocabulary | None) -> int:
    from scenerl.data import vcoco

    return vcoco.write(out, _with_files(examples, out), split if split in vcoco.SPLITS else "train")


def _coco(out: Path, examples: Iterable[Example], split: str | None, names: Vocabulary | None) -> int:
    from scenerl.data import instances

    return instances.write(out, _with_files(examples, out))


def _d3(out: Path, examples: Iterable[Example], split: str | None, names: Vocabulary | None) -> int:
    from scenerl.data import d3

    return d3.write(out, _with_files(examples, out), split if split in d3.SPLITS else d3.SPLITS[0])


def _ovdeval(out: Path, examples: Iterable[Example], split: str | None, names: Vocabulary | None) -> int:
    from scenerl.data import ovdeval

    return ovdeval.write(out, _with_files(examples, out))


def _vlmr1(out: Path, examples: Iterable[Example], split: str | None, names: Vocabulary | None) -> int:
    from scenerl.data import vlmr1

    return vlmr1.write(out, _with_files(examples, out))


WRITERS: dict[str, tuple[str, Writer]] = {
    "jsonl": (".jsonl", _jsonl),
    "hub": (".parquet", _hub),
    "vg150": ("", _vg150),
    "psg": (".json", _psg),
    "vcoco": ("", _vcoco),
    "coco": (".json", _coco),
    "d3": ("", _d3),
    "ovdeval": (".json", _ovdeval),
    "vlmr1_jsonl": (".jsonl", _vlmr1),
}
"""Name of a form to its suffix, none for a folder, and its writer."""


def _with_files(examples: Iterable[Example], out: Path) -> Iterator[Example]:
    """The examples with their images as files, named by their whole path; those that are none yet become files in
    ``images/`` beside ``out``."""
    images = out.parent / "images"
    for example in examples:
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
