"""Starting and stopping a real server for tests, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

LOADING = 600.0
"""Seconds that a server may take until it answers: on a busy machine its imports alone take a minute."""


@contextmanager
def running(command: Sequence[str], port: int, log: Path, **environment: str):
    """Runs a server until it answers on ``port``; gives its process, which is ended afterwards with its children.

    Raises:
        AssertionError: it ended, or did not answer; with the end of what it printed.
    """
    with log.open("wb") as output:
        settings = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=settings, start_new_session=True)
    try:
        end = time.monotonic() + LOADING
        while not _answers(port):
            assert process.poll() is None and time.monotonic() < end, log.read_text(errors="replace")[-3000:]
            time.sleep(0.2)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 15)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
    except (OSError, urllib.error.URLError):
        return False
    return True
