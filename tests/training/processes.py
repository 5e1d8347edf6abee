"""Starts a script as several processes that know each other, as torchrun does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


def run(count: int, script: Path, *words) -> tuple[list[int], list[str]]:
    """Exit codes and errors of ``count`` processes of a script, on CPUs, connected by gloo; one alone is on its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true",
                   "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}  # fmt: skip
    if count > 1:
        environment |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {} for rank in range(count)]
    command = [sys.executable, str(script), *map(str, words)]
    processes = [
        subprocess.Popen(command, env={**environment, **rank}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for rank in ranks
    ]
    errors = [process.communicate(timeout=1500)[1].decode() for process in processes]
    return [process.returncode for process in processes], errors
