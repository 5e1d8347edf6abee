"""A file of predictions has one writer, whatever the others do and however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import scenerl
from inference.loopback import said
from scenerl.cli import main
from scenerl.inference.lock import only_writer
from training.small_run import read_rows

ANSWER = "apple 100 200 400 700\nbook 500 100 900 600\n\n1 left of 2\nend"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(scenerl.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def python(*words: str, **more) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, *words], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, **more)


def test_the_lock_ends_and_leaves_nothing(tmp_path):
    path = tmp_path / "new" / "out.jsonl"
    for _ in range(2):
        with only_writer(path, path, tmp_path / "other.jsonl"):
            with pytest.raises(ValueError, match="new/out.jsonl: another process is writing it; wait for it"):
                with only_writer(tmp_path / "third.jsonl", path):
                    pass
            with only_writer(tmp_path / "third.jsonl"):
                pass
    assert [file.name for file in tmp_path.rglob("*")] == ["new"]


def test_another_name_of_the_file_is_the_same_file(tmp_path):
    path, other = tmp_path / "out.jsonl", tmp_path / "other.jsonl"
    path.touch()
    other.symlink_to(path)
    with only_writer(path), pytest.raises(ValueError, match="other.jsonl: another process is writing it"):
        with only_writer(other):
            pass


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path):
    path = tmp_path / "out.jsonl"
    hold = """
import sys, time
from scenerl.inference.lock import only_writer
with only_writer(sys.argv[1]):
    print("in", flush=True)
    time.sleep(99)
"""
    process = python("-c", hold, str(path))
    assert process.stdout.readline() == "in\n"
    with pytest.raises(ValueError, match="another process is writing it"), only_writer(path):
        pass
    process.kill()
    process.communicate()
    assert os.listdir(tmp_path) == [".out.jsonl.lock"]
    with only_writer(path):
        pass
    assert os.listdir(tmp_path) == []


def test_of_processes_that_come_and_go_one_is_inside_at_a_time(tmp_path):
    """The lock file is removed at every end: nobody may lock one that is on its way out."""
    visits = """
import os, sys
from scenerl.inference.lock import only_writer
done = 0
while done < 200:
    try:
        with only_writer(sys.argv[1]):
            os.close(os.open(sys.argv[1] + ".inside", os.O_CREAT | os.O_EXCL))  # fails where somebody is inside
            os.remove(sys.argv[1] + ".inside")
            done += 1
    except ValueError:
        pass
"""
    processes = [python("-c", visits, str(tmp_path / "out"), stderr=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert os.listdir(tmp_path) == []


def test_a_second_predict_on_the_file_is_refused_and_does_no_harm(serve, base, rows, tmp_path, capsys):
    go, asked = threading.Event(), threading.Event()

    def do(number, body):
        if number:  # the first is the question of the start
            asked.set()
            assert go.wait(100)
        return said(ANSWER)

    server = serve(do)
    out = tmp_path / "out.jsonl"
    words = ["predict", "--engine", "openai", "--server", server.address, "--model", str(base), "--data", str(rows)]
    words += ["--out", str(out), "--batch_size", "1"]
    first = python("-m", "scenerl", *words)
    assert asked.wait(200), first.poll()
    before = out.with_name("out.jsonl.yaml").read_bytes()
    for more in ([], ["--fresh"], ["--fresh", "--seed", "7"], ["--gather", "2"]):
        assert main([*words, *more]) == 2
        assert f"{out}: another process is writing it; wait for it, give each its part" in capsys.readouterr().err
    assert main([*words, "--merge", "--num_samples", "2", "--temperature", "1"]) == 2  # it would replace the file, too
    assert f"{out}: another process is writing it" in capsys.readouterr().err
    assert out.with_name("out.jsonl.yaml").read_bytes() == before
    go.set()
    printed, _ = first.communicate(timeout=200)
    assert first.returncode == 0 and printed == f"{out}: 6 answers: 0 failed, 0 with issues\n"
    assert [row["image_id"] for row in read_rows(out)] == [f"image-{k}" for k in range(6)]
    assert main(words) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.yaml"]
