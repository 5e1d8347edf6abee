"""Servers and training on one machine: which GPUs each gets, and how they start, fail and end together.

The programs are stand-ins; they are started, signalled and ended as vLLM and accelerate are.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scenerl import cli

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "r1_sgg" / "grpo_qwen2vl7b_vg150.yaml"
MACHINE = """\
nodes: 1
gpus_per_node: 4
gpu: gh200
gpu_memory_gib: 96
sharding: none
accelerate: recipes/profiles/accelerate/ddp.yaml
server_gpus: 2
gpus_per_server: 1
grpo: {per_device_train_batch_size: 8, use_vllm: true, vllm_mode: server, vllm_sync: checkpoint}
"""
# A server has a process of its own, as vLLM's engine; both are listed.
SERVER = """\
sleep 1000 &
echo "$$ $!" >> pids
printf "%s\\n" "$CUDA_VISIBLE_DEVICES" "$@" > "server.$CUDA_VISIBLE_DEVICES"
trap 'echo "server ended" >> order; exit 0' TERM
if [ "$CUDA_VISIBLE_DEVICES" = "$FAILS" ]; then
    while [ ! -e waiting ]; do sleep 0.05; done
    echo "out of memory"
    exit 3
fi
wait
"""
TRAINING = """\
echo "$$" >> pids
printf "%s\\n" "$CUDA_VISIBLE_DEVICES" "$@" > words
trap 'echo "training stopped" >> order; exit 75' TERM
while [ ! -s server.2 ] || [ ! -s server.3 ]; do sleep 0.05; done
[ "$ENDS" ] && exit "$ENDS"
touch waiting
while true; do sleep 0.05; done
"""


@pytest.fixture
def start(tmp_path):
    """Start ``scenerl launch`` in a folder with the stand-ins."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in {"vllm": SERVER, "accelerate": TRAINING}.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}")
        (folder / name).chmod(0o755)
    (tmp_path / "machine.yaml").write_text(MACHINE)
    variables = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    started = []

    def start(**environment: str) -> subprocess.Popen:
        words = [sys.executable, "-m", "scenerl", "launch", str(RECIPE), "--profile", "machine.yaml"]
        known = {**os.environ, **variables, "FAILS": "", "ENDS": "", **environment}
        started.append(subprocess.Popen(words, cwd=tmp_path, env=known, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def assert_all_ended(folder: Path) -> None:
    pids = [int(pid) for line in lines(folder / "pids") for pid in line.split()]
    assert len(pids) == 5  # two servers of two processes, and training
    end = time.monotonic() + 10
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists() and not is_zombie(pid)]:
        assert time.monotonic() < end, alive
        time.sleep(0.05)


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_servers_end_with_training(start, tmp_path):
    launch = start(ENDS="7")
    launch.communicate(timeout=60)
    assert launch.returncode == 7
    assert lines(tmp_path / "order") == ["server ended"] * 2
    assert_all_ended(tmp_path)
    words = lines(tmp_path / "words")
    assert words[0] == "0,1" and words[words.index("--num_processes") + 1] == "2"
    urls = words[words.index("--vllm_server_base_url") + 1].split(",")
    for number, url in zip("23", urls, strict=True):
        served = lines(tmp_path / f"server.{number}")
        assert served[:2] == [number, "serve"] and url == f"http://127.0.0.1:{served[served.index('--port') + 1]}"
        assert served[served.index("--host") + 1] == "127.0.0.1"  # nobody else can change the server
    assert len(set(urls)) == 2


def test_a_server_that_fails_ends_training(start, tmp_path):
    launch = start(FAILS="3")
    _, said = launch.communicate(timeout=60)
    assert launch.returncode == 2
    (log,) = (path for path in (tmp_path / "runs" / "servers").iterdir() if path.read_text())
    assert log.read_text() == "out of memory\n"
    assert f"a server ended with exit code 3, and with it training: {log.relative_to(tmp_path)}" in said
    assert lines(tmp_path / "order") == ["training stopped", "server ended"]
    assert_all_ended(tmp_path)


def test_a_signal_reaches_training_and_servers_outlive_it(start, tmp_path):
    """Training saves a checkpoint, for which it may still need them."""
    launch = start()
    while not (tmp_path / "waiting").exists():
        time.sleep(0.05)
    launch.send_signal(signal.SIGTERM)
    launch.communicate(timeout=60)
    assert launch.returncode == 75
    assert lines(tmp_path / "order") == ["training stopped", "server ended", "server ended"]
    assert_all_ended(tmp_path)


def test_what_is_visible_is_divided(tmp_path, monkeypatch, capsys):
    (tmp_path / "machine.yaml").write_text(MACHINE)
    words = ["launch", str(RECIPE), "--profile", str(tmp_path / "machine.yaml"), "--print"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "9,8,7,6")
    assert cli.main(words) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == [f"CUDA_VISIBLE_DEVICES={gpus}" for gpus in ("7", "6", "9,8")]
    assert [line.endswith(" &") for line in printed] == [True, True, False]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert cli.main(words) == 2
    assert "profile machine needs 4 GPUs; CUDA_VISIBLE_DEVICES names 0,1" in capsys.readouterr().err
