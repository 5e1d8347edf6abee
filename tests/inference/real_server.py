"""Starting and stopping a real server for tests, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

from inference.loopback import free_port

VLLM_ON_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
"""Settings of a small vLLM beside others on one machine."""
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


@contextmanager
def running_vllm(model: Path, name: str, log: Path, *flags: str, **environment: str):
    """A vLLM server on the CPU; gives its process and its address."""
    port = free_port()
    # the package for CPUs has another name, for which the command `vllm serve` does not look
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--enforce-eager", *flags]
    with running(command, port, log, **{**VLLM_ON_CPU, "PYTHONPATH": "", **environment}) as process:
        yield process, f"http://127.0.0.1:{port}"


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
    except (OSError, urllib.error.URLError):
        return False
    return True
