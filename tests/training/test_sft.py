"""Supervised fine-tuning: what carries loss, and what a run leaves behind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from trl import SFTConfig

from scenerl import cli
from scenerl.answers import write_answer
from scenerl.config import dump_yaml
from scenerl.data.images import open_image
from scenerl.errors import UserError
from scenerl.models.output_formats import saved_output_format
from scenerl.training import sft
from training.small_run import QUICK, load_checkpoint, read_rows, words


@pytest.fixture
def trainer(checkpoint, conversation, examples, tmp_path):
    return sft.build_trainer(
        checkpoint, conversation, examples, SFTConfig(output_dir=str(tmp_path), max_length=None, **QUICK)
    )


def collate(trainer, indices) -> dict[str, torch.Tensor]:
    return trainer.data_collator([trainer.train_dataset[index] for index in indices])


def test_the_loss_is_on_the_answer_and_its_end_token(trainer, checkpoint, conversation, examples):
    batch = collate(trainer, [0, 1, 2])  # images of two sizes, so that rows are padded
    tokenizer = checkpoint.processor.tokenizer
    for example, ids, labels in zip(examples, batch["input_ids"], batch["labels"], strict=False):
        taught = labels[labels != -100]
        answer = write_answer(example.graph, conversation.output_format, example.image_wh)
        assert tokenizer.decode(taught) == f"{answer}<|im_end|>\n"
        # The labels are the tokens themselves, from the first of the answer on without a gap.
        start = int((labels != -100).nonzero()[0])
        assert torch.equal(ids[start : start + len(taught)], taught)
        assert tokenizer.decode(ids[:start]).endswith("<|im_start|>assistant\n")
    image_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    is_image = batch["input_ids"] == image_id
    # 56 x 56 pixels are 2 x 2 image tokens of 28 x 28 pixels, 84 x 56 are 3 x 2.
    assert is_image.sum(dim=1).tolist() == [4, 4, 6]
    assert (batch["labels"][is_image] == -100).all()
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()


def test_the_loss_is_the_mean_over_answer_tokens(trainer, base):
    batch = collate(trainer, [0, 2])
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, dict(batch))
        model = load_checkpoint(base).model.eval()
        logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits
    logps = logits[:, :-1].log_softmax(-1)  # position t says what stands at t + 1
    targets = batch["labels"][:, 1:]
    taught = targets != -100
    picked = logps.gather(-1, targets.clamp(min=0)[..., None])[..., 0][taught]
    assert loss.item() == pytest.approx(-picked.mean().item(), abs=1e-5)


def test_targets_have_the_order_that_is_asked_for(checkpoint, conversation, examples, tmp_path):
    def first_labels(**fields) -> list[str]:
        args = SFTConfig(output_dir=str(tmp_path), max_length=None, **QUICK)
        dataset = sft.build_trainer(checkpoint, conversation, examples, args, **fields).train_dataset
        return [row["completion"][0]["content"][0]["text"].split()[0] for row in (dataset[0], dataset[1])]

    # the apple is on the left; it has 20 x 30 pixels, the book 20 x 30 in the first image and 20 x 31 in the second
    assert first_labels() == first_labels(box_order="left_to_right") == ["apple", "apple"]
    assert first_labels(box_order="size") == ["apple", "book"]
    provided = replace(conversation, output_format=replace(conversation.output_format, provided="boxes"))
    with pytest.raises(UserError, match="box_order size: the prompt provides the objects"):
        sft.build_trainer(
            checkpoint, provided, examples, SFTConfig(output_dir=str(tmp_path), **QUICK), box_order="size"
        )


def test_training_asks_as_prediction_does(trainer, checkpoint, conversation, examples):
    """The tokens before the answer are those that the engine sends, image tokens included."""
    example = examples[2]
    batch = collate(trainer, [2])
    start = int((batch["labels"][0] != -100).nonzero()[0])
    asked = checkpoint.processor.apply_chat_template(
        conversation.prompt(example, open_image(example)), add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt",
    )  # fmt: skip
    assert torch.equal(batch["input_ids"][0, :start], asked["input_ids"][0])
    assert torch.equal(batch["pixel_values"], asked["pixel_values"])


def captured_args(monkeypatch, argv) -> SFTConfig:
    """TRL's configuration as the command would train with it."""
    seen = []
    monkeypatch.setattr(
        sft, "build_trainer", lambda checkpoint, conversation, examples, args, **settings: seen.append(args)
    )
    monkeypatch.setattr(sft, "fit", lambda trainer: None)
    assert cli.main(["sft", "--traceback", *argv]) == 0
    return seen[0]


def test_nothing_is_cut_off_unless_asked_for(monkeypatch, base, rows, tmp_path):
    command = ["--model", str(base), "--data", str(rows)]
    assert captured_args(monkeypatch, [*command, "--out", str(tmp_path / "a")]).max_length is None
    assert captured_args(monkeypatch, [*command, "--out", str(tmp_path / "b"), "--max_length", "99"]).max_length == 99


def test_a_recipe_becomes_a_run_with_all_its_files(base, rows, tmp_path, capsys):
    out, recipe = tmp_path / "run", tmp_path / "recipe.yaml"
    fields = {**QUICK, "save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-3, "report_to": "tensorboard"}
    recipe.write_text(dump_yaml({"model": str(base), "data": str(rows), "max_steps": 9, **fields}))
    assert cli.main(["sft", "--config", str(recipe), "--out", str(out), "--max_steps", "2"]) == 0
    log = read_rows(out / "log.jsonl")
    assert [row["step"] for row in log] == [1, 2, 2]
    assert {"loss", "grad_norm", "learning_rate", "entropy", "mean_token_accuracy"} <= log[0].keys()
    assert "train_runtime" in log[-1]
    config = (out / "config.yaml").read_text()
    assert "max_steps: 2" in config and "learning_rate: 0.001" in config and "muon: false" in config
    for folder in (out, out / "checkpoint-1", out / "checkpoint-2"):
        assert saved_output_format(folder) == saved_output_format(base)
    before, after = (load_checkpoint(folder).model.state_dict() for folder in (base, out))
    assert any(not torch.equal(before[key], after[key]) for key in before)
    final, last = load_file(out / "model.safetensors"), load_file(out / "checkpoint-2" / "model.safetensors")
    assert final.keys() == last.keys() and all(torch.equal(final[key], last[key]) for key in final)
    assert list((out / "runs").rglob("events.out.tfevents.*"))
    # The same names as a released checkpoint's, so that other tools read the folder.
    assert {"model.embed_tokens.weight", "visual.patch_embed.proj.weight"} <= final.keys()
    shown = capsys.readouterr().err
    assert "loss" in shown and "token acc." in shown


def test_muon_trains(base, rows, tmp_path):
    out = tmp_path / "run"
    argv = ["sft", "--traceback", "--model", str(base), "--data", str(rows), "--out", str(out), "--muon"]
    assert cli.main([*argv, *words({**QUICK, "max_steps": 6, "learning_rate": 2e-3})]) == 0
    steps = [row for row in read_rows(out / "log.jsonl") if "loss" in row]
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.5
    assert steps[0]["learning_rate"] == 2e-3  # the one that was given, not Muon's
