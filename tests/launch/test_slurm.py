"""The job script: what bash reads of it, and what it does when signals come and programs end."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from scenerl import cli
from scenerl.commands import parse
from scenerl.launch.job import make_job
from scenerl.launch.profiles import find_profile
from scenerl.launch.slurm import REQUEUE, job_script

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "r1_sgg" / "grpo_qwen2vl7b_vg150.yaml"


def script_of(profile: str, *more: str, sets=(), recipe=RECIPE) -> str:
    options, _ = parse("launch", [str(recipe), "--profile", profile, "--slurm", *more])
    return job_script(make_job([recipe], find_profile(profile, recipe), sets), options, Path("runs/slurm"))


def directives(script: str) -> dict[str, str]:
    found = [
        line.removeprefix("#SBATCH --").partition("=") for line in script.splitlines() if line.startswith("#SBATCH")
    ]
    return {name: value for name, _, value in found}


@pytest.mark.parametrize("profile", ["1x24gb", "8x24gb", "16x80gb", "16xgh200_server"])
def test_bash_can_read_it(profile):
    script = script_of(profile, "--setup", "source 'my venv/bin/activate'", sets=['run_name=it\'s $HOME `x` "y"'])
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_directives_come_from_the_profile_and_the_user():
    found = directives(script_of("16xgh200", "--time", "12:00:00", "--sbatch", "account=a b", "partition=normal"))
    assert found["nodes"] == "4" and found["gpus-per-node"] == "4" and found["ntasks-per-node"] == "1"
    assert found["cpus-per-task"] == "288" and found["time"] == "12:00:00"
    assert found["signal"] == "B:USR1@600" and found["requeue"] == ""
    assert found["account"] == "'a b'" and found["partition"] == "normal"
    assert found["output"] == "runs/slurm/grpo_qwen2vl7b_vg150-%j.out"
    assert directives(script_of("16xgh200_server"))["nodes"] == "5"


def test_supervised_fine_tuning_needs_no_server():
    recipe = RECIPE.with_name("sft_qwen2vl7b_vg150.yaml")
    script = script_of("16xgh200_server", recipe=recipe)
    assert directives(script)["nodes"] == "4" and "vllm" not in script


@pytest.mark.parametrize("bad", ["account", "acc ount=x", "=x"])
def test_wrong_options_of_sbatch(bad):
    with pytest.raises(ValueError, match="is not NAME=VALUE"):
        script_of("1x24gb", "--sbatch", bad)


def test_no_directive_can_be_smuggled_in():
    with pytest.raises(ValueError, match="line break"):
        script_of("1x24gb", "--sbatch", "account=x\n#SBATCH --uid=0")


FAKES = {
    "scontrol": 'echo "scontrol $*" >> "$CALLS"\n'
    'case "$1 $2" in\n'
    '  "show hostnames") printf "node%d\\n" 1 2 3 4 5 ;;\n'
    '  "show job") cat "$CALLS.job" ;;\n'
    "esac",
    # The step's number is that of the process that stands for training; the server is step 0, as it may be.
    "squeue": 'printf "77.0 server\\n77.%s training\\n" "$(cat "$CALLS.pid")"',
    "scancel": 'echo "scancel $*" >> "$CALLS"; kill "${1/#--signal=/-}" "${2#77.}"',
    # What a task of srun would get, with the node's number; the options of srun are dropped.
    "srun": 'while [[ "$1" == --* ]]; do [[ "$1" == --nodelist=* ]] && echo "srun $1" >> "$CALLS"; shift; done\n'
    "export SLURM_NODEID=2\n"
    # As SLURM's: its tasks are processes of their own, and TERM for srun itself kills them without a word to them.
    'setsid "$@" & task=$!\n'
    'trap "kill -KILL -$task; exit 143" TERM\n'
    'while kill -0 "$task" 2>/dev/null; do wait "$task"; code=$?; done; exit "$code"',
    "accelerate": 'printf "%s\\n" "$@" > "$CALLS.words"; echo $$ > "$CALLS.pid"; exec "$TRAINING"',
    "vllm": 'printf "%s\\n" "$VLLM_SERVER_DEV_MODE" "$@" > "$CALLS.server"; exec sleep 60',
}


RECORD = """JobId=77 JobName=grpo
   JobState={state} Reason=None Dependency=(null)
   PreemptEligibleTime=2026-11-28T12:00:00 PreemptTime={preempted}
"""
"""Part of what `scontrol show job` prints."""
RUNNING = 'trap "echo saved > saved; exit {code}" TERM; echo > started; while :; do sleep 0.1; done'


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder of programs that stand for SLURM's and accelerate's; returns the file of their calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in FAKES.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-5]")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "calls.job").write_text(RECORD.format(state="RUNNING", preempted="None"))
    return tmp_path / "calls"


def training(monkeypatch, body: str) -> None:
    path = Path("training").absolute()
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setenv("TRAINING", str(path))


def test_words_reach_training_as_they_are(cluster, monkeypatch):
    training(monkeypatch, 'while [ ! -e "$CALLS.server" ]; do sleep 0.05; done')
    nasty = 'it\'s $HOME `x` "y" ; exit 3'
    script = script_of("16xgh200_server", "--setup", "export WAS_SET=1", sets=[f"run_name={nasty}"])
    assert subprocess.run(["bash", "-c", script]).returncode == 0
    words = Path(f"{cluster}.words").read_text().splitlines()
    assert words[words.index("--machine_rank") + 1] == "2"
    assert words[words.index("--main_process_ip") + 1] == "node1"
    assert words[words.index("--num_processes") + 1] == "16" and words[words.index("--num_machines") + 1] == "4"
    assert words[words.index("--vllm_server_host") + 1] == "node5"
    assert f"--run_name={nasty}" in words
    assert words[words.index("scenerl") + 1 :][:2] == ["grpo", "--config"]
    served = Path(f"{cluster}.server").read_text().splitlines()
    assert served[:3] == ["1", "serve", "runs/sft_qwen2vl7b_vg150"]
    assert served[served.index("--weight-transfer-config") + 1] == '{"backend": "nccl"}'
    assert served[served.index("--max-model-len") + 1] == "4096" and "--enable-scale-out" in served
    calls = cluster.read_text()
    assert "srun --nodelist=node5" in calls and "srun --nodelist=node1,node2,node3,node4" in calls


@pytest.mark.parametrize("code, queued", [(0, False), (1, False), (2, False), (REQUEUE, True)])
def test_which_ends_are_queued_again(cluster, monkeypatch, code, queued):
    training(monkeypatch, f"exit {code}")
    assert subprocess.run(["bash", "-c", script_of("16xgh200")]).returncode == code
    assert ("scontrol requeue 77" in cluster.read_text()) == queued


@pytest.fixture
def started(cluster, monkeypatch):
    """Starts the job with a training that ends with a code after TERM; returns the batch shell's process."""
    processes = []

    def start(code: int) -> subprocess.Popen:
        training(monkeypatch, RUNNING.format(code=code))
        processes.append(subprocess.Popen(["bash", "-c", script_of("16xgh200")]))
        while not Path("started").exists():
            time.sleep(0.05)
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("code, queued", [(1, True), (0, False)])
def test_the_time_limit_ends_training_with_a_checkpoint(cluster, started, code, queued):
    """SLURM signals the batch shell; the named step gets TERM, srun does not. torchrun ends with 1 whatever its workers
    end with; a run that was just done ends with 0."""
    process = started(code)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=60) == code
    assert Path("saved").exists()
    assert ("scontrol requeue 77" in cluster.read_text()) == queued


@pytest.mark.parametrize(
    "state, preempted, queued",
    [
        ("RUNNING", "2026-11-28T12:30:00", True),  # preempted within its grace time
        ("COMPLETING", "2026-11-28T12:30:00", False),  # SLURM requeues it itself
        ("COMPLETING", "None", False),  # scancel JOB
        ("CANCELLED", "None", False),
        ("RUNNING", "None", False),  # a crash
    ],
)
def test_preemption_requeues_and_scancel_does_not(cluster, started, state, preempted, queued):
    """SLURM signals the steps and nothing to the batch shell; the job's record says why."""
    process = started(1)
    Path(f"{cluster}.job").write_text(RECORD.format(state=state, preempted=preempted))
    os.kill(int(Path(f"{cluster}.pid").read_text()), signal.SIGTERM)
    assert process.wait(timeout=60) == 1
    assert Path("saved").exists()
    assert ("scontrol requeue 77" in cluster.read_text()) == queued


def test_scancel_of_a_run_that_could_continue_ends_it(cluster, started):
    """Exit code 75 and a signal to the batch shell too: the job was cancelled and must not come back."""
    process = started(REQUEUE)
    Path(f"{cluster}.job").write_text(RECORD.format(state="COMPLETING", preempted="None"))
    process.send_signal(signal.SIGTERM)
    os.kill(int(Path(f"{cluster}.pid").read_text()), signal.SIGTERM)
    assert process.wait(timeout=60) == REQUEUE
    assert "requeue" not in cluster.read_text()


@pytest.mark.parametrize(
    "limit, grace, said",
    [
        ("10:00", "600", "grace: 600 s is not shorter than the time limit 10:00"),
        ("5", "600", "grace: 600 s"),
        ("soon", "600", "time: 'soon' is no time limit"),
        ("0-0:30", "600", None),
        ("UNLIMITED", "600", None),
    ],
)
def test_the_grace_period_is_within_the_time_limit(limit, grace, said):
    if said is None:
        assert f"#SBATCH --time={limit}\n" in script_of("1x24gb", "--time", limit, "--grace", grace)
        return
    with pytest.raises(ValueError, match=said):
        script_of("1x24gb", "--time", limit, "--grace", grace)


def test_print_starts_nothing(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    place = RECIPE.relative_to(ROOT)
    assert cli.main(["launch", str(place), "--profile", "16x80gb", "--slurm", "--print"]) == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash\n#SBATCH ")
    assert cli.main(["launch", str(place), "--profile", "4x80gb", "--print", "--set", "max_steps=3"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words[:2] == ["accelerate", "launch"] and "--max_steps=3" in words
    assert words[words.index("--config_file") + 1].endswith("profiles/accelerate/fsdp2.yaml")
    assert cli.main(["launch", str(place), "--profile", "16x80gb", "--print"]) == 2
    assert re.search(r"profile 16x80gb has 4 nodes: add --slurm", capsys.readouterr().err)


def test_without_slurm_nothing_is_submitted(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["launch", str(RECIPE), "--profile", "16x80gb", "--slurm"]) == 2
    assert "sbatch is not installed here" in capsys.readouterr().err


def test_the_code_is_that_of_training():
    stop = pytest.importorskip("scenerl.training.stop")
    assert stop.REQUEUE == REQUEUE
