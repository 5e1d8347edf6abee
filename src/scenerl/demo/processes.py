"""Work in processes side by side, none of which outlives the one that started it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import TextIO, TypeVar

from rich.console import Console

Job = TypeVar("Job", bound=tuple)


def num_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def side_by_side(
    work: Callable[..., None],
    jobs: Sequence[Job],
    workers: int,
    threads: int = 1,
    needs: Callable[[Job], Job | None] = lambda job: None,
) -> Iterator[tuple[Job, BaseException | None]]:
    """Call ``work(*job)`` for each job, earlier ones first, and yield a job with its error, if any, as it ends.

    Closed early, it ends the processes, which save a checkpoint if they train.

    Args:
        work: a function of a module; jobs can be pickled.
        workers: processes.
        threads: of each process.
        needs: the job that has to end well before this one.
    """
    waiting, running, done = list(jobs), {}, []
    before = multiprocessing.active_children()
    with (
        _environment("OMP_NUM_THREADS", str(threads)),
        ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent) as pool,
    ):
        try:
            while waiting or running:
                ready = [job for job in waiting if needs(job) is None or needs(job) in done]
                for job in ready[: workers - len(running)]:
                    waiting.remove(job)
                    running[pool.submit(work, *job)] = job
                if not running:  # what the others need has failed
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job, error = running.pop(future), future.exception()
                    if error is None:
                        done.append(job)
                    yield job, error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                if process not in before:
                    process.terminate()
            raise


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """A variable for what is done, and which processes are started, meanwhile."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _end_with_parent() -> None:
    """What is killed leaves no process behind that writes into its folder; Ctrl-C is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


class NamedLines:
    """A stream on which every line begins with a name, for output of several processes on one terminal.

    Args:
        name: what the lines begin with.
        stream: where they are written, each at once.
    """

    encoding = "utf-8"

    def __init__(self, name: str, stream: TextIO):
        self.name, self.stream, self._line = name, stream, ""

    def write(self, text: str) -> int:
        """Write the lines that are whole."""
        written = len(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            text = line.rpartition("\r")[2]  # of a bar that was drawn over and over what came last
            self.stream.write(f"{self.name}{text}\n" if text.strip() else "")
        self.stream.flush()
        return written

    def flush(self) -> None:
        """Nothing: a line is written when it is whole."""

    def isatty(self) -> bool:
        """Bars of several processes would overwrite one another."""
        return False


@contextlib.contextmanager
def named_lines(name: str) -> Iterator[None]:
    """Begin every line that this process prints with a name."""
    width = str(Console().width - len(name))
    output, errors = NamedLines(name, sys.stdout), NamedLines(name, sys.stderr)
    with (
        _environment("COLUMNS", width),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            yield
        finally:
            print()
            print(file=sys.stderr)  # ends a line that was begun
