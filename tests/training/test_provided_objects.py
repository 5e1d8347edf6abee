"""Tasks whose prompt gives objects, from SFT over GRPO and prediction to metrics: what was trained is what is asked."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from trl import GRPOConfig

from scenerl import cli
from scenerl.answers.dialogue import Conversation
from scenerl.models.output_formats import saved_output_format
from scenerl.training import grpo
from scenerl.training.checks import check_prompts
from training.small_run import QUICK, QUICK_GRPO, read_rows, words, write_rows


def test_from_training_to_metrics(rows, base, tmp_path, monkeypatch):
    """A detector finds the first apple only, to the pixel; every prompt is looked at on its way to the engine."""
    box = read_rows(rows)[0]["objects"][0]["bbox"]
    found = {"category_id": "apple", "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]], "score": 0.9}
    detected = tmp_path / "boxes.json"
    detected.write_text(json.dumps([{"image_id": "image-0", **found}]))

    common = ["--data", str(rows), "--task", "predcls"]
    sft = ["sft", "--model", str(base), "--out", str(tmp_path / "sft"), *common, *words({**QUICK, "max_steps": 1})]
    assert cli.main(sft) == 0
    assert saved_output_format(tmp_path / "sft").provided == "objects"

    texts = []
    before = Conversation.prompt

    def noted(self, example, image):
        messages = before(self, example, image)
        texts.append((example.image_id, messages[0]["content"][1]["text"]))
        return messages

    monkeypatch.setattr(Conversation, "prompt", noted)
    asked = ["--model", str(tmp_path / "sft"), "--data", str(rows), "--max_new_tokens", "2"]
    assert cli.main(["predict", *asked, "--out", str(tmp_path / "given.jsonl")]) == 0
    assert all("\n2 book " in text for _, text in texts) and len({text for _, text in texts}) == 6
    texts.clear()
    assert cli.main(["predict", *asked, "--out", str(tmp_path / "found.jsonl"), "--boxes", str(detected)]) == 0
    assert {image_id for image_id, text in texts if "\n1 apple " in text} == {"image-0"}
    assert not [text for _, text in texts if "\n2 " in text]
    assert cli.main(["predict", *asked, "--out", str(tmp_path / "none.jsonl"), "--task", "sgdet"]) == 0
    # a file of predictions belongs to its task
    assert cli.main(["predict", *asked, "--out", str(tmp_path / "none.jsonl")]) == 2


def test_answers_with_provided_objects_are_evaluated_by_them(rows, tmp_path):
    """Right relations between objects with wrong boxes and labels: all of PredCls, some of SGCls, none of SGDET."""
    answers = []
    for row in read_rows(rows):
        wrong = [{"id": "apple.1", "bbox": [0, 0, 9, 9]}, {"id": "cup.2", "bbox": [40, 40, 50, 50]}]
        relation = {**row["relationships"][0], "object": "cup.2"}
        answer = json.dumps({"objects": wrong, "relationships": [relation]})
        answers.append({"image_id": row["image_id"], "answer": answer})
    path = write_rows(tmp_path / "answers.jsonl", answers)
    values = {}
    for task in ("sgdet", "sgcls", "predcls"):
        out = tmp_path / f"{task}.json"
        argv = ["eval", str(path), "--data", str(rows), "--frame", "pixels", "--task", task, "--out", str(out)]
        assert cli.main(argv) == 0
        metrics = json.loads(out.read_text())["metrics"]
        values[task] = metrics["R@20"]["value"]
    assert values == {"sgdet": 0, "sgcls": 0, "predcls": 1}


def test_rollouts_are_prompted_with_provided_objects(checkpoint, conversation, examples, tmp_path, monkeypatch):
    provided = replace(conversation, output_format=replace(conversation.output_format, provided="boxes"))
    trainer = grpo.build_trainer(
        checkpoint,
        provided,
        examples,
        GRPOConfig(output_dir=str(tmp_path), **{**QUICK_GRPO, "max_steps": 1}),
        ["format"],
    )
    prompts = [
        row["prompt"][0]["content"][1]["text"] for row in (trainer.train_dataset[n] for n in range(len(examples)))
    ]
    assert prompts == [provided.prompt(example, None)[0]["content"][1]["text"] for example in examples]
    assert len(set(prompts)) == len(examples) and all("\n2 " in prompt for prompt in prompts)
    longest = max(len(prompt) for prompt in prompts)
    monkeypatch.setattr(trainer.model.config.get_text_config(), "max_position_embeddings", longest // 8)
    with pytest.raises(ValueError, match="tokens of text"):
        check_prompts(checkpoint, provided, examples, 8)
