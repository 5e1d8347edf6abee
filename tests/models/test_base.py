"""The base model that is shipped: small, whole, and named by ``--model base`` in every command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("transformers")

import torch
from safetensors import safe_open

from scenerl import cli
from scenerl.answers import OutputFormat
from scenerl.models import folders
from scenerl.models.loading import family_of, load, weights_digest
from scenerl.models.output_formats import saved_output_format


def test_it_is_small_and_has_its_card():
    assert sum(path.stat().st_size for path in folders.BASE_FOLDER.iterdir()) <= 5_000_000
    with safe_open(folders.BASE_FOLDER / "model.safetensors", framework="pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}
    assert "scenerl demo --rebuild_base" in (folders.BASE_FOLDER / "README.md").read_text(encoding="utf-8")


def test_it_is_loaded_by_name_as_float32():
    assert family_of("base").model_type == "qwen2_vl"
    assert saved_output_format("base") == OutputFormat("json", step=100)
    assert load("base").model.dtype == torch.float32
    assert weights_digest("base") == weights_digest(folders.BASE_FOLDER)


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folders.BASE_FOLDER, "base")
    assert folders.located("base") == "base"
    assert load("base").name == "base"


def test_some_answers_are_readable_and_few_relations_right(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = ["--data", "synthetic:count=48,seed=7", "--split", "complete"]
    command = [
        "predict",
        "--model",
        "base",
        *source,
        "--out",
        "p.jsonl",
        "--batch_size",
        "48",
        "--max_new_tokens",
        "80",
    ]
    assert cli.main(command) == 0
    assert cli.main(["eval", "p.jsonl", *source, "--out", "m.json"]) == 0
    metrics = json.loads(Path("m.json").read_text())["metrics"]
    assert 0.3 <= metrics["failure_rate"]["value"] <= 0.9
    assert metrics["Recall"]["value"] <= 0.08  # under 5 % of many; these are few


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_missing_or_damaged_one_is_told_in_one_line(damage, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "scenerl" / "base"
    shutil.copytree(folders.BASE_FOLDER, folder)
    monkeypatch.setattr(folders, "BASE_FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    if damage == "missing":
        shutil.rmtree(folder)
    else:
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    assert cli.main(["predict", "--model", "base", "--data", "synthetic:count=1", "--out", "p.jsonl"]) == 2
    error = capsys.readouterr().err.strip()
    assert str(folder) in error and len(error.splitlines()) == 1
    assert {"missing": "install SceneRL again", "cut": "damaged or cut off"}[damage] in error
