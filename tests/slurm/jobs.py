"""Submits runs with ``scenerl launch --slurm`` and reads what SLURM and the run itself say of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scenerl.config.recipes import dump_yaml
from slurm.cluster import record
from training.small_run import read_rows

PROFILES = Path(__file__).parents[2] / "recipes" / "profiles"
MACHINES = {"gpus_per_node": 1, "gpu": "none", "gpu_memory_gib": 1, "sharding": "none", "cpus_per_gpu": 1}
TWO_NODES = {**MACHINES, "nodes": 2, "accelerate": PROFILES / "accelerate" / "ddp.yaml"}
ONE_NODE = {**MACHINES, "nodes": 1}
FIELDS = {
    "out": "out",
    "global_batch_size": 32,
    "per_device_train_batch_size": 1,
    "max_steps": 12,
    "logging_steps": 1,
    "save_steps": 4,
    "save_total_limit": 1,
    "learning_rate": 1e-3,
    "gradient_checkpointing": False,
    "report_to": "none",
}
SETUP = f"source {Path(sys.prefix, 'bin', 'activate')} && export ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1"
"""What a user would write, and a line that keeps accelerate off GPUs that are not there."""


def submit(
    folder: Path, *words: str, name: str = "sft_run", profile: dict = TWO_NODES, setup: str = SETUP, **fields
) -> str:
    """The number of a job that runs in ``folder`` with the script as ``launch`` wrote it."""
    for path, content in ((f"{name}.yaml", {**FIELDS, **fields}), ("machines.yaml", profile)):
        (folder / path).write_text(dump_yaml(content))
    return launch(folder, f"{name}.yaml", "--profile", "machines.yaml", "--slurm", "--setup", setup, *words)


def launch(folder: Path, *words: str) -> str:
    """The number of the job that ``scenerl launch`` submits from a folder."""
    command = [sys.executable, "-m", "scenerl", "launch", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def log_of(job: str) -> str:
    """What a job printed in all of its attempts."""
    path = Path(record(job)["StdOut"])
    return path.read_text(errors="replace") if path.exists() else ""


def steps_of(out: Path) -> list[int]:
    """The optimiser steps in a run's log."""
    path = out / "log.jsonl"
    return [row["step"] for row in read_rows(path) if "loss" in row] if path.exists() else []
