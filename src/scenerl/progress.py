"""The progress bar of long work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
_SECONDS = 0.1
"""Between two advances of a bar that counts items, so that it takes no time of its own."""

_shown: list[Progress] = []


def show(progress: Progress) -> None:
    """Start a display that :func:`hide` ends, or :func:`close_displays` when something goes wrong before."""
    _shown.append(progress)
    progress.start()


def hide(progress: Progress) -> None:
    """End a display. It may have ended already."""
    if progress in _shown:
        _shown.remove(progress)
        progress.stop()


def close_displays() -> None:
    """End every display: bars go, the cursor comes back, and what is printed next stands on a line of its own."""
    while _shown:
        hide(_shown[-1])


def _count_silently(count: int = 1) -> None:
    """In place of a bar where nobody would see it."""


@contextmanager
def progress_bar(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on the error stream, if that is a terminal; the value is a function that advances it by a number."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _count_silently
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # What is printed meanwhile goes where it was meant to: rich would send standard output to the error stream.
    progress = Progress(*columns, console=console, transient=True, redirect_stdout=False)
    show(progress)
    try:
        task = progress.add_task(name, total=total)
        yield partial(progress.advance, task)
    finally:
        hide(progress)


def track(items: Iterable[T], name: str, total: int | None = None) -> Iterator[T]:
    """The items, counted on a :func:`progress_bar` as they are taken.

    Args:
        total: how many there are, where that is known.
    """
    with progress_bar(name, total) as advance:
        count, last = 0, monotonic()
        for item in items:
            yield item
            count += 1
            if (now := monotonic()) - last >= _SECONDS:
                advance(count)
                count, last = 0, now
