"""Functions in a user's own files, written ``FILE.py:NAME``: rewards, metrics, data sets."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from scenerl.errors import UserError, near_files
from scenerl.files import whole_file

FOLDER = "code"
"""In a run folder: the files of ours that the run used."""


def is_own(name: str) -> bool:
    """Whether a name is that of a function in a file."""
    return name.rpartition(":")[0].endswith(".py")


def check_files(names: Iterable[str]) -> None:
    """See that the files of own functions are there; other names do not count.

    Raises:
        UserError: one is not.
    """
    for name in filter(is_own, names):
        if not _file(name).is_file():
            raise UserError(f"{name}: there is no file {_file(name).absolute()}{near_files(_file(name))}")


def load_function(name: str) -> Callable:
    """The function of a name ``FILE.py:NAME``; a file is executed once.

    Raises:
        UserError: there is no such file or function, or the file cannot be executed; says where it fails.
    """
    check_files([name])
    file, _, function = name.rpartition(":")
    found = getattr(_execute(Path(file).resolve()), function, None)
    if not callable(found):
        raise UserError(f"{name}: {file} has no function {function!r}")
    return found


def described(error: Exception, file: str | Path) -> str:
    """An error of a user's code in one line, with the last line of the file that it passed through."""
    own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == Path(file)]
    return f"{type(error).__name__}: {error}" + (f" (line {own[-1]} of {file})" if own else "")


def finite_number(value: object) -> float | None:
    """What a user's function returned as a finite number; None where it is none. The text of one is none."""
    try:
        number = float(value)  # numbers of numpy and torch too
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(value, str | bytes) else None


def digest(name: str) -> str:
    """Digest of the content of the file that a name ``FILE.py:NAME`` is in."""
    return hashlib.sha256(_file(name).read_bytes()).hexdigest()[:12]


def keep_code(folder: Path, names: Iterable[str]) -> None:
    """Copy the files that a run uses into its folder, under names with a digest of their content.

    Raises:
        UserError: the run began with other content of a file.
    """
    for path, name in {_file(name): name for name in names if is_own(name)}.items():
        copy = folder / FOLDER / f"{path.stem}-{digest(name)}.py"
        if copy.exists():
            continue
        if earlier := list((folder / FOLDER).glob(f"{path.stem}-*.py")):
            raise UserError(
                f"{folder}: belongs to another run; {path} is not as it was ({earlier[0]}); use --fresh to replace it, "
                "or another --out"
            )
        with whole_file(copy) as draft:
            draft.write_bytes(path.read_bytes())


def _file(name: str) -> Path:
    return Path(name.rpartition(":")[0].removeprefix("own:"))


def _execute(path: Path) -> ModuleType:
    name = f"scenerl_own_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{path}: cannot be executed: {described(error, path)}") from error
    return module
