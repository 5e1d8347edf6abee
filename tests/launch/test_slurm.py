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
from scenerl.config import parse
from scenerl.launch.job import make_job
from scenerl.launch.profiles import find_profile
from scenerl.launch.slurm import REQUEUE, job_script

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "r1_sgg" / "grpo_qwen2vl7b_vg150.yaml"


def script_of(profile: str, *more: str, sets=(), recipe=RECIPE) -> str:
    options, _ = parse("launch", [str(recipe), "--profile", profile, "--slurm", *more])
    return job_script(make_job(recipe, find_profile(profile, recipe), sets), options, Path("runs/slurm"))


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
    "scontrol": 'echo "scontrol $*" >> "$CALLS"; [ "$1" = show ] && printf "node%d\\n" 1 2 3 4 5; true',
    # What a task of srun would get, with the node's number; the options of srun are dropped.
    "srun": 'while [[ "$1" == --* ]]; do [[ "$1" == --nodelist=* ]] && echo "srun $1" >> "$CALLS"; shift; done\n'
    'export SLURM_NODEID=2; exec "$@"',
    "accelerate": 'printf "%s\\n" "$@" > "$CALLS.words"; exec "$TRAINING"',
    "trl": 'printf "%s\\n" "$@" > "$CALLS.server"; exec sleep 60',
}


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
    assert served[:3] == ["vllm-serve", "--model", "runs/sft_qwen2vl7b_vg150"]
    calls = cluster.read_text()
    assert "srun --nodelist=node5" in calls and "srun --nodelist=node1,node2,node3,node4" in calls


@pytest.mark.parametrize("code, queued", [(0, False), (1, False), (2, False), (REQUEUE, True)])
def test_which_ends_are_queued_again(cluster, monkeypatch, code, queued):
    training(monkeypatch, f"exit {code}")
    assert subprocess.run(["bash", "-c", script_of("16xgh200")]).returncode == code
    assert ("scontrol requeue 77" in cluster.read_text()) == queued


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("code, queued", [(1, True), (0, False)])
def test_a_signal_reaches_training_and_queues_again_what_is_not_done(cluster, monkeypatch, number, code, queued):
    # torchrun ends with 1 whatever its workers end with; a run that was just done ends with 0.
    training(monkeypatch, f'trap "echo saved > saved; exit {code}" TERM; echo > started; while :; do sleep 0.1; done')
    process = subprocess.Popen(["bash", "-c", script_of("16xgh200")])
    while not Path("started").exists():
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    assert Path("saved").exists()
    assert ("scontrol requeue 77" in cluster.read_text()) == queued


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
    preemption = pytest.importorskip("scenerl.training.preemption")
    assert preemption.REQUEUE == REQUEUE
