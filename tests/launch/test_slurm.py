"""The job script: what bash reads of it, which words reach training, and after which ends it requeues itself."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from scenerl import cli
from scenerl.commands import parse
from scenerl.launch.job import make_job
from scenerl.launch.profiles import find_profile
from scenerl.launch.slurm import job_script

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


@pytest.mark.parametrize("profile", ["1x24gb", "8x24gb", "16x80gb", "16xgh200_server", "8x80gb_server"])
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
    found = directives(script_of("1x24gb", "--seeds", "0", "7"))
    assert found["array"] == "0,7" and found["output"].endswith("vg150-%A_%a.out")


def test_supervised_fine_tuning_needs_no_server():
    recipe = RECIPE.with_name("sft_qwen2vl7b_vg150.yaml")
    script = script_of("16xgh200_server", recipe=recipe)
    assert directives(script)["nodes"] == "4" and "vllm" not in script


@pytest.mark.parametrize(
    "bad, said",
    [
        ("account", "is not NAME=VALUE"),
        ("acc ount=x", "is not NAME=VALUE"),
        ("=x", "is not NAME=VALUE"),
        ("nodes=3", "sbatch: 'nodes=3' is not allowed; the profile sets it"),
        ("time=10", "--time sets it"),
    ],
)
def test_wrong_options_of_sbatch(bad, said):
    with pytest.raises(ValueError, match=said):
        script_of("1x24gb", "--sbatch", bad)


def test_no_directive_can_be_smuggled_in():
    with pytest.raises(ValueError, match="line break"):
        script_of("1x24gb", "--sbatch", "account=x\n#SBATCH --uid=0")


FAKES = {
    "scontrol": 'echo "scontrol $*" >> "$CALLS"\n'
    'case "$1 $2" in\n'
    '  "show hostnames") printf "node%d\\n" $(seq "$NODES") ;;\n'
    '  "show job") cat "$CALLS.job" ;;\n'
    "esac",
    # What a task of srun would get, with the node's number; the options of srun are dropped.
    "srun": 'while [[ "$1" == --* ]]; do [[ "$1" == --nodelist=* ]] && echo "srun $1" >> "$CALLS"; shift; done\n'
    'SLURM_NODEID=2 exec "$@"',
    "accelerate": 'printf "%s\\n" "$@" > "$CALLS.words"; echo "$CUDA_VISIBLE_DEVICES" > "$CALLS.gpus"\n'
    'exec "$TRAINING"',
    "vllm": 'printf "%s\\n" "$CUDA_VISIBLE_DEVICES" "$VLLM_SERVER_DEV_MODE" "$@" > "$CALLS.$$"\n'
    'mv "$CALLS.$$" "$CALLS.${@: -1}"',
}
"""Programs that stand for SLURM's and accelerate's. How the script does on SLURM itself is in tests/slurm."""

RECORD = """JobId=77 JobName=grpo
   JobState={state} Reason=None Dependency=(null)
   PreemptEligibleTime=2026-11-28T12:00:00 PreemptTime={preempted}
"""
"""Part of what `scontrol show job` prints."""


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
    monkeypatch.setenv("NODES", "4")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "calls.job").write_text(RECORD.format(state="RUNNING", preempted="None"))
    return tmp_path / "calls"


def training(monkeypatch, body: str) -> None:
    path = Path("training").absolute()
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setenv("TRAINING", str(path))


def test_words_reach_training_as_they_are(cluster, monkeypatch):
    monkeypatch.setenv("NODES", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "all of the node")
    training(monkeypatch, 'while [ ! -e "$CALLS.20155" ]; do sleep 0.05; done')
    nasty = 'it\'s $HOME `x` "y" ; exit 3'
    script = script_of("16xgh200_server", "--setup", "export WAS_SET=1", "--seeds", "3", sets=[f"run_name={nasty}"])
    assert subprocess.run(["bash", "-c", script]).returncode == 0
    words = Path(f"{cluster}.words").read_text().splitlines()
    assert words[words.index("--machine_rank") + 1] == "2"
    assert words[words.index("--main_process_ip") + 1] == "node1"
    assert words[words.index("--main_process_port") + 1] == "20154"  # 20000 + 2 x 77
    assert words[words.index("--num_processes") + 1] == "16" and words[words.index("--num_machines") + 1] == "4"
    assert words[words.index("--vllm_server_base_url") + 1] == "http://node5:20155"
    assert words[words.index("--seed") + 1] == "3" and words[words.index("--out") + 1].endswith("vg150/seed_3")
    assert f"--run_name={nasty}" in words
    assert words[words.index("scenerl") + 1 :][:2] == ["grpo", "--config"]
    served = Path(f"{cluster}.20155").read_text().splitlines()
    assert served[1:4] == ["1", "serve", "runs/sft_qwen2vl7b_vg150"] and served[served.index("--port") + 1] == "20155"
    assert served[served.index("--weight-transfer-config") + 1] == '{"backend": "nccl"}'
    assert served[served.index("--max-model-len") + 1] == "4096" and "--enable-scale-out" in served
    assert served[served.index("--tensor-parallel-size") + 1] == "4" and served[0] == "all of the node"
    calls = cluster.read_text()
    assert "srun --nodelist=node5" in calls and "srun --nodelist=node1,node2,node3,node4" in calls


MACHINES = """\
nodes: 2
gpus_per_node: 4
gpu: gh200
gpu_memory_gib: 96
sharding: zero2
accelerate: recipes/profiles/accelerate/zero2.yaml
grpo: {per_device_train_batch_size: 8, use_vllm: true, vllm_mode: server, vllm_sync: checkpoint}
"""


@pytest.mark.parametrize("setup", [[], ["--setup", "export WAS_SET='a b'"]])
@pytest.mark.parametrize(
    "fields, servers, trains",
    [
        (
            "server_gpus: 2\ngpus_per_server: 1",
            {"node1": {20232: "6", 20233: "7"}, "node2": {20232: "6", 20233: "7"}},
            ("4,5", 4),
        ),
        ("server_gpus: 1", {"node1": {20155: "7"}, "node2": {20155: "7"}}, ("4,5,6", 6)),
        ("server_nodes: 1\ngpus_per_server: 2", {"node3": {20232: "4,5", 20233: "6,7"}}, ("4,5,6,7", 8)),
        ("server_nodes: 2", {"node3": {20155: "4,5,6,7"}, "node4": {20155: "4,5,6,7"}}, ("4,5,6,7", 8)),
    ],
)
def test_several_servers(cluster, monkeypatch, setup, fields, servers, trains):
    """Each with GPUs of its own, beside training or on further machines, and training knows all of them.

    SLURM's stand-in lends GPUs 4 to 7 of each machine: they are numbered from 0 only where the cluster hides others.
    """
    Path("machines.yaml").write_text(f"{MACHINES}{fields}\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setenv("NODES", str(int(max(servers)[-1])))
    ports = {port for own in servers.values() for port in own}
    steps = 1 + sum(len(own) for own in servers.values())
    started = [f'[ -s "$CALLS.{port}" ]' for port in ports] + [f'[ "$(grep -c nodelist "$CALLS")" = {steps} ]']
    training(monkeypatch, f"until {' && '.join(started)}; do sleep 0.05; done")
    script = script_of("machines.yaml", *setup, sets=["global_batch_size=192"])
    assert subprocess.run(["bash", "-c", script], timeout=60).returncode == 0
    words = Path(f"{cluster}.words").read_text().splitlines()
    urls = [f"http://{node}:{port}" for node, own in servers.items() for port in own]
    assert words[words.index("--vllm_server_base_url") + 1].split(",") == urls
    assert words[words.index("--num_processes") + 1] == str(trains[1])
    assert Path(f"{cluster}.gpus").read_text() == f"{trains[0]}\n"
    for port, gpus in {port: gpus for own in servers.values() for port, gpus in own.items()}.items():
        served = Path(f"{cluster}.{port}").read_text().splitlines()
        assert served[0] == gpus and served[1:3] == ["1", "serve"]
        assert served[served.index("--tensor-parallel-size") + 1] == str(len(gpus.split(",")))
        assert "--weight-transfer-config" not in served  # weights come as files
    calls = cluster.read_text().splitlines()
    asked = sorted(f"srun --nodelist={node}" for node, own in servers.items() for _ in own)
    assert sorted(call for call in calls if call.startswith("srun")) == sorted([*asked, "srun --nodelist=node1,node2"])
    assert script.count("--overlap") == 2 * ("server_gpus" in fields) + ("server_nodes: 1" in fields)


@pytest.mark.parametrize(
    "code, state, preempted, stopped, queued",
    [
        (0, "RUNNING", "None", False, False),
        (0, "RUNNING", "None", True, False),  # stopped in its last step
        (1, "RUNNING", "None", False, False),  # a crash
        (2, "RUNNING", "None", False, False),  # wrong options
        (1, "RUNNING", "None", True, True),  # torchrun ends with 1 whatever training ends with
        (143, "RUNNING", "2026-11-28T12:30:00", False, True),  # preempted before training could take a signal
        (1, "COMPLETING", "2026-11-28T12:30:00", True, False),  # SLURM requeues it itself
        (1, "COMPLETING", "None", True, False),  # scancel
        (1, "CANCELLED", "None", True, False),
        (1, "PENDING", "None", False, False),  # a node was lost, and SLURM has requeued the job
    ],
)
def test_which_ends_are_queued_again(cluster, monkeypatch, code, state, preempted, stopped, queued):
    Path(f"{cluster}.job").write_text(RECORD.format(state=state, preempted=preempted))
    training(monkeypatch, f'{"touch" if stopped else "ls"} "$SCENERL_STOPPED"; exit {code}')
    assert subprocess.run(["bash", "-c", script_of("16xgh200")]).returncode == code
    assert ("scontrol requeue 77" in cluster.read_text()) == queued


def test_a_stop_of_an_earlier_attempt_is_forgotten(cluster, monkeypatch):
    Path("runs/slurm").mkdir(parents=True)
    Path("runs/slurm/77.stopped").touch()
    training(monkeypatch, "exit 1")
    assert subprocess.run(["bash", "-c", script_of("16xgh200")]).returncode == 1
    assert "requeue" not in cluster.read_text()


def test_nodes_that_are_not_the_profiles(cluster, monkeypatch):
    monkeypatch.setenv("NODES", "3")
    done = subprocess.run(["bash", "-c", script_of("16xgh200")], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "profile 16xgh200 needs 4 nodes; this job has 3\n")


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
    assert cli.main(["launch", str(place), "--profile", "4x80gb", "--seeds", "1", "2"]) == 2
    assert "seeds: a job array needs SLURM" in capsys.readouterr().err


@pytest.mark.parametrize(
    "value, missing",
    [('rewards=["format", "gone.py:mine"]', "gone.py:mine"), ("rewards=format mine.py:f", "format mine.py:f"),
     ("data=gone.py:rows", "gone.py:rows")],
)  # fmt: skip
def test_own_functions_are_looked_for_before_a_job_waits_in_a_queue(capsys, monkeypatch, tmp_path, value, missing):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def f(comparison): return 1.0\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    line = ["launch", str(RECIPE), "--profile", "16x80gb", "--slurm", "--set"]
    assert cli.main([*line, value]) == 2
    assert f"{missing}: there is no file {tmp_path}" in capsys.readouterr().err
    assert cli.main([*line, 'rewards=["mine.py:f"]']) == 2
    assert "sbatch is not installed here" in capsys.readouterr().err  # the file is there


def test_without_slurm_nothing_is_submitted(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["launch", str(RECIPE), "--profile", "16x80gb", "--slurm"]) == 2
    assert "sbatch is not installed here" in capsys.readouterr().err
