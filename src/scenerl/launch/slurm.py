"""The SLURM job script of a recipe and a profile: it queues itself again when it is preempted or out of time."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from scenerl.config import LaunchOptions
from scenerl.errors import UserError
from scenerl.launch.job import Job

REQUEUE = 75
"""Exit code of a run that was stopped by a signal and can go on, as ``scenerl.training.preemption`` has it."""
PORT, SERVER_PORT = 29500, 8000
_UNSAFE = ("\n", "\r", "\0")


def job_script(job: Job, options: LaunchOptions, folder: Path) -> str:
    """A bash script for sbatch.

    Args:
        folder: where its output goes; sbatch wants it to be there.

    Raises:
        UserError: an option of sbatch that is not NAME=VALUE, or a line break in a value.
    """
    lines = ["#!/bin/bash", *_directives(job, options, folder), ""]
    lines += [
        "# Signals reach this shell first: USR1 before the time limit, TERM on preemption. Training gets TERM, saves a",
        f"# checkpoint and ends; then the job queues itself again. {REQUEUE} is the exit code of a run that can go on.",
        "stopping=0",
        "training=",
        'stop() { stopping=1; [ -n "$training" ] && kill -TERM "$training" 2>/dev/null; }',
        "trap stop USR1 TERM",
        f"export TORCH_ELASTIC_SHUTDOWN_TIMEOUT={max(30, options.grace - 20)}  # torchrun kills after 30 s otherwise",
        'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"  # srun no longer takes it over from sbatch by itself',
        f"mkdir -p {shlex.quote(str(folder))}",
        'nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))',
        "",
    ]
    lines += _server(job, options) if job.server_nodes else []
    lines += [f"{_training(job, options)} &", "training=$!", 'wait "$training"', "code=$?"]
    lines += [
        'while kill -0 "$training" 2>/dev/null; do wait "$training"; code=$?; done  # a signal ends wait, not training',
        f'if [ "$code" -ne 0 ] && {{ [ "$stopping" -eq 1 ] || [ "$code" -eq {REQUEUE} ]; }}; then',
        '  echo "queued again after a stop; the run goes on from its last checkpoint"',
        '  scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        'exit "$code"',
    ]
    return "\n".join(lines) + "\n"


def _directives(job: Job, options: LaunchOptions, folder: Path) -> list[str]:
    profile = job.profile
    settings = {
        "job-name": job.name,
        "nodes": profile.nodes + job.server_nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": profile.gpus_per_node,
        "cpus-per-task": profile.cpus_per_gpu * profile.gpus_per_node,
        "time": options.time,
        "signal": f"B:USR1@{options.grace}",
        "output": folder / f"{job.name}-%j.out",
        "open-mode": "append",
    }
    for item in options.sbatch:
        name, equals, value = item.partition("=")
        if not equals or not name.replace("-", "").isalnum():
            raise UserError(f"sbatch: {item!r} is not NAME=VALUE, as account=a-a03")
        settings[name] = value
    for name, value in settings.items():
        if any(char in str(value) for char in _UNSAFE):
            raise UserError(f"sbatch: {name}: a line break in {value!r}")
    return [*(f"#SBATCH --{name}={_directive(value)}" for name, value in settings.items()), "#SBATCH --requeue"]


def _directive(value) -> str:
    """sbatch splits directives at blanks, and takes quotes as a shell does; ``%j`` stays."""
    text = str(value)
    return shlex.quote(text) if any(char.isspace() or char in "'\"\\#" for char in text) else text


def _on_each_node(words: Sequence[str], setup: str | None) -> str:
    """The words as a command, behind the user's line, which is all that another shell reads."""
    if not setup:
        return shlex.join(words)
    shell = _after(setup, 'exec "$@"')
    return f"bash -c {shlex.quote(shell)} bash {shlex.join(words)}"


def _after(setup: str | None, command: str) -> str:
    return f"{setup} && {command}" if setup else command


def _training(job: Job, options: LaunchOptions) -> str:
    profile = job.profile
    srun = f"srun --nodes={profile.nodes} --ntasks={profile.nodes} --ntasks-per-node=1 --kill-on-bad-exit=1"
    if job.server_nodes:
        srun += f' --nodelist="$(IFS=,; echo "${{nodes[*]:0:{profile.nodes}}}")"'
    if profile.accelerate is None:
        return f"{srun} {_on_each_node(['python', '-m', 'scenerl', *job.arguments], options.setup)}"
    head = ["accelerate", "launch", "--config_file", str(profile.accelerate)]
    head += ["--num_machines", str(profile.nodes), "--num_processes", str(profile.num_gpus)]
    # The rank of a node is known there only, the first node's name here only.
    words = shlex.join([*head, "--main_process_port", str(PORT)])
    rest = ["--module", "scenerl", *job.arguments]
    if job.server_nodes:
        rest += ["--vllm_server_port", str(SERVER_PORT), "--vllm_server_timeout", "1200"]
    shell = _after(options.setup, f'exec {words} --machine_rank "$SLURM_NODEID" --main_process_ip "$@"')
    address = '"${nodes[0]}"'
    server = f' --vllm_server_host "${{nodes[{profile.nodes}]}}"' if job.server_nodes else ""
    return f"{srun} bash -c {shlex.quote(shell)} bash {address} {shlex.join(rest)}{server}"


def _server(job: Job, options: LaunchOptions) -> list[str]:
    """vLLM on the nodes behind the training nodes; training waits for it by itself."""
    profile = job.profile
    words = ["trl", "vllm-serve", "--model", str(job.value("model")), "--port", str(SERVER_PORT)]
    words += ["--tensor_parallel_size", str(profile.gpus_per_node)]
    if job.value("vllm_max_model_length"):
        words += ["--max_model_len", str(job.value("vllm_max_model_length"))]
    srun = f'srun --nodes=1 --ntasks=1 --nodelist="${{nodes[{profile.nodes}]}}"'
    return [
        f"{srun} {_on_each_node(words, options.setup)} &",
        "server=$!",
        "trap 'kill \"$server\" 2>/dev/null' EXIT",
        "",
    ]
