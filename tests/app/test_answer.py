"""Requests to a real, untrained checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from app.image_files import png
from scenerl.answers import OutputFormat
from scenerl.app.answer import Request, answer, read_image, read_labels
from scenerl.app.checkpoints import Checkpoints, named_models
from scenerl.errors import DataError, UserError
from scenerl.inference.engine import Reply
from scenerl.inference.hf import HFEngine
from scenerl.types import FAILURES


@pytest.fixture(scope="module")
def checkpoints(base):
    return Checkpoints({"small": str(base)})


def run(checkpoints, content=None, **request) -> dict:
    image = read_image(content or png(60, 40), 10**6)
    request = Request(**{"max_new_tokens": 6, **request})
    value = answer(request, image, "photo.png", checkpoints.engine("small"), checkpoints.output_formats["small"])
    return json.loads(json.dumps(value, allow_nan=False))


def test_one_answer(checkpoints):
    value = run(checkpoints)
    assert value["result"] == value["answers"][0] and len(value["answers"]) == 1
    row = value["result"]
    assert (row["image_id"], row["width"], row["height"]) == ("photo.png", 60, 40)
    assert row["status"] == "ok" or row["status"] in FAILURES
    assert len(row["logprobs"]) == row["num_tokens"] <= 6
    assert value["output_format"]["format"] == "compact" and "<|" not in value["prompt"]
    assert run(checkpoints) == value


def test_several_answers_are_merged(checkpoints):
    value = run(checkpoints, num_samples=3)
    assert [row["sample"] for row in value["answers"]] == [0, 1, 2]
    assert (value["result"]["answers"], value["result"]["sample"]) == (3, 0)
    assert len({row["answer"] for row in run(checkpoints, num_samples=3, seed=1)["answers"]} | {
        row["answer"] for row in value["answers"]
    }) > 1  # fmt: skip


def says(text: str):
    """In place of ``HFEngine._reply``: the model wrote ``text``."""
    return lambda engine, ids, logprobs: Reply(text, len(ids), "stop", tuple(logprobs or ()), spans=None)


def test_detection_of_labels(checkpoints, monkeypatch):
    value = run(checkpoints, task="det", labels=("apple", "red <b>ball</b>"))
    assert value["output_format"]["format"] == "detections" and "apple, red <b>ball</b>" in value["prompt"]
    text = json.dumps([{"bbox_2d": [0, 0, 500, 1000], "label": "apple"}, {"bbox_2d": [0, 0, 9, 9], "label": "pear"}])
    monkeypatch.setattr(HFEngine, "_reply", says(text))
    (row,) = run(checkpoints, task="det", labels=("apple",))["answers"]
    assert [(item["id"], item["bbox"]) for item in row["graph"]["objects"]] == [("apple.1", [0, 0, 30, 40])]
    assert [issue["kind"] for issue in row["issues"]] == ["unknown_label"]


def test_reasoning_before_the_answer(base, monkeypatch):
    checkpoints = Checkpoints({"small": str(base)})
    checkpoints.output_formats["small"] = replace(checkpoints.output_formats["small"], template="think")
    boxes = '[{"bbox_2d": [0, 0, 500, 1000], "label": "apple"}]'
    for more, inside in (
        ({}, "apple 0 0 500 1000\n\nend"),
        ({"task": "det", "labels": ("apple",)}, boxes),
    ):
        text = f"<think>A <b>ball</b>?</think><answer>{inside}</answer>"
        with monkeypatch.context() as patch:
            patch.setattr(HFEngine, "_reply", says(text))
            value = run(checkpoints, **more)
        assert value["output_format"]["template"] == "think" and "<think>" in value["prompt"]
        assert (value["result"]["status"], value["result"]["issues"], value["result"]["answer"]) == ("ok", [], text)
        assert [item["bbox"] for item in value["result"]["graph"]["objects"]] == [[0, 0, 30, 40]]
        held = run(checkpoints, constrain=True, max_new_tokens=80, **more)["result"]
        assert held["status"] == "ok" and held["answer"].startswith("<think>")


@pytest.mark.parametrize("task", [{"task": "sgdet"}, {"task": "det", "labels": ("apple", "book")}])
def test_held_to_the_form_an_untrained_model_fails_never(base, task):
    checkpoints = Checkpoints({"small": str(base)})
    checkpoints.output_formats["small"] = None  # as a checkpoint of others, asked for JSON
    value = run(checkpoints, constrain=True, num_samples=4, max_new_tokens=80, **task)
    assert {row["status"] for row in value["answers"]} == {"ok"}
    assert [row["issues"] for row in value["answers"]] == [[]] * 4
    with pytest.raises(ValueError, match="tokens"):
        run(checkpoints, constrain=True, max_new_tokens=1, **task)


def test_an_image_that_the_model_does_not_take(checkpoints):
    with pytest.raises(DataError, match="2 x 900 is no size for the model"):
        run(checkpoints, png(2, 900))
    assert run(checkpoints, png(1, 1))["result"]["width"] == 1


def test_a_label_that_means_an_image_to_the_model(checkpoints):
    with pytest.raises(DataError, match=r"a label holds '<\|image_pad\|>', which means an image"):
        run(checkpoints, task="det", labels=("apple", "a <|image_pad|>"))


def test_names_of_models(base, tmp_path):
    other = tmp_path / "run" / "sft"
    other.parent.mkdir()
    other.symlink_to(base)
    assert named_models([str(base)]) == {base.name: str(base)}
    assert named_models([f"mine={base}", str(other)]) == {"mine": str(base), "sft": str(other)}
    assert named_models([str(tmp_path / "run"), f"b={tmp_path / 'run'}"]) == {"sft": str(other), "b/sft": str(other)}
    lora = tmp_path / "adapters" / "lora"
    (lora / "checkpoint-1").mkdir(parents=True)
    for folder in (lora, lora / "checkpoint-1"):
        (folder / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(base)})
        )
    assert named_models([str(lora)]) == named_models([str(lora.parent)]) == {"lora": str(lora)}
    with pytest.raises(ValueError, match="two are named 'a'"):
        named_models([f"a={base}", f"a={other}"])
    with pytest.raises(ValueError, match="no config.json"):
        named_models([str(tmp_path)])


def test_only_two_models_stay_in_memory(base):
    three = Checkpoints(dict.fromkeys("abc", str(base)))
    first, second = three.engine("a"), three.engine("b")
    assert three.engine("a") is first
    three.engine("c")
    assert three.engine("a") is first and three.engine("b") is not second


def test_what_a_request_changes_of_the_output_format():
    saved = OutputFormat(format="compact", objects=("a",), predicates=("p",), provided="boxes")

    def changed(**request) -> tuple:
        output_format = Request(**request).output_format(saved, "pixels")
        assert (output_format.box_format, output_format.provided) == ("pixels", None)
        return output_format.format, output_format.objects, output_format.predicates

    assert changed() == ("compact", ("a",), ("p",))
    assert changed(vocabulary="open", labels=("x",)) == ("compact", None, None)
    assert changed(vocabulary="own", labels=("x",)) == ("compact", ("x",), None)
    assert changed(vocabulary="coco")[1][0] == "person"
    assert changed(task="det", labels=("x",))[0] == "detections"
    with pytest.raises(UserError, match="Detection needs the labels"):
        Request(task="det")
    with pytest.raises(UserError, match="At most 1000 labels"):
        Request(labels=tuple(map(str, range(1001))))


def test_labels_are_separated_by_commas_or_lines():
    assert read_labels("dog, red  ball\ndog,,") == ("dog", "red ball") and read_labels(" ") == ()
