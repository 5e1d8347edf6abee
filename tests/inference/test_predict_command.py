"""``scenerl predict`` as a user runs it: on a full disk, on bad data, over other people's files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from scenerl.cli import main
from scenerl.config import dump_yaml, load_yaml, plain
from scenerl.data import load as load_data
from scenerl.errors import counted
from scenerl.models.loading import load
from scenerl.types import FAILURES
from training.small_run import STYLE, read_rows, save_base, write_data, write_rows

SHORT = ["--max_new_tokens", "12", "--device", "cpu"]
SAMPLED = [*SHORT, "--temperature", "1", "--seed", "3"]
NUM_IMAGES = 14


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Synthetic scenes as `scenerl data make` writes them."""
    folder = tmp_path_factory.mktemp("scenes")
    assert main(["data", "make", "--out", str(folder), "--num_train", "4", "--num_test", str(NUM_IMAGES)]) == 0
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory, scenes):
    """An untrained checkpoint that knows the words of the scenes."""
    return save_base(tmp_path_factory.mktemp("model") / "checkpoint", list(load_data(scenes / "train.jsonl")))


def command(model, data, out, *more) -> list[str]:
    return ["predict", "--model", str(model), "--data", str(data), "--out", str(out), *more]


def failing(capsys, words) -> str:
    """The one line that a command which is not possible ends in."""
    capsys.readouterr()
    assert main(words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("scenerl: error: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("scenerl: error: ")


def test_synthetic_scenes_from_end_to_end(model, scenes, tmp_path):
    out = tmp_path / "predictions.jsonl"
    words = command(model, scenes / "test.jsonl", out, *SAMPLED, "--batch_size", "5", "--num_samples", "2")
    assert main(words) == 0
    rows = read_rows(out)
    ids = [example.image_id for example in load_data(scenes / "test.jsonl")]
    assert [(row["image_id"], row["sample"]) for row in rows] == [(name, sample) for name in ids for sample in (0, 1)]
    for row in rows:
        assert (row["width"], row["height"], row["input_wh"], row["frame"]) == (112, 112, [112, 112], "norm1000")
        assert row["status"] in FAILURES or row["status"] == "ok"
        assert 0 <= row["num_tokens"] <= 12 and row["finish_reason"] in ("stop", "length")
        assert isinstance(row["answer"], str) and "<|" not in row["answer"]
    assert len({row["answer"] for row in rows}) > NUM_IMAGES
    before = out.read_bytes()
    assert main(words) == 0
    assert out.read_bytes() == before


def test_greedy_rows_are_what_eval_reads(model, scenes, tmp_path):
    out = tmp_path / "predictions.jsonl"
    assert main(command(model, scenes / "test.jsonl", out, *SHORT, "--limit", "3")) == 0
    assert len(read_rows(out)) == 3
    few = write_rows(scenes / "few.jsonl", read_rows(scenes / "test.jsonl")[:3])
    assert main(["eval", str(out), "--data", str(few), "--out", str(tmp_path / "metrics.json")]) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["counts"]["images"] == 3


def test_a_greedy_run_goes_on_with_smaller_batches(model, scenes, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    words = command(model, scenes / "test.jsonl", out, *SHORT)
    assert main([*words, "--limit", "3"]) == 0
    before = out.read_bytes()
    assert main([*words, "--limit", "3", "--batch_size", "2"]) == 0
    assert out.read_bytes() == before
    shard = [*words, "--limit", "4", "--shard", "1/2"]
    assert main(shard) == 0
    assert "batch_size (None there, 2 now)" in failing(capsys, [*shard, "--batch_size", "2"])  # its images are others
    out.write_bytes(b"")  # of a run that ended before its first row
    assert main([*words, "--limit", "1", "--seed", "4"]) == 0


@pytest.mark.parametrize(
    ("more", "key"),
    [
        (["--seed", "4"], "seed (3 there, 4 now)"),
        (["--grid", "5"], "grid (None there, 5 now), output_format.step (20 there, 5 now)"),
        (["--batch_size", "2"], "batch_size (None there, 2 now)"),
    ],
)
def test_the_file_of_another_run_is_refused(model, scenes, tmp_path, capsys, more, key):
    out = tmp_path / "out.jsonl"
    words = command(model, scenes / "test.jsonl", out, *SAMPLED, "--limit", "2")
    assert main(words) == 0
    before = out.read_bytes()
    message = failing(capsys, [*words, *more])
    assert message == (f"{out}: belongs to another run; differing: {key}; use --fresh to replace it, or another --out")
    assert out.read_bytes() == before
    assert main([*words, *more, "--fresh"]) == 0
    assert len(read_rows(out)) == 2
    assert main([*words, *more]) == 0  # it is the owner now


def test_a_run_goes_on_with_the_file_of_an_earlier_version(model, scenes, tmp_path, capsys):
    """Its .yaml lacks what came later."""
    out = tmp_path / "out.jsonl"
    words = command(model, scenes / "test.jsonl", out, *SHORT, "--limit", "2")
    assert main(words) == 0
    config = tmp_path / "out.jsonl.yaml"
    fingerprint = load_yaml(config)
    for key in ("engine", "constrain", "task", "boxes"):
        del fingerprint[key]
    assert fingerprint["output_format"].pop("provided", 0) is None
    config.write_text(dump_yaml(fingerprint))
    assert main(words) == 0
    fingerprint["output_format"]["provided"] = "boxes"
    config.write_text(dump_yaml(fingerprint))
    assert "differing: output_format.provided ('boxes' there, None now);" in failing(capsys, words)


def test_a_model_that_was_trained_on_is_another_run(model, scenes, tmp_path, capsys):
    """The folder has the same name, its answers are others."""
    folder = shutil.copytree(model, tmp_path / "model")
    out = tmp_path / "out.jsonl"
    words = command(folder, scenes / "test.jsonl", out, *SHORT, "--limit", "2")
    assert main(words) == 0
    checkpoint = load(folder)
    with torch.no_grad():
        checkpoint.model.model.language_model.norm.weight.mul_(1.01)
    checkpoint.model.save_pretrained(folder)
    assert "belongs to another run; differing: weights (" in failing(capsys, words)
    settings = json.loads((folder / "scenerl.json").read_text())
    settings["output_format"]["objects"] = ["apple"]
    (folder / "scenerl.json").write_text(json.dumps(settings))
    error = failing(capsys, words)
    assert "differing: output_format.objects (None there, ['apple'] now), weights (" in error


def test_files_that_predict_did_not_write_are_never_touched(model, scenes, tmp_path, capsys):
    """Not even with --fresh: it may be the data set that was named by mistake."""
    data = shutil.copy(scenes / "test.jsonl", tmp_path / "test.jsonl")
    before = Path(data).read_bytes()
    for more in ([], ["--fresh"]):
        message = failing(capsys, command(model, scenes / "test.jsonl", data, *SHORT, *more))
        assert message == f"{data}: exists but was not written by predict; choose another --out"
        assert "is read by this command" in failing(capsys, command(model, data, data, *SHORT, *more))
        assert "is a folder; expected" in failing(capsys, command(model, data, tmp_path, *SHORT, *more))
    assert Path(data).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["test.jsonl"]


def test_fresh_keeps_the_old_rows_until_nothing_can_be_wrong_any_more(model, scenes, tmp_path, capsys):
    folder = shutil.copytree(model, tmp_path / "model")
    out = tmp_path / "out.jsonl"
    words = command(folder, scenes / "test.jsonl", out, *SHORT, "--limit", "2")
    assert main(words) == 0
    before = out.read_bytes()
    (folder / "tokenizer.json").write_text("{}")
    failing(capsys, [*words, "--fresh"])
    assert out.read_bytes() == before


def test_images_that_cannot_be_read_are_counted_at_the_end(model, tmp_path, capsys):
    data, out = write_data(tmp_path / "data"), tmp_path / "out.jsonl"
    (data.parent / "images" / "1.png").unlink()
    damaged = data.parent / "images" / "4.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    message = failing(capsys, command(model, data, out, *SHORT))
    assert message.startswith(f"{data}: 2 of 6 images have no answer in {out}, the first: ")
    assert "'image-1'" in message
    rows = {row["image_id"]: row for row in read_rows(out)}
    assert [name for name, row in rows.items() if "error" in row] == ["image-1", "image-4"]
    assert len(rows) == 6 and all(row["answer"] is not None for row in rows.values() if "error" not in row)
    assert "2 of 6 images" in failing(capsys, command(model, data, out, *SHORT))  # they do not go quiet


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 pages. Needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = 16 * os.sysconf("SC_PAGE_SIZE")
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_whole_rows_and_the_run_goes_on_later(model, scenes, small_disk, tmp_path, capsys):
    out, ballast = small_disk / "out.jsonl", small_disk / "ballast"
    words = command(model, scenes / "test.jsonl", out, *SAMPLED, "--num_samples", "4", "--batch_size", "2")
    page = os.sysconf("SC_PAGE_SIZE")
    ballast.write_bytes(b"x" * 12 * page)  # leaves room for the settings beside the file and a few rows
    message = failing(capsys, words)
    rows = read_rows(out)
    assert 0 < len(rows) < 4 * NUM_IMAGES
    assert message == (
        f"{out}: cannot write (No space left on device); {counted(len(rows), 'row')} so far kept, "
        "the same command goes on from there"
    )
    ballast.unlink()
    assert main(words) == 0
    assert main(command(model, scenes / "test.jsonl", tmp_path / "whole.jsonl", *words[7:])) == 0
    assert read_rows(out) == read_rows(tmp_path / "whole.jsonl")


def test_a_disk_that_is_full_at_the_start(model, scenes, small_disk, capsys):
    (small_disk / "ballast").write_bytes(b"x" * 16 * os.sysconf("SC_PAGE_SIZE"))
    message = failing(capsys, command(model, scenes / "test.jsonl", small_disk / "out.jsonl", *SHORT))
    assert message.endswith("No space left on device")
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_the_output_format_is_that_of_the_checkpoint_unless_stated(model, scenes, tmp_path):
    """scenerl.json says compact answers in steps of 20."""
    assert STYLE.format == "compact" and STYLE.step == 20

    def output_format_of(*more):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        assert main(command(model, scenes / "test.jsonl", out, *SHORT, "--limit", "1", *more)) == 0
        return load_yaml(out.with_name(f"{out.name}.yaml"))["output_format"]

    assert output_format_of() == plain(STYLE)
    vocabulary = tmp_path / "vocabulary.json"
    vocabulary.write_text(json.dumps({"objects": ["apple"], "predicates": ["on"]}))
    assert output_format_of("--format", "json", "--envelope", "think", "--vocabulary", str(vocabulary)) == {
        **plain(STYLE),
        "format": "json",
        "template": "think",
        "objects": ["apple"],
        "predicates": ["on"],
    }


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--num_samples", "2"], "num_samples: 2 greedy outputs would be equal; set a temperature above 0"),
        (["--device", "quantum"], "device 'quantum' cannot be used"),
        (["--device", "cuda:77"], "device 'cuda:77' cannot be used"),
        (["--max_pixels", "100"], "min_pixels 3136 is larger than max_pixels 100"),
        (["--limit", "0"], "limit: '0': should be greater than 0"),
        (["--format", "xml"], "format"),
        (["--vocabulary", "nowhere.json"], "nowhere.json: cannot be read"),
        (["--split", "test"], "has no split"),
    ],
)
def test_options_that_cannot_be(model, scenes, tmp_path, capsys, more, expected):
    out = tmp_path / "out.jsonl"
    base = ["--max_new_tokens", "2"] if "--device" in more else SHORT
    assert expected in failing(capsys, command(model, scenes / "test.jsonl", out, *base, *more))
    assert list(tmp_path.iterdir()) == []


def test_data_that_cannot_be(model, scenes, tmp_path, capsys):
    rows = read_rows(scenes / "test.jsonl")
    out = tmp_path / "out.jsonl"
    empty = write_rows(tmp_path / "empty.jsonl", [])
    assert "is empty" in failing(capsys, command(model, empty, out, *SHORT))
    twice = write_rows(tmp_path / "twice.jsonl", [rows[0], rows[1], rows[0]])
    message = failing(capsys, command(model, twice, out, *SHORT))
    assert "twice.jsonl, row 3" in message and f"{rows[0]['image_id']!r}" in message
    missing = tmp_path / "missing.jsonl"
    assert f"{missing}: cannot be read" in failing(capsys, command(model, missing, out, *SHORT))
    (tmp_path / "bad.jsonl").write_text(f"{json.dumps(rows[0])}\nnot json\n")
    assert "bad.jsonl, row 2" in failing(capsys, command(model, tmp_path / "bad.jsonl", out, *SHORT))
    assert not out.exists()


def test_warnings_about_the_data_come_once(model, tmp_path, caplog):
    data = write_data(tmp_path / "data", count=1)
    [row] = read_rows(data)
    row["objects"][0]["bbox"] = [-5, 10, 24, 40]
    assert main(command(model, write_rows(data, [row]), tmp_path / "out.jsonl", *SHORT)) == 0
    assert [record.getMessage().count("leaves the image") for record in caplog.records] == [1]


def test_models_that_cannot_be(model, scenes, tmp_path, capsys):
    data, out = scenes / "test.jsonl", tmp_path / "out.jsonl"
    assert "no such folder" in failing(capsys, command(tmp_path / "nowhere", data, out))
    assert "the hub gives no such model" in failing(capsys, command("nobody/nothing", data, out))
    folder = shutil.copytree(model, tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    assert "missing preprocessor_config.json" in failing(capsys, command(folder, data, out))
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert "model_type 'gpt2' is not supported; allowed: qwen2_vl" in failing(capsys, command(folder, data, out))
    assert not out.exists()
