"""Writing files: whole or not at all, by one process at a time, and only where the user can have meant it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from scenerl.errors import DataError, UserError


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Write a file whole or not at all: what is written to the path yielded appears under ``path`` at the end.

    A reader, or the next run after a kill or a full disk, sees the old file or the new one.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file, if any, is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path)
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path | str) -> Iterator[Path]:
    """As :func:`whole_file`, for a folder: the one yielded is there and empty; ``path`` must not exist."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path)
    draft.mkdir()
    try:
        yield draft
        os.replace(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def atomic_write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text with :func:`whole_file`."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def apply_umask(folder: Path | str) -> None:
    """Give the files in a folder the permissions that the umask says.

    safetensors writes weights for their owner alone, so that no other user and no container could serve a checkpoint.
    """
    mask = os.umask(0)  # the only way to read it
    os.umask(mask)
    for path in Path(folder).iterdir():
        if path.is_file():
            path.chmod(0o666 & ~mask)


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextmanager
def only_writer(*paths: Path) -> Iterator[None]:
    """While this lasts, no other process that calls this function writes these files.

    The lock is on an empty file ``.NAME.lock`` beside each and ends with the process, however that ends; a lock file
    that a killed process left behind blocks nobody.

    Raises:
        UserError: another process writes one of them; names it.
    """
    from filelock import FileLock, Timeout

    with ExitStack() as held:
        for path in dict.fromkeys(map(Path, paths)):
            path.parent.mkdir(parents=True, exist_ok=True)
            real = path.resolve()
            lock = FileLock(real.with_name(f".{real.name}.lock"), timeout=0)
            try:
                lock.acquire()
            except Timeout as error:
                raise UserError(
                    f"{path}: another process is writing it; wait for it, give each its part with --shard, or an --out "
                    "of its own"
                ) from error
            held.callback(_release, lock)
        yield


def _release(lock) -> None:
    """Remove the lock file while the lock is held: filelock does not take a lock on a file that is gone."""
    with suppress(OSError):  # Windows does not remove an open file; it stays, and blocks nobody
        os.unlink(lock.lock_file)
    lock.release()


def check_out(out: Path | None, inputs: Iterable[Path | str | None] = (), name: str = "out") -> None:
    """Make sure that a command can and may write ``out``, as far as that shows without writing.

    Args:
        out: the file, or None where nothing is to be written.
        inputs: what the command reads: paths, or data sources; None is passed over.
        name: the option that ``out`` comes from, for messages.

    Raises:
        DataError: ``out`` is a folder, or a file that is read, or lies where nothing can be written.
    """
    if out is None:
        return
    out = Path(out)
    if out.is_dir():
        raise DataError(f"{name}: {out} is a folder; expected the name of a file")
    for source in inputs if out.exists() else ():
        for path in (Path(source or ""), Path(str(source or "").partition(":")[2])):  # a source may be coco:FILE
            if path.exists() and out.samefile(path):
                raise DataError(f"{name}: {out} is read by this command and would be overwritten; choose another name")
    _check_place(out, name)


def check_out_folder(out: Path, name: str = "out") -> None:
    """As :func:`check_out`, for a folder, which may be there.

    Raises:
        DataError: ``out`` is a file, or lies where nothing can be written.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise DataError(f"{name}: {out} is a file; expected the name of a folder")
    _check_place(out / "file", name)


def _check_place(out: Path, name: str) -> None:
    """Whether something can be made under this name."""
    there = next(folder for folder in out.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        problem = "cannot be written to" if there.is_dir() else "is a file, not a folder"
        raise DataError(f"{name}: {out} cannot be written: {there} {problem}")
