"""The SLURM job script of a recipe and a profile. It requeues itself when it is preempted or runs out of time."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scenerl.errors import UserError
from scenerl.launch.job import Job, Server
from scenerl.launch.servers import TIMEOUT, server_words

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
_PORTS = 10000
"""From 20000 on, which jobs share."""
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
port=$((20000 + SLURM_JOB_ID % {jobs} * {ports}))  # other jobs on these nodes have other ports
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
server() {{  # its machine, its GPUs as fields of CUDA_VISIBLE_DEVICES, its port
  {srun}
  local code=$?
  [ "$code" -eq 0 ] || [ "$code" -gt 128 ] && return  # asked to end, as training was
  echo "a server ended with exit code $code, and with it training" >&2
  signal_training KILL
}}
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
    head = _HEAD.format(
        step=STEP,
        nodes=job.nodes,
        needs=shlex.quote(f"profile {profile.name} needs {job.nodes} nodes"),
        jobs=_PORTS // _ports(job),
        ports=_ports(job),
        patience=max(30, options.grace - 20),
        folder=shlex.quote(str(folder)),
    )
    parts = [
        "#!/bin/bash\n",
        *(f"{line}\n" for line in _directives(job, options, folder)),
        f"# {job.num_gpus} x {profile.gpu} of {profile.gpu_memory_gib} GiB train, sharding {profile.sharding}\n\n",
        f"{head}\n",
        _servers(job, options),
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
        "nodes": job.nodes,
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
    more, setup = "", options.setup
    if job.servers:
        srun += f' --nodelist="$(IFS=,; echo "${{nodes[*]:0:{profile.nodes}}}")"'
        urls = ",".join(f"http://{_node(server)}:$((port + {place}))" for place, server in _placed(job))
        more += f' --vllm_server_base_url "{urls}" --vllm_server_timeout {TIMEOUT}'
    if job.servers and profile.server_gpus:
        srun += " --overlap"
        setup = _joined(setup, _choose_gpus(job, _fields(job.training_gpus)))
    if options.seeds:
        out = shlex.quote(f"{job.options.out}/seed_")
        more += f' --seed "$SLURM_ARRAY_TASK_ID" --out {out}"$SLURM_ARRAY_TASK_ID"'
    if profile.accelerate is None:
        return f"{srun} {_after_setup(['python', '-m', 'scenerl', *job.arguments], setup)}{more}"
    # The rank of a node is known there only, the first node's name here only.
    shell = f'exec {shlex.join(job.accelerate)} --machine_rank "$SLURM_NODEID" --main_process_ip "$@"'
    main = '"${nodes[0]}" --main_process_port "$port" --module scenerl'
    return f"{srun} bash -c {shlex.quote(_joined(setup, shell))} bash {main} {shlex.join(job.arguments)}{more}"


def _servers(job: Job, options: LaunchOptions) -> str:
    """The function that starts a server, and a call for each; on a machine of its own it has all GPUs anyway."""
    if not job.servers:
        return ""
    words = server_words(job, "0.0.0.0")
    srun = 'srun --job-name=server --nodes=1 --ntasks=1 --nodelist="$1"'
    command = _after_setup(words, options.setup)
    if len(job.servers) > job.nodes - job.profile.nodes:  # machines are shared
        srun += " --overlap"
        shell = _joined(options.setup, _choose_gpus(job, '"$0"'), 'exec "$@"')
        command = f'bash -c {shlex.quote(shell)} "$2" {shlex.join(words)}'
    calls = [
        f'server "{_node(server)}" {_fields(server.gpus)} "$((port + {place}))" &\n' for place, server in _placed(job)
    ]
    return _SERVER.format(srun=f'{srun} {command} --port "$3"') + "".join(calls) + "\n"


def _placed(job: Job) -> list[tuple[int, Server]]:
    """The servers, each with its place on its machine, counted from 1."""
    before = Counter[int]()
    placed = []
    for server in job.servers:
        before[server.node] += 1
        placed.append((before[server.node], server))
    return placed


def _ports(job: Job) -> int:
    """Ports that a job needs on a machine: one for training, and one for each server."""
    return max(2, 1 + max((place for place, _ in _placed(job)), default=0))


def _node(server: Server) -> str:
    return f"${{nodes[{server.node}]}}"


def _fields(gpus: range) -> str:
    """GPUs as ``cut`` counts fields."""
    return f"{gpus.start + 1}-{gpus.stop}"


def _choose_gpus(job: Job, fields: str) -> str:
    """Shell text that leaves a step some of its machine's GPUs. SLURM gives it all, under numbers of its own."""
    known = ",".join(map(str, range(job.profile.gpus_per_node)))
    return f'export CUDA_VISIBLE_DEVICES="$(cut -d, -f{fields} <<< "${{CUDA_VISIBLE_DEVICES:-{known}}}")"'


def _joined(*lines: str | None) -> str:
    return " && ".join(line for line in lines if line)


def _after_setup(words: Sequence[str], setup: str | None) -> str:
    """The words as a command that runs after the user's line, which may be any shell text."""
    if not setup:
        return shlex.join(words)
    shell = _joined(setup, 'exec "$@"')
    return f"bash -c {shlex.quote(shell)} bash {shlex.join(words)}"
