"""The job script on a real SLURM: how jobs end, which come back, and what they have learnt."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from slurm.cluster import record, release, run, settled, wait_for
from slurm.jobs import ONE_NODE, SETUP, launch, log_of, steps_of, submit

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
STEPS = list(range(1, 13))


@pytest.fixture(autouse=True)
def nothing_is_left(cluster):
    """No job of a test that failed is in the way of the next."""
    yield
    run("scancel", "--user=root")
    cluster.mend()


@pytest.fixture
def start(base, rows, tmp_path):
    """Submits a job that runs in ``tmp_path``."""
    return lambda *more, **fields: submit(tmp_path, *more, **{"model": str(base), "data": str(rows), **fields})


@pytest.fixture(scope="module")
def whole(cluster, base, rows, tmp_path_factory):
    """The job and the folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    job = submit(folder, model=str(base), data=str(rows))
    assert settled(job) == "COMPLETED", log_of(job)
    return job, folder


def wait_for_steps(job: str, folder: Path, count: int) -> None:
    def trained() -> bool:
        assert record(job)["JobState"] in ("PENDING", "RUNNING"), log_of(job)
        return len(steps_of(folder)) >= count

    wait_for(f"{count} steps in {folder}", trained)


def assert_it_went_on(job: str, out: Path, whole: Path) -> None:
    """The job came back once and ended with the weights of the run that nobody disturbed."""
    assert settled(job) == "COMPLETED", log_of(job)
    assert record(job)["Restarts"] == "1"
    assert steps_of(out) == STEPS
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, whole / "out"))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def assert_failed_at_once(job: str, *said: str) -> None:
    """It did not come back, and its log has the reason."""
    assert settled(job) == "FAILED", log_of(job)
    assert record(job)["Restarts"] == "0"
    for text in said:
        assert re.search(text, log_of(job)), log_of(job)
    assert "requeued" not in log_of(job)


def preempt() -> None:
    run("sbatch", "--partition=high", "--nodes=3", "--exclusive", "--output=/dev/null", "--wrap=true")


def test_two_nodes_train(whole):
    job, folder = whole
    assert steps_of(folder / "out") == STEPS
    assert record(job)["NodeList"] == "n[1-2]" and record(job)["Restarts"] == "0"


@pytest.mark.parametrize("how", ["preempted", "scancel --signal=TERM", "scancel --batch --signal=USR1"])
def test_a_stopped_job_saves_and_goes_on(whole, start, tmp_path, how):
    job = start()
    wait_for_steps(job, tmp_path / "out", 2)
    if how == "preempted":
        preempt()
    else:
        run(*how.split(), job)
    release(job)
    assert re.search(r"stopped by SIGTERM with a checkpoint after \d+ of 12 steps", log_of(job))
    assert_it_went_on(job, tmp_path / "out", whole[1])


def test_a_crash_after_a_preemption_is_final(start):
    """The job's record still knows of the preemption. Stopped before training could take a signal, it came back."""
    job = start(profile=ONE_NODE, setup="mkdir started && exec sleep 300; exit 3; true")
    wait_for("the first attempt", Path(record(job)["WorkDir"], "started").is_dir)
    preempt()
    release(job)
    assert settled(job) == "FAILED", log_of(job)
    assert record(job)["ExitCode"] == "3:0" and record(job)["Restarts"] == "1"


def test_time_limit_and_cancellation(cluster, start, tmp_path):
    """A job that trains has one or two minutes left; USR1 comes a minute before. The second attempt is cancelled.

    Meanwhile the time of a job on the third node runs out that does not end when it is told to.
    """
    (tmp_path / "stuck").mkdir()
    setup = "trap '' TERM; sleep 1000"
    stuck = submit(
        tmp_path / "stuck", "--time", "1", "--grace", "30", profile=ONE_NODE, setup=setup, model="m", data="d"
    )
    job = start("--time", "60", "--grace", "60", max_steps=1000)
    wait_for_steps(job, tmp_path / "out", 2)
    hours, minutes, _ = map(int, record(job)["RunTime"].split(":"))
    run("scontrol", "update", f"JobId={job}", f"TimeLimit={60 * hours + minutes + 2}")
    wait_for("a stop", lambda: record(job)["Restarts"] == "1")
    run("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    release(job)
    saved = int(re.search(r"stopped by SIGTERM with a checkpoint after (\d+) of 1000 steps", log_of(job)).group(1))
    assert 0 < saved <= max(steps_of(tmp_path / "out"))
    wait_for_steps(job, tmp_path / "out", saved + 2)
    assert f"{saved} of 1000 steps were done before" in log_of(job)
    run("scancel", job)
    assert settled(job) == "CANCELLED"
    cluster.wait_for_states({"idle"})
    assert record(job)["JobState"] == "CANCELLED"
    assert record(stuck)["JobState"] == "TIMEOUT" and record(stuck)["Restarts"] == "0"
    assert record(job)["Restarts"] == "1"


@pytest.mark.parametrize(
    "node, silently", [("n2", False), ("n1", True)], ids=["its connections are closed", "silently"]
)
def test_a_node_that_dies(cluster, whole, start, tmp_path, node, silently):
    """Its connections are closed, and training fails at once; or nothing is heard of the node that runs the script.
    Either way SLURM gives the node up (SlurmdTimeout) and requeues the job, which gets another."""
    job = start()
    wait_for_steps(job, tmp_path / "out", 5)
    cluster.kill(node, silently)
    cluster.wait_for_states({"idle", "down*"})
    release(job)
    assert_it_went_on(job, tmp_path / "out", whole[1])
    assert "4 of 12 steps were done before" in log_of(job)


def test_the_first_job_of_the_documentation(cluster, tmp_path):
    """docs/cluster.md to the letter, but for what a cluster has of its own: GPUs, partition, environment."""
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    section = page.partition("## A first job")[2].partition("\n## ")[0]
    blocks = dict(re.findall(r"```(yaml|bash)\n(.*?)```", section, re.DOTALL))
    own = {
        "gpus_per_node: 4": "gpus_per_node: 1",
        "my-partition": "low",
        "'source .venv/bin/activate'": shlex.quote(SETUP),
    }
    machines, commands = (_replaced(blocks[name], own) for name in ("yaml", "bash"))
    (tmp_path / "machines.yaml").write_text(machines)
    command, follow = commands.replace("\\\n", "").splitlines()
    job = launch(tmp_path, *shlex.split(command)[2:])
    assert settled(job) == "COMPLETED", log_of(job)
    assert [str(path) for path in tmp_path.glob(follow.split()[-1])] == [record(job)["StdOut"]]
    assert steps_of(tmp_path / "runs" / "sft_qwen2vl2b_vg150_smoke") == [1, 2]
    assert (tmp_path / "runs" / "sft_qwen2vl2b_vg150_smoke" / "model.safetensors").is_file()


def _replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def test_prediction_in_shards(cluster, base, rows, tmp_path):
    """`srun scenerl predict … --shard auto`: each task takes its number from srun."""
    words = ["--model", base, "--data", rows, "--out", "preds.jsonl", "--max_new_tokens", "8", "--device", "cpu"]
    command = f"{SETUP} && cd {tmp_path} && python -m scenerl predict {shlex.join(map(str, words))}"
    run("srun", "--nodes=2", "--ntasks=2", "bash", "-c", f"{command} --shard auto")
    run("bash", "-c", f"{command} --gather 2")
    run("bash", "-c", f"{command.replace('preds.jsonl', 'alone.jsonl')}")
    assert (tmp_path / "preds.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()


def test_wrong_options(start):
    job = start("--set", "data=gone.jsonl")
    assert_failed_at_once(job, "scenerl: error: .*gone.jsonl")


def test_a_setup_that_fails(start):
    assert_failed_at_once(start(setup="source gone/bin/activate"), "gone/bin/activate: No such file or directory")


def test_a_port_in_use(cluster, start):
    job = start("--sbatch", "begin=now+60")
    port = 20000 + int(job) % 5000 * 2
    with cluster.listening("n1", port):
        release(job)
        assert_failed_at_once(job, f"on port `{port}`, but another process is utilizing it")


def test_nodes_that_are_not_the_profiles(start, tmp_path):
    run("scancel", start("--sbatch", "begin=now+600"))
    job = run(
        "sbatch", "--begin=now", "--nodes=1", f"--chdir={tmp_path}", tmp_path / "runs" / "slurm" / "sft_run.sbatch"
    ).split()[-1]
    assert_failed_at_once(job, "profile machines needs 2 nodes; this job has 1")
    assert record(job)["ExitCode"] == "2:0"


def test_an_array_of_seeds(start, tmp_path):
    """Its jobs run side by side and are stopped and continued one by one."""
    job = start("--seeds", "3", "5", profile=ONE_NODE, max_steps=8)
    wait_for_steps(f"{job}_3", tmp_path / "out" / "seed_3", 2)
    run("scancel", "--batch", "--signal=USR1", f"{job}_3")
    release(f"{job}_3")
    for seed, restarts in ((3, "1"), (5, "0")):
        assert settled(f"{job}_{seed}") == "COMPLETED", log_of(f"{job}_{seed}")
        assert record(f"{job}_{seed}")["Restarts"] == restarts
        assert steps_of(tmp_path / "out" / f"seed_{seed}") == list(range(1, 9))
        assert (tmp_path / "runs" / "slurm" / f"sft_run-{job}_{seed}.out").is_file()
        assert f"seed: {seed}\n" in (tmp_path / "out" / f"seed_{seed}" / "config.yaml").read_text()


BY_SERVER = {"per_device_train_batch_size": 4, "use_vllm": True, "vllm_mode": "server"}
WITH_SERVER = {**ONE_NODE, "server_nodes": 1, "grpo": BY_SERVER}
GRPO = {"rewards": "format", "num_generations": 4, "max_completion_length": 8, "max_steps": 1000}


def test_a_server_that_fails_ends_training(start, tmp_path):
    """The server is on the last node. Without vLLM there it ends, and nobody waits for it any longer."""
    places = 'echo "$SLURM_JOB_NAME $SLURMD_NODENAME" >> places'
    job = start(name="grpo_run", profile=WITH_SERVER, setup=f"{SETUP} && {places}", **GRPO)
    assert_failed_at_once(job, "vllm.*: No such file or directory", "a server ended with exit code 127")
    assert set((tmp_path / "places").read_text().splitlines()) == {"server n2", "training n1"}


def test_a_server_ends_with_training(cluster, start):
    setup = '[ "$SLURM_JOB_NAME" = training ] || exec sleep 1000; sleep 5; exit 3; true'
    job = start(name="grpo_run", profile=WITH_SERVER, setup=setup, **GRPO)
    assert settled(job) == "FAILED" and record(job)["ExitCode"] == "3:0", log_of(job)
    cluster.wait_for_states({"idle"})
