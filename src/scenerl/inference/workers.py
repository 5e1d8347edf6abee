"""Threads that do jobs side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any


class Workers:
    """A pool of threads that are daemons, as the interpreter's pools are not: Ctrl-C would wait for a slow server.

    Args:
        count: most jobs at a time; a thread is started with each of the first jobs.
    """

    def __init__(self, count: int):
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._count, self._started, self._lock = count, 0, threading.Lock()

    def submit(self, function: Callable, *args: Any) -> Future:
        """The future result of ``function(*args)``, or what it raises. A job that is not yet begun can be cancelled."""
        future: Future = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*args))
                except BaseException as error:
                    future.set_exception(error)

        self._jobs.put(job)
        with self._lock:
            if self._started < self._count:
                self._started += 1
                threading.Thread(target=self._work, daemon=True).start()
        return future

    def close(self) -> None:
        """End the threads once the jobs are done; does not wait for them."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _work(self) -> None:
        while job := self._jobs.get():
            job()
