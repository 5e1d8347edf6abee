"""Prediction in parts: the parts together are what one process would have written, and nothing else passes."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from scenerl import cli
from scenerl.answers import OutputFormat
from scenerl.config import plain
from scenerl.files import only_writer
from scenerl.inference.engines import device_named
from scenerl.inference.fingerprint import Fingerprint
from scenerl.inference.shards import Shard, gather
from scenerl.types import Example, SceneGraph


@pytest.fixture(scope="module")
def model(base):
    """A checkpoint with its output format beside it."""
    from scenerl.answers.dialogue import save_output_format
    from training.small_run import STYLE

    save_output_format(STYLE, base)
    return base


@pytest.fixture
def command(model, rows):
    def make(out, *more) -> list[str]:
        words = ["--model", model, "--data", rows, "--out", out, "--max_new_tokens", 4, "--batch_size", 2]
        sampled = ["--temperature", 1, "--num_samples", 2, "--device", "cpu", "--dtype", "float32"]
        return list(map(str, ["predict", *words, *sampled, *more]))

    return make


@pytest.fixture
def parts(command, tmp_path):
    """Two parts of six images in batches of two: the first and third batch, and the second."""
    out = tmp_path / "parts" / "p.jsonl"
    for number in (1, 2):
        assert cli.main(command(out, "--shard", f"{number}/2")) == 0
    return out


def rows_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def failing(capsys, words) -> str:
    capsys.readouterr()
    assert cli.main(words) == 2
    return capsys.readouterr().err


def test_gathered_parts_are_what_one_process_writes(parts, command, tmp_path, capsys):
    whole = tmp_path / "whole.jsonl"
    assert cli.main(command(whole)) == 0
    first = [row["image_id"] for row in rows_of(parts.with_name("p.1-of-2.jsonl"))]
    assert first == [f"image-{n}" for n in (0, 0, 1, 1, 4, 4, 5, 5)]
    assert cli.main(command(parts, "--gather", 2)) == 0
    assert parts.read_bytes() == whole.read_bytes()
    # The file is one that predict goes on with: nothing is left to do.
    assert cli.main(command(parts)) == 0
    assert parts.read_bytes() == whole.read_bytes()


def test_constrained_parts_are_what_one_process_writes_and_all_of_them_parse(command, tmp_path, capsys):
    out, whole = tmp_path / "parts" / "p.jsonl", tmp_path / "whole.jsonl"
    more = ["--constrain", "--max_new_tokens", 40]
    for number in (2, 1):
        assert cli.main(command(out, *more, "--shard", f"{number}/2")) == 0
    capsys.readouterr()
    assert cli.main(command(out, *more, "--gather", 2)) == 0
    assert capsys.readouterr().out == f"{out}: 12 answers: 0 failed, 0 with issues\n"
    assert cli.main(command(whole, *more)) == 0
    assert out.read_bytes() == whole.read_bytes()
    rows = rows_of(out)
    assert [(row["image_id"], row["sample"]) for row in rows] == [(f"image-{n}", k) for n in range(6) for k in (0, 1)]
    assert {row["status"] for row in rows} == {"ok"} and not any(row["issues"] for row in rows)


def test_a_part_that_was_killed_goes_on(parts, command, capsys):
    part = parts.with_name("p.1-of-2.jsonl")
    whole = part.read_bytes()
    part.write_bytes(whole[:-300])
    assert "has no answer in any of 2 files" in failing(capsys, command(parts, "--gather", 2))
    assert not parts.exists()
    assert cli.main(command(parts, "--shard", "1/2")) == 0
    assert part.read_bytes() == whole
    assert cli.main(command(parts, "--gather", 2)) == 0


def test_a_part_that_is_being_written_is_not_gathered(parts, command, capsys):
    part = parts.with_name("p.2-of-2.jsonl")
    with only_writer(part):
        assert f"{part}: another process is writing it" in failing(capsys, command(parts, "--gather", 2))
        assert f"{part}: another process is writing it" in failing(capsys, command(parts, "--shard", "2/2"))
        assert cli.main(command(parts, "--shard", "1/2")) == 0
    assert not parts.exists()
    assert cli.main(command(parts, "--gather", 2)) == 0


def test_missing_parts_are_named(parts, command, capsys):
    parts.with_name("p.2-of-2.jsonl").unlink()
    assert "missing p.2-of-2.jsonl (--shard 2/2)" in failing(capsys, command(parts, "--gather", 2))
    error = failing(capsys, command(parts, "--gather", 3))
    assert "missing p.1-of-3.jsonl (--shard 1/3), p.2-of-3.jsonl" in error


def test_parts_of_other_runs_are_refused(parts, command, capsys):
    error = failing(capsys, command(parts, "--gather", 2, "--seed", 7))
    assert "p.1-of-2.jsonl: belongs to another run; differing: seed" in error
    error = failing(capsys, command(parts, "--shard", "2/2", "--seed", 7))
    assert "p.2-of-2.jsonl: belongs to another run; differing: seed" in error
    for ending in ("", ".yaml"):  # a part under another's name
        folder = parts.parent
        shutil.copy(folder / f"p.1-of-2.jsonl{ending}", folder / f"p.2-of-2.jsonl{ending}")
    assert "p.2-of-2.jsonl: belongs to another run; differing: shard" in failing(capsys, command(parts, "--gather", 2))


def test_no_image_is_doubled_or_invented(parts, command, capsys):
    first, second = (parts.with_name(f"p.{number}-of-2.jsonl") for number in (1, 2))
    line = first.read_text().splitlines()[0]
    before = second.read_text()
    second.write_text(before + line + "\n")
    error = failing(capsys, command(parts, "--gather", 2))
    assert "p.2-of-2.jsonl, row 5: image_id 'image-0', sample 0, is in" in error and "p.1-of-2.jsonl already" in error
    second.write_text(before + json.dumps({**json.loads(line), "image_id": "ghost"}) + "\n")
    assert "image_id 'ghost' is of no image" in failing(capsys, command(parts, "--gather", 2))
    second.write_text(before + "[]\n")
    assert "p.2-of-2.jsonl, row 5: not a prediction row" in failing(capsys, command(parts, "--gather", 2))
    assert not parts.exists()


def test_a_kill_while_parts_are_gathered_leaves_nothing_in_the_way(parts, command, monkeypatch):
    def replace_and_die(source, target):
        replace(source, target)
        if target == parts:
            raise KeyboardInterrupt

    replace = os.replace
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", replace_and_die)
        assert cli.main(command(parts, "--gather", 2)) == 130
    assert parts.exists()
    assert cli.main(command(parts, "--gather", 2)) == 0
    assert cli.main(command(parts)) == 0


def test_which_part_a_process_is(monkeypatch):
    assert Shard.parse("2/4") == Shard(2, 4)
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="auto needs variables of torchrun"):
        Shard.parse("auto")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "3")
    assert Shard.parse("auto") == Shard(1, 3)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Shard.parse("auto") == Shard(2, 2)
    for rank in ("two", "2", "-1"):  # of nobody who shares out work
        monkeypatch.setenv("RANK", rank)
        assert Shard.parse("auto") == Shard(1, 3)


@pytest.mark.parametrize(
    ("variables", "device"),
    [
        ({}, "cuda:0"),
        ({"LOCAL_RANK": "3"}, "cuda:3"),
        ({"SLURM_LOCALID": "2"}, "cuda:2"),
        ({"LOCAL_RANK": "1", "SLURM_LOCALID": "0"}, "cuda:1"),  # torchrun in a job
        ({"SLURM_LOCALID": "5"}, "cuda:1"),  # two processes share one
        ({"LOCAL_RANK": "first"}, "cuda:0"),
    ],
)
def test_processes_of_one_machine_take_a_gpu_each(monkeypatch, variables, device):
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert device_named("auto") == device
    assert device_named("cpu") == "cpu"


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/0", "-1/2", "1/2/3", "", "1e1/20"])
def test_what_is_no_part(text):
    with pytest.raises(ValueError, match="is not a part of a whole"):
        Shard.parse(text)


def test_parts_share_all_images():
    for total in range(23):
        for size in (1, 2, 5):
            for count in (1, 2, 3, 7):
                shares = [Shard(number, count).num_images(total, size) for number in range(1, count + 1)]
                assert sum(shares) == total
    assert Shard(2, 2).num_images(6, 2) == 2


def test_merged_parts_are_what_one_process_merges(command, tmp_path, capsys):
    out, whole = tmp_path / "parts" / "p.jsonl", tmp_path / "whole.jsonl"
    for number in (2, 1):
        assert cli.main(command(out, "--merge", "--shard", f"{number}/2")) == 0
    # A part holds answers: there is nothing to merge before all of them are there.
    assert sorted(path.name for path in out.parent.glob("*.jsonl")) == [
        "p.samples.1-of-2.jsonl",
        "p.samples.2-of-2.jsonl",
    ]
    assert "differing: merge" in failing(capsys, command(tmp_path / "parts" / "p.samples.jsonl", "--gather", 2))
    assert cli.main(command(out, "--merge", "--gather", 2)) == 0
    assert cli.main(command(whole, "--merge")) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert out.with_name("p.samples.jsonl").read_bytes() == whole.with_name("whole.samples.jsonl").read_bytes()


# parts that an earlier version wrote

DEFAULTS = {"seed": 0, "logprobs": False, "constrain": False}
EXAMPLES = [Example(name, 8, 8, SceneGraph((), ())) for name in "ab"]
FINGERPRINT = {
    "model": "m",
    "seed": 0,
    "logprobs": False,
    "constrain": False,
    "output_format": plain(OutputFormat(step=20)),
}


def write_parts(folder, first: dict, second: dict):
    for number, (example, fingerprint) in enumerate(zip(EXAMPLES, (first, second), strict=True), start=1):
        path = folder / f"p.{number}-of-2.jsonl"
        path.write_text(json.dumps({"image_id": example.image_id, "sample": 0}) + "\n")
        Fingerprint(fingerprint, {}).of_shard(f"{number}/2").write(path)
    return folder / "p.jsonl"


def without(fingerprint: dict, *keys: str) -> dict:
    output_format = {key: value for key, value in fingerprint["output_format"].items() if key not in keys}
    return {key: value for key, value in fingerprint.items() if key not in keys} | {"output_format": output_format}


def test_what_an_earlier_version_did_not_write_is_the_default(tmp_path):
    out = write_parts(tmp_path, without(FINGERPRINT, "constrain", "logprobs", "provided"), FINGERPRINT)
    assert gather(out, 2, EXAMPLES, 1, Fingerprint(FINGERPRINT, DEFAULTS))[1] == []
    assert [json.loads(line)["image_id"] for line in out.read_text().splitlines()] == ["a", "b"]


@pytest.mark.parametrize(
    ("missing", "now", "named"),
    [
        ("constrain", {"constrain": True}, "constrain"),
        (
            "provided",
            {"output_format": {**FINGERPRINT["output_format"], "provided": "boxes"}},
            "output_format.provided",
        ),
        ("step", {}, "output_format.step"),  # it was 20 and 1 is the default
        ("model", {}, "model"),  # has none
    ],
)
def test_other_differences_are_refused(tmp_path, missing, now, named):
    fingerprint = {**FINGERPRINT, **now}
    out = write_parts(tmp_path, fingerprint, without(fingerprint, missing))
    with pytest.raises(
        ValueError, match=rf"p\.2-of-2\.jsonl: belongs to another run; differing: {named} \(\S+ there, \S+ now\)$"
    ):
        gather(out, 2, EXAMPLES, 1, Fingerprint(fingerprint, DEFAULTS))
    assert not out.exists()
