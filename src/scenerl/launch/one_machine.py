"""Servers and training on one machine, each with GPUs of its own."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from scenerl.errors import UserError
from scenerl.launch.job import Job
from scenerl.launch.servers import TIMEOUT, server_words

_HOST = "127.0.0.1"
_GRACE = 60
"""Seconds in which processes end after a SIGTERM; torchrun gives its own 30."""


class SharedMachine:
    """A job's servers and its training on this machine, each with GPUs of its own.

    Args:
        training: the command line of training.
        gpus: what CUDA_VISIBLE_DEVICES names; None: it is not set.

    Raises:
        UserError: fewer GPUs are visible than the profile has.
    """

    def __init__(self, job: Job, training: Sequence[str], gpus: str | None):
        count = job.profile.gpus_per_node
        visible = [str(number) for number in range(count)] if gpus is None else gpus.split(",")
        if len(visible) < count:
            raise UserError(f"profile {job.profile.name} needs {count} GPUs; CUDA_VISIBLE_DEVICES names {gpus}")

        def on(numbers: range) -> str:
            return ",".join(visible[number] for number in numbers)

        ports = _free_ports(len(job.servers))
        urls = ",".join(f"http://{_HOST}:{port}" for port in ports)
        address = ["--vllm_server_base_url", urls, "--vllm_server_timeout", str(TIMEOUT)]
        self.name = job.name
        self.training = (on(job.training_gpus), [*training, *address])
        self.servers = {
            port: (on(server.gpus), [*server_words(job, _HOST), "--port", str(port)])
            for port, server in zip(ports, job.servers, strict=True)
        }

    def __str__(self) -> str:
        """Lines for a shell that do the same, but end no server."""
        lines = [f"CUDA_VISIBLE_DEVICES={gpus} {shlex.join(words)} &" for gpus, words in self.servers.values()]
        return "\n".join([*lines, f"CUDA_VISIBLE_DEVICES={self.training[0]} {shlex.join(self.training[1])}"])

    def run(self, logs: Path) -> int:
        """Start all; SIGTERM and SIGUSR1 go on to training; end the servers after it. The exit code of training.

        Args:
            logs: folder for what the servers write.

        Raises:
            UserError: a server ended before training, which was ended too.
        """
        logs.mkdir(parents=True, exist_ok=True)
        with ExitStack() as started:
            servers = {}
            for port, (gpus, words) in self.servers.items():
                log = logs / f"{self.name}-{port}.log"
                file = started.enter_context(log.open("wb"))
                # a session of its own: the keyboard interrupts training, which still needs it
                servers[log] = _start(words, gpus, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
                started.callback(_end, servers[log], group=True)
            training = _start(self.training[1], self.training[0])
            started.callback(_end, training)
            for number in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, lambda number, _: training.send_signal(number))
            signal.signal(signal.SIGINT, lambda *_: None)  # the keyboard's reaches training as well
            while (code := training.poll()) is None:
                for log, server in servers.items():
                    if (ended := server.poll()) is not None:
                        raise UserError(f"a server ended with exit code {ended}, and with it training: {log}")
                time.sleep(0.2)
        return code if code >= 0 else 128 - code


def _free_ports(count: int) -> list[int]:
    with ExitStack() as bound:
        return [bound.enter_context(socket.create_server(("", 0))).getsockname()[1] for _ in range(count)]


def _start(words: Sequence[str], gpus: str, **settings) -> subprocess.Popen:
    environment: Mapping[str, str] = {**os.environ, "CUDA_VISIBLE_DEVICES": gpus}
    return subprocess.Popen(words, env=environment, **settings)


def _end(process: subprocess.Popen, group: bool = False) -> None:
    """Ask a process to end, or all of its session, and make it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number) if group else process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
            break
