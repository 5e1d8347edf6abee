"""The SLURM job script of a recipe and a profile. It requeues itself when it is preempted or runs out of time."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scenerl.errors import UserError
from scenerl.launch.job import Job

if TYPE_CHECKING:
    from scenerl.commands.launch import LaunchOptions

STEP = "training"
"""Name of the job step that trains, by which the script finds it."""
DECIDED = {
    "nodes": "the profile",
    "ntasks": "the profile",
    "ntasks-per-node": "the profile",
    "time": "--time",
    "signal": "--grace",
    "array": "--seeds",
    "requeue": "the job script",
    "no-requeue": "the job script",
}
"""Options of sbatch that the job script relies on, and what sets them."""
_UNSAFE = ("\n", "\r", "\0")

_HEAD = """\
# Ways in which this job can end:
# - The time limit: SLURM sends USR1 to this shell, which passes it to the training step as TERM. Training saves a
#   checkpoint and ends, and the job requeues itself. (TERM for srun would kill training at once.)
# - Preemption: SLURM sends TERM to the steps and nothing to this shell; PreemptTime in the job's record says so.
# - A signal to the steps, as scancel --signal=TERM sends it: training writes the file $SCENERL_STOPPED.
# - scancel, or a node that no longer answers: the job is no longer RUNNING. A cancelled one must not come back; SLURM
#   requeues one that lost a node.
# - By itself: done, or a mistake that would only come again.
stopping=0
training_step() {{ squeue -hs -j "$SLURM_JOB_ID" -o "%i %j" | awk '$2 == "{step}" {{print $1}}'; }}
signal_training() {{
  local id
  for _ in {{1..10}}; do id=$(training_step); [ -n "$id" ] && break; sleep 1; done
  [ -n "$id" ] && scancel --signal="$1" "$id"
}}
trap 'stopping=1; signal_training TERM' USR1
trap : TERM
nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
if [ "${{#nodes[@]}}" -ne {nodes} ]; then echo {needs}"; this job has ${{#nodes[@]}}" >&2; exit 2; fi
port=$((20000 + SLURM_JOB_ID % 5000 * 2))  # other jobs on these nodes have other ports
mkdir -p {folder}
export SCENERL_STOPPED="$PWD/"{folder}"/$SLURM_JOB_ID.stopped"
rm -f "$SCENERL_STOPPED"
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT={patience}  # torchrun kills after 30 s otherwise
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"  # srun no longer inherits it from sbatch
"""

_TAIL = """\
training=$!
wait "$training"
code=$?
while kill -0 "$training" 2>/dev/null; do wait "$training"; code=$?; done  # a signal ends wait, not training
now=$(scontrol show job "$SLURM_JOB_ID")
if [ "$code" -eq 0 ] || ! grep -q "JobState=RUNNING" <<< "$now"; then exit "$code"; fi
if grep -q "PreemptTime=[0-9]" <<< "$now"; then stopping=1; fi
if [ -e "$SCENERL_STOPPED" ]; then stopping=1; rm "$SCENERL_STOPPED"; fi
if [ "$stopping" -eq 1 ]; then
  echo "stopped before it was done; requeued, the run continues from its last checkpoint"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""

_SERVER = """\
server() {{
  {srun}
  local code=$?
  [ "$code" -eq 0 ] || [ "$code" -gt 128 ] && return  # asked to end, as training was
  echo "the server ended with exit code $code, and with it training" >&2
  signal_training KILL
}}
server &

"""


def job_script(job: Job, options: LaunchOptions, folder: Path) -> str:
    """A bash script for sbatch.

    Args:
        folder: where its output goes; it must exist when the job starts.

    Raises:
        UserError: an option of sbatch that is not NAME=VALUE or that the script relies on, a line break in a value, or
            a grace period that is not shorter than the time limit.
    """
    profile = job.profile
    limit = seconds_of(options.time)
    if limit is not None and options.grace >= limit:
        raise UserError(f"grace: {options.grace} s is not shorter than the time limit {options.time}")
    nodes = profile.nodes + job.server_nodes
    head = _HEAD.format(
        step=STEP,
        nodes=nodes,
        needs=shlex.quote(f"profile {profile.name} needs {nodes} nodes"),
        patience=max(30, options.grace - 20),
        folder=shlex.quote(str(folder)),
    )
    parts = [
        "#!/bin/bash\n",
        *(f"{line}\n" for line in _directives(job, options, folder)),
        f"# {profile.num_gpus} x {profile.gpu} of {profile.gpu_memory_gib} GiB, sharding {profile.sharding}\n\n",
        f"{head}\n",
        _SERVER.format(srun=_server(job, options)) if job.server_nodes else "",
        f"{_training(job, options)} &\n",
        _TAIL,
    ]
    return "".join(parts)


def seconds_of(time: str) -> int | None:
    """Seconds of a time limit as sbatch takes it; None for one without a limit.

    >>> seconds_of("90"), seconds_of("1:30"), seconds_of("24:00:00"), seconds_of("2-12"), seconds_of("UNLIMITED")
    (5400, 90, 86400, 216000, None)

    Raises:
        UserError: it is none of sbatch's forms.
    """
    if time.upper() in ("INFINITE", "UNLIMITED"):
        return None
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if not match:
        raise UserError(f"time: {time!r} is no time limit; allowed: MINUTES, HOURS:MINUTES:SECONDS, DAYS-HOURS, …")
    days, *rest = match.groups()
    numbers = [int(number) for number in rest if number is not None]
    if days is None and len(numbers) < 3:  # minutes, minutes:seconds
        numbers = [0, *numbers]
    hours, minutes, seconds = [*numbers, 0, 0][:3]
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds


def _directives(job: Job, options: LaunchOptions, folder: Path) -> list[str]:
    profile = job.profile
    settings: dict[str, object] = {
        "job-name": job.name,
        "nodes": profile.nodes + job.server_nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": profile.gpus_per_node,
        "cpus-per-task": profile.cpus_per_gpu * profile.gpus_per_node,
        "time": options.time,
        "signal": f"B:USR1@{options.grace}",
        "output": folder / f"{job.name}-{'%A_%a' if options.seeds else '%j'}.out",
        "open-mode": "append",
    }
    if options.seeds:
        settings["array"] = ",".join(map(str, options.seeds))
    for item in options.sbatch:
        name, equals, value = item.partition("=")
        if not equals or not name.replace("-", "").isalnum():
            raise UserError(f"sbatch: {item!r} is not NAME=VALUE, as account=a-a03")
        if name in DECIDED:
            raise UserError(f"sbatch: {item!r} is not allowed; {DECIDED[name]} sets it")
        settings[name] = value
    for name, setting in settings.items():
        if any(char in str(setting) for char in _UNSAFE):
            raise UserError(f"sbatch: {name}: a line break in {setting!r}")
    return [*(f"#SBATCH --{name}={_directive(setting)}" for name, setting in settings.items()), "#SBATCH --requeue"]


def _directive(value: object) -> str:
    """sbatch splits directives at blanks, and takes quotes as a shell does; ``%j`` stays."""
    text = str(value)
    return shlex.quote(text) if any(char.isspace() or char in "'\"\\#" for char in text) else text


def _training(job: Job, options: LaunchOptions) -> str:
    profile = job.profile
    srun = f"srun --job-name={STEP} --nodes={profile.nodes} --ntasks={profile.nodes} --ntasks-per-node=1"
    srun += " --kill-on-bad-exit=1"
    more = ""
    if job.server_nodes:
        srun += f' --nodelist="$(IFS=,; echo "${{nodes[*]:0:{profile.nodes}}}")"'
        more += f' --vllm_server_host "${{nodes[{profile.nodes}]}}" --vllm_server_port "$((port + 1))"'
        more += " --vllm_server_timeout 1200"
    if options.seeds:
        out = shlex.quote(f"{job.options.out}/seed_")
        more += f' --seed "$SLURM_ARRAY_TASK_ID" --out {out}"$SLURM_ARRAY_TASK_ID"'
    if profile.accelerate is None:
        return f"{srun} {_after_setup(['python', '-m', 'scenerl', *job.arguments], options.setup)}{more}"
    # The rank of a node is known there only, the first node's name here only.
    shell = f'exec {shlex.join(job.accelerate)} --machine_rank "$SLURM_NODEID" --main_process_ip "$@"'
    shell = f"{options.setup} && {shell}" if options.setup else shell
    main = '"${nodes[0]}" --main_process_port "$port" --module scenerl'
    return f"{srun} bash -c {shlex.quote(shell)} bash {main} {shlex.join(job.arguments)}{more}"


def _server(job: Job, options: LaunchOptions) -> str:
    """vLLM on the node behind the training nodes, with the settings that TRL's trainers expect (vLLM 0.30 or later).

    Training waits for it by itself.
    """
    profile = job.profile
    words = ["env", "VLLM_SERVER_DEV_MODE=1", "vllm", "serve", str(job.value("model")), "--host", "0.0.0.0"]
    words += ["--tensor-parallel-size", str(profile.gpus_per_node)]
    words += ["--weight-transfer-config", '{"backend": "nccl"}', "--logprobs-mode", "processed_logprobs"]
    words += ["--max-logprobs", "-1", "--enable-scale-out"]
    if job.value("vllm_max_model_length"):
        words += ["--max-model-len", str(job.value("vllm_max_model_length"))]
    srun = f'srun --job-name=server --nodes=1 --ntasks=1 --nodelist="${{nodes[{profile.nodes}]}}"'
    return f'{srun} {_after_setup(words, options.setup)} --port "$((port + 1))"'


def _after_setup(words: Sequence[str], setup: str | None) -> str:
    """The words as a command that runs after the user's line, which may be any shell text."""
    if not setup:
        return shlex.join(words)
    shell = f'{setup} && exec "$@"'
    return f"bash -c {shlex.quote(shell)} bash {shlex.join(words)}"
