"""Files are written whole or not at all, and a file of predictions has one writer, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import scenerl
from scenerl import files
from scenerl.files import apply_umask, atomic_write_text, only_writer

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
from scenerl.files import only_writer
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
    with only_writer(path):
        pass
    assert os.listdir(tmp_path) == []


def test_of_processes_that_come_and_go_one_is_inside_at_a_time(tmp_path):
    visits = """
import os, sys
from scenerl.files import only_writer
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


def test_a_full_disk_leaves_the_old_text_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    atomic_write_text(path, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic_write_text(path, "new")
    assert path.read_text() == "old" and [child.name for child in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o027, 0o640)])
def test_files_that_a_library_wrote_for_their_owner_alone_get_the_usual_permissions(tmp_path, mask, mode):
    (tmp_path / "model.safetensors").touch(0o600)
    (tmp_path / "folder").mkdir(0o700)
    before = os.umask(mask)
    try:
        apply_umask(tmp_path)
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == mode
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700
