"""What the readers of published sets share: splits, files and folders, numbered names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import isabs
from pathlib import Path

from scenerl.answers.elements import excerpt
from scenerl.errors import DataError


class ImageFolders:
    """Looks image files up in the folders where users keep them.

    Args:
        root: the data set's folder.
        names: folders below it, of which those that exist are searched, in this order.
        holding: only those that hold one of these folders, where file names begin with them.
    """

    def __init__(self, root: Path, names: Sequence[str], holding: Sequence[str] = (".",)) -> None:
        folders = [root / name for name in names]
        self.folders = [folder for folder in folders if any((folder / inner).is_dir() for inner in holding)]

    def find(self, *file_names: str) -> Path | None:
        """The first file that is there; where there are folders but no such file, the path it should have, so that
        what reads images says what is missing; None where there is no folder."""
        paths = [(folder / file_name).absolute() for folder in self.folders for file_name in file_names]
        return next((path for path in paths if path.is_file()), paths[0] if paths else None)

    def find_named(self, file_name: object) -> Path | None:
        """As :meth:`find`, for the entry of a file; a whole path stays itself, and what is no name is None."""
        if not isinstance(file_name, str) or not file_name or "\0" in file_name:
            return None
        return Path(file_name) if isabs(file_name) else self.find(file_name)


def image_folders(setting: str, root: Path, names: Sequence[str]) -> ImageFolders:
    """Where images may be: the folder of a setting, if it is not empty, or some folders below the root.

    Raises:
        DataError: there is no such folder as the setting names.
    """
    if not setting:
        return ImageFolders(root, names)
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
        names = {int(number): name for number, name in pairs}
    except (TypeError, ValueError):
        names = {}
    if not names or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f"{where} must be a list of names, or an object of numbers and names, found {excerpt(value)}")
    return names
