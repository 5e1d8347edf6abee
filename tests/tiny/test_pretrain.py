"""Pretraining of the base model at a small size: it resumes, and writes bfloat16 to be read as float32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from scenerl import cli
from scenerl.answers.dialogue import FILE_NAME
from scenerl.models.loading import load
from scenerl.tiny import mixture, pretrain
from training.small_run import SHAPE


class Killed(BaseException):
    """As sudden as a kill."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(pretrain, "TinyShape", lambda **sizes: replace(SHAPE, **sizes))
    for name, value in (("_BATCH_SIZE", 2), ("_WARMUP_BATCH_SIZE", 2), ("_SAVE_EVERY", 2), ("_TOKENIZER_ROWS", 30)):
        monkeypatch.setattr(pretrain, name, value)


def test_killed_it_goes_on_and_ends_the_same(tmp_path):
    seen = []

    def kill(stage, step, metrics):
        seen.append((stage, step))
        if (stage, step) == ("language", 3):
            raise Killed

    pretrain.pretrain(tmp_path / "whole", steps=4, warmup_steps=1)
    with pytest.raises(Killed):
        pretrain.pretrain(tmp_path / "killed", steps=4, warmup_steps=1, report=kill)
    assert not (tmp_path / "killed" / FILE_NAME).exists()
    seen.clear()
    pretrain.pretrain(tmp_path / "killed", steps=4, warmup_steps=1, report=lambda *step: seen.append(step[:2]))
    assert seen == [("language", 3), ("language", 4)]
    whole, killed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == killed.keys() and all(torch.equal(whole[name], killed[name]) for name in whole)
    assert {value.dtype for value in whole.values()} == {torch.bfloat16}
    assert not list((tmp_path / "whole").glob("*.pt*"))
    assert load(tmp_path / "whole").model.dtype == torch.float32


def test_the_command_of_its_card_makes_one(tmp_path, capsys):
    assert cli.main(["demo", "--smoke", "--rebuild_base", str(tmp_path / "base")]) == 0
    assert "--model" in capsys.readouterr().out
    assert load(tmp_path / "base").model.dtype == torch.float32


def test_the_loss_counts_words_and_no_padding():
    model, processor = pretrain._build(0)
    short, long = sorted((mixture.row(f"{n}") for n in range(8)), key=lambda row: sum(map(len, sum(row.turns, ()))))[
        ::7
    ]
    losses = [pretrain.loss_and_accuracy(model, processor, [row])[0].item() for row in (short, long)]
    counts = [len(processor.tokenizer(pretrain._chat(processor, row))["input_ids"]) - 2 for row in (short, long)]
    both = pretrain.loss_and_accuracy(model, processor, [short, long])[0].item()
    expected = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    assert both == pytest.approx(expected, rel=1e-4)


def test_rates_rise_stay_and_fall():
    rates = [pretrain._rate(step, 1000) for step in (0, 24, 49, 300, 600, 800, 1000)]
    assert rates == pytest.approx([0.02, 0.5, 1, 1, 1, 0.5, 0])
