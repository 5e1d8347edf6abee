"""A checkpoint for others: LoRA merged, whole or not there, with a card that says what the run's files say."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

pytest.importorskip("huggingface_hub")

from scenerl import cli, export
from scenerl.answers import OutputFormat
from scenerl.card import metrics_of, model_card, origin_of
from scenerl.models.output_formats import saved_output_format

needs_training = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="the extra train is not installed")

CONFIG = """# Written by scenerl 0.1.0
model: Qwen/Qwen2-VL-2B-Instruct
data: /home/somebody/psg/train.jsonl
out: /home/somebody/runs/grpo
rewards: [format, triplet_f1]
reward_weights: [0.5, 3.0]
one_to_one: false
iou_threshold: 0.6
learning_rate: 6.0e-07
"""
METRICS = {
    "metrics": {
        "Recall": {"value": 0.5, "interval": [0.25, 0.75], "support": 8},
        "zR@50": {"value": None, "interval": None, "support": 0, "note": "nothing unseen"},
        "R@20": {"value": 0.125, "interval": None, "support": 8},
    },
    "options": {"data": "/home/somebody/psg/test.jsonl"},
    "counts": {"images": 8},
}


@pytest.fixture
def run_folder(tmp_path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "log.jsonl").write_text('{"step": 1, "epoch": 0.5}\n{"step": 40, "epoch": 2.0}\n{"step": 50, "epo')
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    return folder


def parts(card: str) -> tuple[dict, dict[str, str]]:
    """The hub's header, and the text under each heading."""
    _, head, body = card.split("---\n", 2)
    sections = re.split(r"^#{1,3} (.+)$", body, flags=re.MULTILINE)
    return yaml.safe_load(head), dict(zip(sections[1::2], sections[2::2], strict=True))


def test_the_card_states_data_recipe_and_metrics(run_folder):
    origin = origin_of(run_folder)
    assert (origin.command, origin.steps, origin.epochs) == ("grpo", 40, 2.0)
    output_format = OutputFormat(format="compact", step=20, objects=("dog", "cat"), predicates=("near",))
    card = model_card(
        "me/psg",
        "qwen2_vl",
        output_format,
        "Qwen/Qwen2-VL-2B-Instruct",
        origin,
        metrics_of([run_folder / "metrics.json"]),
    )
    head, sections = parts(card)
    assert head == {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["scenerl", "scene-graph-generation", "grpo"],
        "base_model": "Qwen/Qwen2-VL-2B-Instruct",
        "model-index": head["model-index"],
    }
    (entry,) = head["model-index"]
    assert entry["name"] == "me/psg"
    # What the hub lists: task, data, metric and value of what has a value.
    assert [
        (result["task"]["type"], result["dataset"]["name"], metric["type"], metric["name"], metric["value"])
        for result in entry["results"]
        for metric in result["metrics"]
    ] == [
        ("image-text-to-text", "test.jsonl", "Recall", "Recall", 0.5),
        ("image-text-to-text", "test.jsonl", "R@20", "R@20", 0.125),
    ]
    told = sections["Data and recipe"]
    assert "Trained by GRPO on `train.jsonl`, 40 steps, 2 epochs." in told
    recipe = yaml.safe_load(told.split("```yaml\n")[1].split("```")[0])
    assert recipe == {
        "model": "Qwen/Qwen2-VL-2B-Instruct", "data": "train.jsonl", "rewards": ["format", "triplet_f1"],
        "reward_weights": [0.5, 3.0], "iou_threshold": 0.6, "learning_rate": 6e-07,
    }  # fmt: skip
    assert "On `test.jsonl`, 8 images" in sections["run"]
    assert "| Recall | 0.500 | 0.250 to 0.750 |" in sections["run"] and "zR" not in sections["run"]
    assert "closed vocabulary of 2 objects and 1 predicates" in sections["Prompt and output format"]
    assert "somebody" not in card


def test_a_card_says_what_is_not_known(tmp_path):
    head, sections = parts(model_card("mine", "internvl", OutputFormat(), str(tmp_path / "base")))
    assert "base_model" not in head and str(tmp_path) not in str(sections)
    assert "Not known" in sections["Data and recipe"] and "None were given" in sections["Metrics"]


def test_a_checkpoint_before_the_first_row_of_the_log_has_a_card(run_folder):
    (run_folder / "log.jsonl").unlink()
    _, sections = parts(model_card("mine", "qwen2_vl", OutputFormat(), None, origin_of(run_folder)))
    assert "Trained by GRPO on `train.jsonl`. Options" in sections["Data and recipe"]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"a": 1}', '{"metrics": {"AP": 1}}', '{"metrics": {"AP": {"value": "high"}}}']
)
def test_a_file_that_holds_no_metrics_is_named(tmp_path, content):
    path = tmp_path / "metrics.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        metrics_of([path])


def test_metrics_that_are_not_available_are_not_in_the_card(tmp_path):
    """Neither a value that is NaN nor half an interval."""
    path = tmp_path / "metrics.json"
    path.write_text('{"metrics": {"AP50": {"value": NaN}, "AP": {"value": 0.25, "interval": [0.1, null]}}}')
    card = model_card("mine", "qwen2_vl", OutputFormat(), metrics=metrics_of([path]))
    assert "| AP | 0.250 |  |" in card and "AP50" not in card


if importlib.util.find_spec("trl") is not None:
    import torch
    from trl import SFTConfig

    from scenerl.models.loading import load
    from training.small_run import QUICK, STYLE, examples_of, save_base, words, write_data

    @pytest.fixture(scope="module")
    def trained(tmp_path_factory):
        """(adapter folder, base folder, data) of one step of SFT with LoRA."""
        folder = tmp_path_factory.mktemp("export")
        rows = write_data(folder)
        base = save_base(folder / "base", examples_of(rows))
        command = ["sft", "--model", str(base), "--data", str(rows), "--out", str(folder / "lora"), "--use_peft"]
        fields = {**QUICK, "max_steps": 1, "learning_rate": 0.1, "lora_dropout": 0}
        assert cli.main([*command, "--format", "compact", "--grid", "20", *words(fields)]) == 0
        return folder / "lora", base, rows


class Hub:
    """What of huggingface_hub's HfApi is used; notes what it is asked."""

    calls: ClassVar[list[tuple]] = []
    problem: Exception | None = None

    def create_repo(self, name, private, exist_ok):
        self.calls.append(("create", name, private, exist_ok))
        return f"https://hub.example/{name}"

    def upload_folder(self, repo_id, folder_path, commit_message):
        if self.problem:
            raise self.problem
        self.calls.append(("upload", repo_id, sorted(path.name for path in Path(folder_path).iterdir())))


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(Hub, "calls", [])
    monkeypatch.setattr(Hub, "problem", None)
    return Hub


@needs_training
def test_an_adapter_becomes_a_whole_checkpoint_on_the_hub(trained, tmp_path, hub):
    adapter, base, _ = trained
    out = tmp_path / "merged"
    argv = ["export", str(adapter), "--out", str(out), "--push_to_hub", "me/small", "--private"]
    assert cli.main(argv) == 0
    files = sorted(path.name for path in out.iterdir())
    assert hub.calls == [("create", "me/small", True, True), ("upload", "me/small", files)]
    assert {"model.safetensors", "config.json", "scenerl.json", "README.md", "preprocessor_config.json"} <= set(files)
    assert not any("adapter" in name or name.endswith(".bin") for name in files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged"]
    merged, straight, before = (load(folder).model for folder in (out, adapter, base))
    assert all(torch.equal(value, straight.get_parameter(name)) for name, value in merged.named_parameters())
    assert not all(torch.equal(value, before.get_parameter(name)) for name, value in merged.named_parameters())
    assert saved_output_format(out) == STYLE
    head, sections = parts((out / "README.md").read_text())
    assert (
        head["tags"] == ["scenerl", "scene-graph-generation", "sft", "lora"] and head["library_name"] == "transformers"
    )
    assert "use_peft: true" in sections["Data and recipe"] and "1 steps" in sections["Data and recipe"]
    assert "# me/small" in (out / "README.md").read_text()


@needs_training
def test_an_adapter_may_stay_one(trained, tmp_path):
    adapter, _, _ = trained
    out = tmp_path / "adapter"
    assert cli.main(["export", str(adapter), "--out", str(out), "--keep_adapter"]) == 0
    names = {path.name for path in out.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md", "scenerl.json"} <= names
    assert not names & {"training_args.bin", "log.jsonl", "config.yaml", "model.safetensors"}
    one, two = load(adapter).model, load(out).model
    assert all(torch.equal(value, one.get_parameter(name)) for name, value in two.named_parameters())
    assert parts((out / "README.md").read_text())[0]["library_name"] == "peft"


@needs_training
def test_what_is_there_is_never_written_over(trained, tmp_path, capsys):
    adapter, base, _ = trained
    out = tmp_path / "out"
    out.mkdir()
    for argv, said in [
        ([str(adapter), "--out", str(out)], "is there already"),
        ([str(base), "--out", str(tmp_path / "new"), "--keep_adapter"], "is no folder of an adapter"),
        ([str(base), "--out", str(tmp_path / "new"), "--run", str(tmp_path)], "holds no config.yaml"),
        ([str(tmp_path / "gone"), "--out", str(tmp_path / "new")], "no such folder"),
        ([str(base), "--out", str(tmp_path / "new"), "--metrics", str(tmp_path / "gone.json")], "gone.json"),
    ]:
        assert cli.main(["export", *argv]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and not any(out.iterdir())


@needs_training
def test_a_kill_while_writing_leaves_nothing_of_the_name(trained, tmp_path, monkeypatch):
    _, base, _ = trained
    monkeypatch.setattr(export, "check_folder", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli.main(["export", str(base), "--out", str(tmp_path / "out")]) == cli.INTERRUPTED
    assert not any(tmp_path.iterdir())


@needs_training
def test_an_unfinished_checkpoint_is_never_uploaded(trained, tmp_path, hub, monkeypatch):
    _, base, _ = trained
    monkeypatch.setattr(export, "check_folder", lambda *args: (_ for _ in ()).throw(export.UserError("half")))
    assert cli.main(["export", str(base), "--out", str(tmp_path / "out"), "--push_to_hub", "me/small"]) == 2
    assert hub.calls == [] and not any(tmp_path.iterdir())


@needs_training
def test_a_space_can_be_written_from_a_source_tree(trained, tmp_path, monkeypatch, capsys):
    """Where the package is not installed, and has no metadata."""

    def requires(name):
        raise metadata.PackageNotFoundError(name)

    _, base, _ = trained
    words = ["export", str(base), "--space", "--out"]
    assert cli.main([*words, str(tmp_path / "installed")]) == 0
    monkeypatch.setattr(metadata, "requires", requires)
    assert cli.main([*words, str(tmp_path / "source")]) == 0
    installed, source = ((tmp_path / name / "requirements.txt").read_text() for name in ("installed", "source"))
    assert source == installed and {"torch", "gradio"} <= set(re.findall("^[a-z]+", source, re.MULTILINE))
    monkeypatch.setattr(export, "PYPROJECT", tmp_path / "pyproject.toml")
    assert cli.main([*words, str(tmp_path / "neither")]) == 2
    assert f"it is not installed, and {tmp_path / 'pyproject.toml'} is not there" in capsys.readouterr().err
    assert not (tmp_path / "neither").exists()


@needs_training
@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="the extra app is not installed")
def test_a_space_serves_the_checkpoint(trained, tmp_path):
    """Started as a Space is: in its folder, with its own copy of the package."""
    adapter, _, _ = trained
    out = tmp_path / "space"
    assert cli.main(["export", str(adapter), "--out", str(out), "--space"]) == 0
    head = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
    assert (head["sdk"], head["app_file"]) == ("gradio", "app.py")
    assert "torch" in (out / "requirements.txt").read_text()
    assert {"model.safetensors", "scenerl.json"} <= {path.name for path in (out / "model").iterdir()}
    environment = {**os.environ, "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": "0", "PYTHONPATH": ""}
    server = subprocess.Popen(
        [sys.executable, out / "app.py"], stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    )
    try:
        url = server.stdout.readline().split()[1]
        with urllib.request.urlopen(url, timeout=60) as response:
            assert "lora" in response.read().decode()
    finally:
        server.terminate()
        server.communicate(timeout=30)


@needs_training
def test_an_upload_that_fails_leaves_the_folder_and_says_how_to_go_on(trained, tmp_path, hub, capsys):
    _, base, _ = trained
    hub.problem = OSError("the network is down")
    out = tmp_path / "out"
    assert cli.main(["export", str(base), "--out", str(out), "--push_to_hub", "me/small"]) == 2
    error = capsys.readouterr().err
    assert "me/small: the network is down" in error and f"hf upload me/small {out}" in error
    load(out)


@needs_training
def test_trainers_write_the_same_card(trained):
    from scenerl.training import sft
    from training.small_run import STYLE, load_checkpoint

    adapter, base, rows = trained
    checkpoint = load_checkpoint(base)
    trainer = sft.build_trainer(
        checkpoint, checkpoint.conversation(STYLE), examples_of(rows), SFTConfig(output_dir=str(adapter), **QUICK)
    )
    trainer.create_model_card("whatever")
    head, sections = parts((adapter / "README.md").read_text())
    assert head["tags"][0] == "scenerl" and "Trained by supervised fine-tuning" in sections["Data and recipe"]
