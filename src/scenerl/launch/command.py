"""The ``launch`` command: a recipe on the machines of a profile, here or as a SLURM job."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scenerl.commands.sources import sources_of
from scenerl.errors import UserError
from scenerl.files import atomic_write_text
from scenerl.launch.job import Job, make_job
from scenerl.launch.one_machine import SharedMachine
from scenerl.launch.profiles import find_profile
from scenerl.launch.slurm import job_script
from scenerl.plugins import check_files

if TYPE_CHECKING:
    from scenerl.commands.launch import LaunchOptions

SCRIPTS = Path("runs") / "slurm"
"""Where job scripts and their output are written, in the working directory."""
SERVERS = Path("runs") / "servers"
"""Where the output of servers is written that run beside training."""


def run(options: LaunchOptions) -> int:
    """Print, start or submit.

    Raises:
        UserError: recipe and profile do not go together, or the profile needs more than this machine has.
    """
    job = make_job(options.recipe, find_profile(options.profile, options.recipe[0]), options.set)
    if options.slurm:
        script = job_script(job, options, SCRIPTS)
        if options.print:
            print(script, end="")
            return 0
        return _submit(job, script)
    if options.seeds:
        raise UserError("seeds: a job array needs SLURM; add --slurm, or use --set seed=N out=FOLDER")
    command = local_command(job)
    machine = SharedMachine(job, command, os.environ.get("CUDA_VISIBLE_DEVICES")) if job.servers else None
    if options.print:
        print(machine or shlex.join(command))
        return 0
    if not shutil.which(command[0]):
        raise UserError(f"{command[0]} is not installed; pip install 'scenerl[train]'")
    if job.profile.sharding.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        raise UserError(f"profile {job.profile.name}: DeepSpeed is not installed; pip install 'scenerl[deepspeed]'")
    sys.stdout.flush()
    if machine:
        if not shutil.which("vllm"):
            raise UserError("vllm is not installed, and the profile's servers need it (docs/cluster.md)")
        return machine.run(SERVERS)
    os.execvp(command[0], command)  # signals go straight to it, its exit code is ours


def local_command(job: Job) -> list[str]:
    """The command line on one machine.

    Raises:
        UserError: the profile has several nodes.
    """
    if job.nodes > 1:
        raise UserError(
            f"profile {job.profile.name} has {job.nodes} nodes: add --slurm, or --print --slurm to see what to run on "
            "each"
        )
    if job.profile.accelerate is None:
        return [sys.executable, "-m", "scenerl", *job.arguments]
    # a free port: another run on this machine may have accelerate's usual one
    return [*job.accelerate, "--main_process_port", "0", "--module", "scenerl", *job.arguments]


def _submit(job: Job, script: str) -> int:
    sources = [source.source for source in sources_of(job.options.data)]
    check_files([*sources, *getattr(job.options, "rewards", ())])  # before the job has waited in a queue
    if not shutil.which("sbatch"):
        raise UserError("sbatch is not installed here; --print shows the job script")
    SCRIPTS.mkdir(parents=True, exist_ok=True)
    path = SCRIPTS / f"{job.name}.sbatch"
    atomic_write_text(path, script)
    return subprocess.run(["sbatch", str(path)]).returncode
