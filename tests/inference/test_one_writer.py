"""A file of predictions has one writer, whatever other processes do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import scenerl
from inference.loopback import said
from scenerl.cli import main
from training.small_run import read_rows

ANSWER = "apple 100 200 400 700\nbook 500 100 900 600\n\n1 left of 2\nend"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(scenerl.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def python(*words: str, **more) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, *words], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, **more)


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
