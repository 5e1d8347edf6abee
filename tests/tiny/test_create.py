"""A small model for any data set: what it is made of, and ``scenerl sft --model tiny`` from rows to answers."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from scenerl import cli, data, tiny
from scenerl.answers import OutputFormat, build_prompt, write_answer
from scenerl.answers.dialogue import FILE_NAME
from scenerl.models.loading import load
from scenerl.models.output_formats import saved_output_format
from scenerl.types import SceneGraph
from training.small_run import QUICK, SHAPE, STYLE, read_rows, words, write_rows

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "real" / "scene_graphs.jsonl"

ARGS = words({"format": "compact", "grid": 20, "tiny_warmup_steps": 2, **QUICK})


@pytest.fixture
def small(monkeypatch):
    """Models of a hundred thousand weights."""
    monkeypatch.setattr(tiny.checkpoint, "TinyShape", lambda **sizes: replace(SHAPE, **sizes))


@pytest.mark.parametrize("step", [1, 20])
def test_every_coordinate_and_the_prompt_are_one_token(examples, step):
    output_format = OutputFormat("compact", step=step)
    _, processor = tiny.build(examples, output_format, SHAPE)
    tokens = processor.tokenizer.tokenize(" 0 20 440 1000")
    assert len(tokens) == 4
    assert len(processor.tokenizer(build_prompt(output_format))["input_ids"]) == 1


@pytest.mark.parametrize("output_format", [STYLE, OutputFormat("json", "think"), OutputFormat("json", step=10)])
def test_answers_survive_the_tokenizer(examples, output_format):
    _, processor = tiny.build(examples, output_format, SHAPE)
    for example in examples:
        text = write_answer(example.graph, output_format, example.image_wh)
        ids = processor.tokenizer(text)["input_ids"]
        assert processor.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_prompts_that_differ_by_row_are_text(examples):
    output_format = OutputFormat("detections", step=20)
    asked = [replace(example, query=("apple", "book", f"thing {number}")) for number, example in enumerate(examples)]
    _, processor = tiny.build(asked, output_format, SHAPE)
    prompt = build_prompt(output_format, asked[0].query)
    ids = processor.tokenizer(prompt)["input_ids"]
    assert len(ids) > 1 and processor.tokenizer.decode(ids) == prompt


def test_words_of_labels_are_tokens_of_which_others_can_be_made(examples):
    asked = [replace(examples[0], graph=SceneGraph(()), query=(label,)) for label in ("red apple", "blue book")]
    known, other = "red apple", "red book"
    for by_word, lengths in ((True, (3, 3)), (False, (1, 8))):  # with the space between two words
        _, processor = tiny.build(asked, OutputFormat("detections", step=20), SHAPE, words=by_word)
        assert tuple(len(processor.tokenizer(label)["input_ids"]) for label in (known, other)) == lengths


def test_same_seed_same_model(examples):
    weights = [
        tiny.build(examples, STYLE, SHAPE, seed)[0].model.language_model.embed_tokens.weight for seed in (1, 1, 2)
    ]
    assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])


def test_nothing_to_build_for():
    with pytest.raises(ValueError, match="no examples"):
        tiny.build([], STYLE, SHAPE)


def test_create_leaves_a_checkpoint_folder(examples, tmp_path):
    steps = []
    metrics = tiny.create(
        tmp_path, examples, STYLE, SHAPE, warmup_steps=2, batch_size=2, progress=lambda step, _: steps.append(step)
    )
    assert steps == [1, 2] and 0 <= metrics["accuracy"] <= 1
    assert saved_output_format(tmp_path) == STYLE
    assert load(tmp_path).family.model_type == "qwen2_vl"


def test_sft_builds_trains_and_goes_on(rows, tmp_path, small, monkeypatch):
    out = tmp_path / "run"
    command = ["sft", "--model", "tiny", "--data", str(rows), "--out", str(out), "--max_pixels", "6272", *ARGS]
    assert cli.main(command) == 0
    assert saved_output_format(out) == saved_output_format(out / "tiny") == STYLE
    settings = json.loads((out / "tiny" / "preprocessor_config.json").read_text())
    assert settings["size"]["longest_edge"] == 6272
    answers = tmp_path / "answers.jsonl"
    predict = ["predict", "--model", str(out), "--data", str(rows), "--out", str(answers), "--max_new_tokens", "4"]
    assert cli.main(predict) == 0
    assert len(read_rows(answers)) == 6

    def fail(*_, **__):
        raise AssertionError("built again")

    monkeypatch.setattr(tiny.checkpoint, "create", fail)
    assert cli.main(command) == 0


def test_a_model_cut_off_while_it_was_built_is_built_again(rows, tmp_path, small):
    out = tmp_path / "run"
    command = ["sft", "--model", "tiny", "--data", str(rows), "--out", str(out), *ARGS]
    assert cli.main(command) == 0
    (out / "tiny" / FILE_NAME).unlink()
    (out / "tiny" / "model.safetensors").write_bytes(b"half")
    assert cli.main(command) == 0
    assert load(out / "tiny").name


def test_a_folder_called_tiny_is_a_checkpoint_as_any_other(base, rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").symlink_to(base)
    assert cli.main(["sft", "--model", "tiny", "--data", str(rows), "--out", "run", *words(QUICK)]) == 0
    assert not (tmp_path / "run" / "tiny").exists()


def test_warm_up_needs_objects(rows, tmp_path, small, capsys):
    bare = [row | {"objects": [], "relationships": []} for row in read_rows(rows)]
    for row in bare:
        row["file_name"] = str(rows.parent / "images" / row["file_name"])
    path = write_rows(tmp_path / "bare.jsonl", bare)
    assert cli.main(["sft", "--model", "tiny", "--data", str(path), "--out", str(tmp_path / "run"), *ARGS]) == 2
    assert "warm-up needs examples with objects" in capsys.readouterr().err


@pytest.mark.skipif(not PHOTOS.is_file(), reason=f"there are no real photos at {PHOTOS}")
def test_every_command_runs_on_photos(tmp_path, small, caplog):
    caplog.set_level(logging.ERROR)
    rows, out = tmp_path / "photos.jsonl", tmp_path / "sft"
    only = ["--only", "vcoco_*", "psg_*"]
    assert cli.main(["data", "convert", str(PHOTOS), *only, "--out", str(rows)]) == 0
    assert len(list(data.load(rows, need_images=True))) == 21
    assert cli.main(["data", "check", str(rows)]) == 0
    sft = ["sft", "--model", "tiny", "--data", str(rows), "--out", str(out), "--max_pixels", "12544"]
    assert cli.main([*sft, *ARGS]) == 0
    predictions, metrics = tmp_path / "sft.jsonl", tmp_path / "metrics.json"
    predict = ["predict", "--model", str(out), "--data", str(rows), "--out", str(predictions), "--max_new_tokens", "4"]
    assert cli.main(predict) == 0
    assert cli.main(["eval", str(predictions), "--data", str(rows), "--out", str(metrics)]) == 0
    assert json.loads(metrics.read_text())["metrics"]["R@50"]["value"] is not None
    report = ["report", "--data", str(rows), "--predictions", f"SFT={predictions}", "--metrics", f"SFT={metrics}"]
    assert cli.main([*report, "--logs", f"SFT={out / 'log.jsonl'}", "--out", str(tmp_path / "report.html")]) == 0
    assert "vcoco_165" in (tmp_path / "report.html").read_text()
