"""Real processes, ended by real signals at drawn moments, end with the weights of one that nobody touched."""

from __future__ import annotations

import json
import os
import random
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scenerl.training import preemption
from scenerl.training.checkpoints import UNFINISHED
from scenerl.training.preemption import REQUEUE
from training.processes import run
from training.small_run import QUICK, QUICK_GRPO, read_rows, words

SAVED = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 2, "learning_rate": 1e-3}
SFT = {**QUICK, **SAVED, "muon": True}
# Four steps learn from one rollout, and checkpoints fall into the middle of it; β needs the model at the start.
GRPO = {
    **QUICK_GRPO, **SAVED, "save_steps": 3, "steps_per_generation": 2, "num_iterations": 2, "beta": 0.04,
    "rewards": "cosine_length", "sample_log_every": 1,
}  # fmt: skip
FIELDS = {"sft": SFT, "grpo": GRPO}


def argv_of(command: str, base: Path, rows: Path, out: Path, steps: int) -> list[str]:
    fields = {**FIELDS[command], "max_steps": steps}
    return [command, "--model", str(base), "--data", str(rows), "--out", str(out), *words(fields)]


@pytest.fixture(scope="module")
def run_all(tmp_path_factory):
    """A function from runs to the exit codes of every attempt of each, minus the signal where one ended it."""
    script = Path(__file__).with_name("killed_runs.py")
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1",
        "SCENERL_STOPPED": str(tmp_path_factory.mktemp("stopped") / "stopped"),  # the job script looks for this file
    }  # fmt: skip
    with (tmp_path_factory.mktemp("runs") / "errors.txt").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, str(script)], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip

        def run_all(runs: list[dict]) -> list[list[int]]:
            print(json.dumps(runs), file=process.stdin, flush=True)
            for line in process.stdout:
                if line.startswith("[["):  # the commands print as well
                    return json.loads(line)
            raise AssertionError(Path(errors.name).read_text()[-3000:])

        run_all.stopped = Path(environment["SCENERL_STOPPED"])
        with process:
            yield run_all
            process.stdin.close()


def assert_the_same(found: Path, wanted: Path) -> None:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (found, wanted))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    for log in ("log.jsonl", "samples.jsonl"):
        if (wanted / log).exists():
            rows = [read_rows(folder / log) for folder in (found, wanted)]
            assert [[row["step"], row.get("answer"), row.get("loss")] for row in rows[0]] == [
                [row["step"], row.get("answer"), row.get("loss")] for row in rows[1]
            ]
    checkpoints = [sorted(path.name for path in folder.glob("checkpoint-*")) for folder in (found, wanted)]
    assert checkpoints[0] == checkpoints[1]
    assert not (found / UNFINISHED).exists()


def kill_and_compare(
    run_all, base, rows, folder, ends: dict[str, list[dict]], steps: dict[str, int]
) -> dict[str, list[int]]:
    """Run each command once undisturbed and once with these ends; returns the exit codes of the disturbed runs."""
    runs = []
    for command in ends:
        runs.append({"argv": argv_of(command, base, rows, folder / f"{command}_whole", steps[command]), "ends": [{}]})
        argv = argv_of(command, base, rows, folder / f"{command}_cut", steps[command])
        runs.append({"argv": argv, "ends": [*ends[command], {}]})
    codes = run_all(runs)
    assert codes[::2] == [[0]] * len(ends)
    for command in ends:
        assert_the_same(folder / f"{command}_cut", folder / f"{command}_whole")
    return dict(zip(ends, codes[1::2], strict=True))


def test_killed_twice_and_asked_to_stop_once(run_all, base, rows, tmp_path):
    # The 20th touch falls into the first checkpoint, the 45th behind it.
    ends = [{"kill_at_touch": 20}, {"kill_at_touch": 45}, {"term_at_step": 5}]
    codes = kill_and_compare(run_all, base, rows, tmp_path, {"sft": ends, "grpo": ends}, {"sft": 7, "grpo": 7})
    for command in ("sft", "grpo"):
        assert codes[command] == [-signal.SIGKILL, -signal.SIGKILL, REQUEUE, 0]
    assert run_all.stopped.exists()


def test_predict_is_killed_and_run_again(run_all, base, rows, tmp_path):
    """No row is lost or doubled, and the rows are those of a run that nobody disturbed."""
    killed, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"

    def run(out, *ends) -> list[int]:
        options = "--batch_size 1 --num_samples 2 --max_new_tokens 12 --device cpu --temperature 1 --seed 3"
        argv = ["predict", "--model", str(base), "--data", str(rows), "--out", str(out), *options.split()]
        (codes,) = run_all([{"argv": argv, "ends": ends}])
        return codes

    assert run(killed, {"kill_at_image": 5}) == [-signal.SIGKILL]
    done = [line for line in killed.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert 0 < len(done) < 12
    with killed.open("ab") as file:  # the row that it was in the middle of, whether or not there was one
        file.write(done[-1][: len(done[-1]) // 2])
    assert run(killed, {}) == run(whole, {}) == [0]
    assert killed.read_bytes().startswith(b"".join(done))
    assert read_rows(killed) == read_rows(whole)
    assert len({(row["image_id"], row["sample"]) for row in read_rows(killed)}) == 12


def test_without_a_signal_that_only_posix_has(monkeypatch):
    """Windows has no SIGUSR1."""
    monkeypatch.delattr(signal, "SIGUSR1")
    found = runpy.run_path(preemption.__file__)
    assert found["SIGNALS"] == (signal.SIGTERM,)
    with found["PreemptionCallback"]() as callback:
        os.kill(os.getpid(), signal.SIGTERM)
    assert callback.received == signal.SIGTERM


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", ["sft", "grpo"])
def test_killed_ten_times(run_all, base, rows, tmp_path, command):
    draw = random.Random(f"ten kills of {command}")
    ends = [{"kill_at_touch": draw.randint(1, 90)} for _ in range(10)]
    codes = kill_and_compare(run_all, base, rows, tmp_path, {command: ends}, {command: 40})
    assert codes[command] == [-signal.SIGKILL] * 10 + [0]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", ["sft", "grpo"])
def test_two_processes_stop_together(base, rows, tmp_path, command):
    """One of them is asked; both save the same checkpoint and end, and both go on."""
    script = Path(__file__).with_name("stopped_process.py")
    argv = [argv_of(command, base, rows, tmp_path / name, 5) for name in ("whole", "cut")]
    more = ["--use_cpu", "true"]
    assert run(2, script, 0, *argv[0], *more)[0] == [0, 0]
    codes, errors = run(2, script, 3, *argv[1], *more)
    assert codes == [REQUEUE, REQUEUE], errors
    assert "stopped by another process with a checkpoint after 3 of 5 steps" in errors[0]
    assert [path.name for path in (tmp_path / "cut").glob("checkpoint-3/rng_state_*.pth")]
    codes, errors = run(2, script, 0, *argv[1], *more)
    assert codes == [0, 0], errors
    assert "3 of 5 steps were done before" in errors[0] and "were done before" not in errors[1]
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("cut", "whole"))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
