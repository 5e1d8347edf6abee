"""Images without annotations, to be predicted: files, folders and patterns, as ``photos:PATH``, a path in each line.

Image ids are paths: a file's own name, or its path below the folder. Ground truth is empty.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path

from scenerl.data.images import image_size
from scenerl.data.published import refuse_split
from scenerl.data.records import Record, build_example
from scenerl.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def read(argument: str, split: str | None = None) -> Iterator[Record]:
    """A record for each image, in the order of the paths, those of a folder (and of folders in it) by name.

    One that is damaged is found out when it is opened, as in other sets; until then it is 1 x 1 pixels.

    Raises:
        DataError: a path does not exist, a pattern fits no file, or a folder holds no image.
    """
    refuse_split(split, argument)
    for path, image_id in _files(argument):
        try:
            size = image_size(path, image_id)
        except DataError:
            size = (1, 1)
        yield build_example(str(path), image_id, size, [], [], image=path.absolute())


def is_photo(source: str) -> bool:
    """Whether a source is the path of an image, a pattern, or several of them."""
    return Path(source).suffix.lower() in SUFFIXES or "\n" in source or (glob.has_magic(source) and ":" not in source)


def holds_photos(folder: Path) -> bool:
    return next(_images_in(folder), None) is not None


def _files(argument: str) -> Iterator[tuple[Path, str]]:
    for line in filter(None, argument.splitlines()):
        path = Path(line)
        if path.is_dir():
            files = sorted(_images_in(path))
            names = [file.relative_to(path).as_posix() for file in files]
        elif path.is_file():
            files, names = [path], [path.name]
        else:
            files = sorted(file for found in glob.glob(line, recursive=True) if (file := Path(found)).is_file())
            names = [file.as_posix() for file in files]
        if not files:
            kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
            raise DataError(f"{line}: no image there; allowed: an image, a pattern, or a folder with files in {kinds}")
        yield from zip(files, names, strict=True)


def _images_in(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
