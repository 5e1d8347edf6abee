"""Rows of synthetic scenes: written to files, or made on the fly."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from PIL import Image

from scenerl.data.jsonl import write_jsonl
from scenerl.data.published import choose_split
from scenerl.data.records import Record
from scenerl.data.rows import example_to_row
from scenerl.errors import DataError, UserError
from scenerl.types import Example

Annotated = tuple[Image.Image, dict[str, Example]]
"""A scene and its annotations by kind."""
Annotator = Callable[[str, int, int, str], Annotated]
"""Makes the scene of a name, a seed, a size in pixels and a split."""
Progress = Callable[[int], None]
"""Called with 1 after each scene."""


def write_scenes(
    out_dir: Path,
    annotated: Annotator,
    splits: Mapping[str, tuple[int, str, Mapping[str, str]]],
    seed: int,
    size: int,
    progress: Progress | None,
) -> None:
    """Write a synthetic set: images, and at the end of each split its files of rows, whole.

    Args:
        splits: number of scenes, the split for ``annotated``, and the file of rows for each kind of annotation.
        size: of the images in pixels.

    Raises:
        UserError: a split without scenes, or scenes narrower than 28 pixels.
    """
    numbers = {"num_train": (splits["train"][0], 1), "num_test": (splits["test"][0], 1), "size": (size, 28)}
    for name, (value, least) in numbers.items():
        if value < least:
            raise UserError(f"{name} is {value}; it must be at least {least}")
    images = Path(out_dir) / "images"
    images.mkdir(parents=True, exist_ok=True)
    for name, (count, split, files) in splits.items():
        rows: dict[str, list[dict]] = {kind: [] for kind in files}
        for index in range(count):
            image, examples = annotated(f"{name}_{index:05d}", seed, size, split)
            file_name = f"{name}_{index:05d}.png"
            image.save(images / file_name, compress_level=1)
            for kind, found in rows.items():
                found.append(example_to_row(examples[kind], file_name))
            if progress:
                progress(1)
        for kind, found in rows.items():
            write_jsonl(Path(out_dir) / f"{files[kind]}.jsonl", found)


def read_scenes(
    name: str, annotated: Annotator, splits: Mapping[str, str], argument: str, split: str | None
) -> Iterator[Record]:
    """The records of a synthetic set, made on the fly; images are PNG bytes.

    Args:
        splits: split to kind of annotation, the default first.

    Raises:
        DataError: an unknown split or setting.
    """
    settings = {"count": 100, "seed": 0, "size": 112}
    split = choose_split(split or next(iter(splits)), list(splits), name)
    for part in filter(None, argument.split(",")):
        key, _, value = part.partition("=")
        if key not in settings or not value.isdecimal():
            raise DataError(
                f"{name}: {part!r} is not understood; allowed: {', '.join(settings)}, each =NUMBER, separated by commas"
            )
        settings[key] = int(value)

    def record(index: int) -> Record:
        image, examples = annotated(f"stream_{index:05d}", settings["seed"], settings["size"], split)
        png = io.BytesIO()
        image.save(png, "PNG", compress_level=1)
        return Record(f"{name}, row {index + 1}", replace(examples[splits[split]], image=png.getvalue()))

    return map(record, range(settings["count"]))
