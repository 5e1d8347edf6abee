"""How far long work is: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
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

_LINE_SECONDS = 30

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


class _Lines:
    """In place of a bar where it would not be seen, in logs of batch jobs: a line every half minute."""

    def __init__(self, name: str, total: int | None) -> None:
        self.name, self.total, self.done = name, total, 0
        self.started = self.last = monotonic()

    def advance(self, count: int = 1) -> None:
        self.done += count
        now = monotonic()
        if now - self.last < _LINE_SECONDS:
            return
        self.last, rate = now, self.done / (now - self.started)
        left = f", {in_words((self.total - self.done) / rate)} left" if self.total and rate else ""
        print(
            f"{self.name}: {self.done}{f' of {self.total}' if self.total else ''}, {rate:.3g} a second{left}",
            file=sys.stderr,
            flush=True,
        )


def in_words(seconds: float) -> str:
    """A duration as people say it: ``40 s``, ``12 min``, ``1.5 h``."""
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 60 else f"{minutes} min" if minutes < 60 else f"{seconds / 3600:.1f} h"


@contextmanager
def progress_bar(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show on the error stream how far it is; the value is a function that advances it by a number."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(name, total).advance
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
