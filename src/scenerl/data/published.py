"""What the readers of published sets share: splits, files and folders, numbered names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from scenerl.answers.elements import excerpt, normal_text
from scenerl.data.records import MissingFile
from scenerl.errors import DataError

_LOCAL_FILE = "/data/local-files/?d="  # what Label Studio puts before the path of a file in a folder that it serves
# A date, as in 20260131-photo.jpg, is none.
_UPLOAD_PREFIX = re.compile(r"(?!(?:19|20)\d\d[01]\d[0-3]\d-)[0-9a-f]{8}-(?=.)")


def without_upload_prefix(name: str) -> str:
    """A file's name without what Label Studio puts before it: eight hexadecimal digits and a hyphen.

    >>> without_upload_prefix("3f2a9c1b-photo.jpg"), without_upload_prefix("20260131-photo.jpg")
    ('photo.jpg', '20260131-photo.jpg')
    """
    return _UPLOAD_PREFIX.sub("", name, count=1)


class ImageFolders:
    """Looks image files up in the folders where users keep them.

    Args:
        root: the data set's folder.
        names: folders below it, of which those that exist are searched, in this order.
        holding: only those that hold one of these folders, where file names begin with them.
        beside: a folder to search first, which may as well hold no images.
    """

    def __init__(
        self, root: Path, names: Sequence[str], holding: Sequence[str] = (".",), beside: Path | None = None
    ) -> None:
        folders = [root / name for name in names]
        self.folders = [folder for folder in folders if any((folder / inner).is_dir() for inner in holding)]
        self.beside = [] if beside is None else [beside]

    def find(self, *file_names: str) -> Path | MissingFile | None:
        """The first file that is there, name by name; None where there is no folder."""
        paths = []
        for file_name in file_names:
            for folder in (*self.beside, *self.folders):
                path = (folder / file_name).absolute()
                if path.is_file():
                    return path
                paths.append(path)
        if not paths:
            return None
        expected = (self.folders[0] / file_names[0]).absolute() if self.folders else None
        return MissingFile(expected, tuple(dict.fromkeys(paths)))

    def find_named(self, *entries: object) -> Path | MissingFile | None:
        """As :meth:`find`, for what a file says of an image: its name, and perhaps an address after it.

        A name that is not there as it stands, one from another machine for example, is looked for by its last two
        parts, its last part, and that without Label Studio's prefix. What is no name does not count; None where none
        is.
        """
        names: list[str] = []
        for entry in entries:
            if not isinstance(entry, str) or not entry or "\0" in entry:
                continue
            if _LOCAL_FILE in entry:
                entry = unquote(entry.partition(_LOCAL_FILE)[2])
            elif "://" in entry:
                entry = unquote(urlsplit(entry).path).lstrip("/")
            if PurePosixPath(entry).is_absolute() and Path(entry).is_file():
                return Path(entry)
            parts = [part for part in entry.replace("\\", "/").split("/") if part not in ("", ".", "..")]
            last = parts[-1:]
            names += [entry, "/".join(parts), "/".join(parts[-2:]), *last, *map(without_upload_prefix, last)]
        if not (self.folders or self.beside) and names and PurePosixPath(names[0]).is_absolute():
            return MissingFile(Path(names[0]), (Path(names[0]),))
        return self.find(*dict.fromkeys(name for name in names if name))


def image_folders(setting: str, root: Path, names: Sequence[str], beside: Path | None = None) -> ImageFolders:
    """Where images may be: the folder of a setting, if it is not empty, or else beside a file and in some folders below
    the root.

    Raises:
        DataError: there is no such folder as the setting names.
    """
    if not setting:
        return ImageFolders(root, names, beside=beside)
    if not Path(setting).is_dir():
        raise DataError(f"images={setting}: there is no such folder")
    return ImageFolders(Path(setting), ["."])


def choose_split(split: str | None, allowed: Sequence[str], source: object) -> str:
    """The split, checked; None chooses the only one.

    Raises:
        DataError: there is no such split, or it is None and there are several.
    """
    if split is None and len(allowed) == 1:
        return allowed[0]
    if split in allowed:
        return split
    problem = "needs a split" if split is None else f"has no split {split!r}"
    raise DataError(f"{source} {problem}; allowed: {', '.join(allowed) or 'none, no such file there'}")


def refuse_split(split: str | None, source: object) -> None:
    """Raise a DataError where a split is given for a source that is one file."""
    if split is not None:
        raise DataError(f"{source} is one file and has no split {split!r}")


def find_file(folder: Path, names: Sequence[str], hint: str = "") -> Path:
    """The first of these files that is there, below the folder.

    Raises:
        DataError: none of them is; ``hint`` ends the message.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} holds none of: {', '.join(names)}{hint}")


def names_of(value: object, where: str) -> dict[int, str]:
    """Numbers to names, from a list (counted from 0) or an object whose keys are whole numbers in words.

    Raises:
        DataError: it is neither.
    """
    try:
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        names = {int(number): normal_text(name) if isinstance(name, str) else name for number, name in pairs}
    except (TypeError, ValueError):
        names = {}
    if not names or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f"{where} must be a list of names, or an object of numbers and names, found {excerpt(value)}")
    return names
