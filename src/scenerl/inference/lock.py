"""One writer at a time for each file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def only_writer(*paths: Path) -> Iterator[None]:
    """While this lasts, no other process that asks the same writes these files.

    The lock is the operating system's, on an empty file ``.NAME.lock`` beside each. It ends with the process, however
    that ends; a lock file that a killed process left holds nobody up. File systems without locks let everyone in.

    Raises:
        ValueError: another process writes one of them; names it.
    """
    with ExitStack() as held:
        for path in dict.fromkeys(map(Path, paths)):
            held.enter_context(_locked(path))
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    real = path.resolve()
    lock = real.with_name(f".{real.name}.lock")
    descriptor = None
    while descriptor is None:
        descriptor = _try(lock, path)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)  # before the lock ends, so that it is never the next one's file that goes
        os.close(descriptor)


def _try(lock: Path, path: Path) -> int | None:
    """The open lock file, locked; None where it was removed by the process that had it before."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ValueError(
            f"{path}: another process is writing it; wait for it, give each its part with --shard, or an --out of its "
            "own"
        ) from error
    except OSError:
        return descriptor  # some network file systems have no locks
    try:
        if os.path.samestat(os.fstat(descriptor), lock.stat()):
            return descriptor
    except FileNotFoundError:
        pass
    os.close(descriptor)
    return None
