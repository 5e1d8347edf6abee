"""What a run needs before it trains: fields of TRL's configurations, data, vocabulary; and the console table."""

from __future__ import annotations

import dataclasses
import io
import json
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState
from trl import GRPOConfig, SFTConfig

from scenerl import cli
from scenerl.commands import TRAINING, options_of, parse
from scenerl.config import dump_yaml
from scenerl.errors import UserError
from scenerl.training import grpo, setup, sft
from scenerl.training.checkpoints import fit
from scenerl.training.logs import ConsoleTable
from scenerl.types import Example, SceneGraph, StoredImage
from training.small_run import (
    QUICK,
    QUICK_GRPO,
    STYLE,
    examples_of,
    load_checkpoint,
    read_rows,
    words,
    write_data,
    write_rows,
)

CONFIGS = {"sft": SFTConfig, "grpo": GRPOConfig}
PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "real" / "scene_graphs.jsonl"


def resolve(command, argv, folder):
    options, extra = parse(command, ["--model", "m", "--data", "d.jsonl", "--out", str(folder), *argv])
    return setup.trl_config(CONFIGS[command], extra, folder, type(options))


def fields_at_default(command) -> dict:
    """Every field that a recipe can give, at its default."""
    values = {}
    for field in dataclasses.fields(CONFIGS[command]):
        if field.init and field.name != "output_dir" and not field.name.startswith("_"):
            default = field.default
            if default is dataclasses.MISSING:
                default = field.default_factory()
            values[field.name] = default.value if isinstance(default, Enum) else default
    return values


@pytest.mark.parametrize("command", ["sft", "grpo"])
def test_every_field_of_trl_can_be_given_in_a_recipe(command, tmp_path):
    values = fields_at_default(command)
    assert len(values) > 100 and {"learning_rate", "per_device_train_batch_size", "report_to"} <= values.keys()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_yaml(values))
    args, provided = resolve(command, ["--config", str(recipe)], tmp_path)
    assert provided.keys() == values.keys()
    assert isinstance(args, CONFIGS[command])


@pytest.mark.parametrize("command", ["sft", "grpo"])
def test_every_plain_field_of_trl_can_be_given_as_words(command, tmp_path):
    values = {
        key: value
        for key, value in fields_at_default(command).items()
        if isinstance(value, bool | int | float | str) and value not in ("", "no")  # "no" may mean False
    }
    assert len(values) > 60
    assert "use_vllm" in values or command == "sft"
    _, provided = resolve(command, words(values), tmp_path)
    wrong = {key: (provided[key], value) for key, value in values.items() if provided[key] != value}
    assert wrong == {}


def test_the_command_line_wins_over_the_recipe(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("learning_rate: 1e-4\nmax_steps: 7\nlr_scheduler_kwargs: {min_lr: 0.1}\n")
    args, _ = resolve("sft", ["--config", str(recipe), "--max_steps", "3"], tmp_path)
    assert (args.learning_rate, args.max_steps, args.lr_scheduler_kwargs) == (1e-4, 3, {"min_lr": 0.1})
    assert not args.bf16  # there is no accelerator; TRL alone would ask for bfloat16


@pytest.mark.parametrize(
    "argv, said",
    [
        (["--learning_rat", "1"], "'learning_rat', no field of SFTConfig either (did you mean learning_rate"),
        (["--muon_learning_rat", "1"], "did you mean muon_learning_rate"),
        (["--max_steps", "many"], "command line: max_steps: 'many': should be a valid integer"),
        (["--learning_rate", "fast"], "learning_rate: 'fast': should be a valid number"),
        (["--lr_scheduler_type", "cosin"], "lr_scheduler_type: 'cosin': should be"),
        (["--report_to", "paper"], "report_to: paper is not installed or not known; allowed: none, "),
        (["--loss_type", "nil"], "loss_type"),
    ],
)  # fmt: skip
def test_wrong_fields_are_one_line(base, rows, tmp_path, capsys, argv, said):
    command = ["sft", "--model", str(base), "--data", str(rows), "--out", str(tmp_path / "run")]
    assert cli.main([*command, *words({key: QUICK[key] for key in ("max_steps", "bf16")}), *argv]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.strip().splitlines()[-1].startswith("scenerl: error: ")


def test_wrong_keys_of_a_recipe_name_the_file(base, rows, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("reward_weigths: [1, 2]\n")
    command = ["grpo", "--model", str(base), "--data", str(rows), "--out", str(tmp_path / "run")]
    assert cli.main([*command, "--config", str(recipe)]) == 2
    error = capsys.readouterr().err
    assert f"{recipe}: unknown option 'reward_weigths'" in error and "did you mean reward_weights" in error


ROW = {
    "image_id": "a",
    "file_name": "0.png",
    "width": 56,
    "height": 56,
    "objects": [{"id": "apple.1", "bbox": [1, 1, 20, 20]}, {"id": "pear.2", "bbox": [30, 30, 50, 50]}],
    "relationships": [{"subject": "apple.1", "predicate": "beside", "object": "pear.2"}],
}


@pytest.mark.parametrize("command", ["sft", "grpo"])
@pytest.mark.parametrize(
    "bad, said",
    [
        ([], ["is empty"]),
        (
            [ROW, {**ROW, "image_id": "b", "file_name": "gone.png"}],
            ["row 2", "there is no such image file", "gone.png"],
        ),
        ([ROW, {**ROW, "file_name": "1.png"}], ["row 2", "image_id 'a'"]),
        ([{**ROW, "width": "wide"}], ["row 1", "width"]),
        ([ROW], ["predicates that are not in the vocabulary: 'beside' (1 times)", "allowed: 'left of'"]),
    ],
)
def test_bad_data_is_one_line_before_the_model_loads(base, rows, tmp_path, capsys, monkeypatch, command, bad, said):
    monkeypatch.setattr(setup, "load", lambda *args, **kwargs: pytest.fail("the model was loaded"))
    (tmp_path / "images").symlink_to(rows.parent / "images")
    vocabulary = tmp_path / "vocabulary.json"
    vocabulary.write_text(json.dumps({"objects": ["apple", "pear"], "predicates": ["left of"]}))
    data = write_rows(tmp_path / "bad.jsonl", bad)
    out = tmp_path / "run"
    argv = [command, "--model", str(base), "--data", str(data), "--out", str(out), "--vocabulary", str(vocabulary)]
    assert cli.main([*argv, *words(QUICK if command == "sft" else QUICK_GRPO)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("scenerl: error: ") and str(data) in error
    assert [part for part in said if part not in error] == []
    assert not out.exists()


def test_the_resolved_recipe_repeats_the_run(base, rows, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    argv = ["--model", str(base), "--data", str(rows), "--out", str(first), "--muon", "--grid", "20"]
    assert cli.main(["sft", *argv, *words({**QUICK, "max_steps": 1})]) == 0
    assert cli.main(["sft", "--config", str(first / "config.yaml"), "--out", str(again)]) == 0
    losses = [[row.get("loss") for row in read_rows(out / "log.jsonl")] for out in (first, again)]
    assert losses[0] == losses[1] and losses[0][0] is not None


def test_training_leaves_the_images_of_a_hub_set_on_the_disk(base, rows, tmp_path, monkeypatch):
    """And learns the same from them as from files; of a few rows it holds the images, and stores nothing."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    parquet = tmp_path / "rows.parquet"
    assert cli.main(["data", "convert", str(rows), "--to", "hub", "--out", str(parquet)]) == 0
    real, kinds = sft.build_trainer, []

    def watched(checkpoint, conversation, examples, *args, **settings):
        kinds.append({type(example.image) for example in examples})
        return real(checkpoint, conversation, examples, *args, **settings)

    monkeypatch.setattr(sft, "build_trainer", watched)
    sources = {"files": [str(rows)], "few": [str(parquet), "--limit", "6"], "hub": [str(parquet)]}
    for name, source in sources.items():
        assert (tmp_path / "cache").exists() is False
        command = ["sft", "--model", str(base), "--out", str(tmp_path / name), "--data", *source]
        assert cli.main([*command, *words({**QUICK, "learning_rate": 1e-2})]) == 0
    assert kinds == [{type(rows)}, {bytes}, {StoredImage}]
    found = [load_file(tmp_path / name / "model.safetensors") for name in sources]
    assert all(torch.equal(value, other[key]) for other in found[1:] for key, value in found[0].items())


def table(width, logs, steps=2, **settings) -> list[str]:
    """The lines that the console shows for a few steps of the same logs."""
    stream = io.StringIO()
    console = ConsoleTable(Console(file=stream, width=width, **settings))
    state, control = TrainerState(max_steps=steps), TrainerControl()
    console.on_log(None, state, control, logs=logs)  # before training begins there is no table
    console.on_train_begin(None, state, control)
    for step in range(1, steps + 1):
        state.global_step = step
        console.on_step_end(None, state, control)
        console.on_log(None, state, control, logs=dict(logs))
    console.on_log(None, state, control, logs={"train_runtime": 1.0})
    console.on_train_end(None, state, control)
    return [line.rstrip() for line in stream.getvalue().splitlines() if line.strip()]


LOGS = {
    "loss": 1.23456,
    "grad_norm": float("nan"),
    "learning_rate": 1e-5,
    "reward": 0.5,
    "reward_std": None,
    "rewards/format/mean": 1.0,
    "rewards/[red]x[/red]/mean": 0.25,
    "rewards/format/std": 0.1,
    "scene/failure_rate": 0.125,
    "completions/mean_length": 30.5,
    "entropy": 2.0,
    "epoch": 0.1,
}


def test_the_console_shows_one_heading_and_a_row_per_step():
    lines = table(160, LOGS)
    assert lines[0].split() == ["step", "left", "loss", "reward", "format", "[red]x[/red]", "±", "failed", "tokens",
                                "entropy", "grad", "lr"]  # fmt: skip
    assert lines[1].split() == ["1/2", "0", "s", "1.235", "0.5", "1", "0.25", "–", "0.125", "30.5", "2", "nan", "1e-05"]
    assert lines[2].split()[0] == "2/2" and len(lines) == 3
    ends = [[i for i, char in enumerate(line + " ") if char == " " and line[i - 1 : i].strip()] for line in lines]
    assert ends[0][2:4] == ends[1][3:5] == ends[2][3:5]  # numbers stand under their names


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_narrow_console_drops_columns_and_cuts_none(width):
    lines = table(width, LOGS)
    full = table(160, LOGS)
    assert len(lines) == 3 and max(map(len, lines)) <= width
    assert lines[0].split() == full[0].split()[: len(lines[0].split())]
    assert lines[1].split() == full[1].split()[: len(lines[1].split())]


def test_without_a_terminal_rows_say_how_long_the_rest_takes(monkeypatch):
    """A run that goes on at step 100 of 400, a step a minute: after step 110, 290 steps are left, 4.8 hours."""
    now = iter([0.0, 600.0])
    monkeypatch.setattr("scenerl.training.logs.monotonic", lambda: next(now))
    stream = io.StringIO()
    console = ConsoleTable(Console(file=stream, width=80))
    state, control = TrainerState(max_steps=400, global_step=100), TrainerControl()
    console.on_train_begin(None, state, control)
    state.global_step = 110
    console.on_log(None, state, control, logs={"loss": 1.0})
    console.on_train_end(None, state, control)
    assert [line.split() for line in stream.getvalue().splitlines() if line.strip()] == [
        ["step", "left", "loss"],
        ["110/400", "4.8", "h", "1"],
    ]


def test_the_console_on_a_terminal_does_not_fail():
    assert any("1.235" in line for line in table(100, LOGS, force_terminal=True))


@pytest.mark.skipif(not PHOTOS.is_file(), reason=f"there are no real photos at {PHOTOS}")
def test_a_few_steps_on_real_photos(base, tmp_path):
    """All 27, with images as large as the small model takes in a moment; JSON answers, as a real model is asked."""
    photos = examples_of(PHOTOS)
    assert len(photos) == 27
    checkpoint = load_checkpoint(base)
    processor = checkpoint.processor
    processor.image_processor.size["longest_edge"] = 112 * 112
    out = tmp_path / "sft"
    fields = {**QUICK, "per_device_train_batch_size": 9, "max_steps": 3}
    args = SFTConfig(output_dir=str(out), max_length=None, **fields)
    trainer = fit(sft.build_trainer(checkpoint, checkpoint.conversation(STYLE), photos, args))
    assert trainer.state.global_step == 3
    assert [row["step"] for row in read_rows(out / "log.jsonl")] == [1, 2, 3, 3]
    rl = GRPOConfig(output_dir=str(tmp_path / "rl"), **{**QUICK_GRPO, "max_steps": 1})
    checkpoint = load_checkpoint(out)
    trainer = fit(grpo.build_trainer(checkpoint, checkpoint.conversation(STYLE), photos, rl, ["format", "triplet_f1"]))
    assert trainer.state.global_step == 1


def test_options_of_the_commands_match_trl():
    assert set(CONFIGS) == set(TRAINING)
    assert all(CONFIGS[command].__name__ == options_of(command).trl_config for command in TRAINING)


@pytest.mark.parametrize(("command", "model"), [("sft", "base"), ("sft", "tiny"), ("grpo", "base")])
def test_an_image_of_extreme_shape_ends_the_command_or_is_skipped(
    command, model, base, tmp_path, capsys, caplog, monkeypatch
):
    rows = write_data(tmp_path / "data", 2)
    Image.new("RGB", (804, 4)).save(rows.parent / "images" / "long.png")  # 201 times as wide as high
    objects = [{"id": "apple.1", "bbox": [0, 0, 400, 4]}]
    row = {"image_id": "long", "file_name": "long.png", "width": 804, "height": 4, "objects": objects,
           "relationships": []}  # fmt: skip
    write_rows(rows, [row, *read_rows(rows)])
    trainers = []
    monkeypatch.setattr({"sft": sft, "grpo": grpo}[command], "fit", trainers.append)
    fields = {**(QUICK if command == "sft" else QUICK_GRPO), "model": base if model == "base" else "tiny"}
    more = ["--rewards", "format"] if command == "grpo" else []
    argv = [command, "--data", str(rows), *more, *words(fields)]
    assert cli.main([*argv, "--out", str(tmp_path / "a")]) == 2
    assert "'long': 804 x 4 is no size for the model" in capsys.readouterr().err
    assert cli.main([*argv, "--out", str(tmp_path / "b"), "--skip_bad"]) == 0
    assert "row skipped: image 'long': 804 x 4 is no size" in caplog.text
    assert len(trainers[0].train_dataset) == 2


def test_a_data_set_of_images_of_extreme_shape_alone(checkpoint, conversation):
    examples = [Example(str(n), 804, 4, SceneGraph()) for n in range(2)]
    options = SimpleNamespace(data="rows.jsonl", skip_bad=True)
    with pytest.raises(UserError, match="the model takes none of the 2 images"):
        setup.usable_shapes(examples, conversation, options)
    fine = [Example("0", 80, 40, SceneGraph())]
    assert setup.usable_shapes(fine, conversation, options) is fine
