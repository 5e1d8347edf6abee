"""One question put to a real, untrained checkpoint, and the command that serves the page."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from app.image_files import png
from scenerl.app.answer import answer
from scenerl.app.asks import Ask
from scenerl.app.checkpoints import Checkpoints, named_models
from scenerl.app.pictures import read_picture
from scenerl.cli import main
from scenerl.errors import DataError
from scenerl.inference.hf import HFEngine
from scenerl.types import FAILURES


@pytest.fixture(scope="module")
def checkpoints(base):
    return Checkpoints({"small": str(base)})


def ask(checkpoints, content=None, **question) -> dict:
    picture = read_picture(content or png(60, 40), 10**6)
    question = Ask(**{"image": "id", "model": "small", "name": "photo.png", "max_new_tokens": 6, **question})
    value = answer(question, picture, checkpoints.engine("small"), checkpoints.output_formats["small"])
    return json.loads(json.dumps(value, allow_nan=False))


def test_one_answer(checkpoints):
    value = ask(checkpoints)
    assert value["result"] == value["answers"][0] and len(value["answers"]) == 1
    row = value["result"]
    assert (row["image_id"], row["width"], row["height"]) == ("photo.png", 60, 40)
    assert row["status"] == "ok" or row["status"] in FAILURES
    assert len(row["logprobs"]) == row["num_tokens"] <= 6
    assert value["style"]["format"] == "compact" and "<|" not in value["prompt"]
    assert ask(checkpoints) == value


def test_several_answers_are_merged(checkpoints):
    value = ask(checkpoints, num_samples=3)
    assert [row["sample"] for row in value["answers"]] == [0, 1, 2]
    assert (value["result"]["answers"], value["result"]["sample"]) == (3, 0)
    assert len({row["answer"] for row in ask(checkpoints, num_samples=3, seed=1)["answers"]} | {
        row["answer"] for row in value["answers"]
    }) > 1  # fmt: skip


def test_detection_of_labels(checkpoints, monkeypatch):
    value = ask(checkpoints, task="det", labels=("apple", "red <b>ball</b>"))
    assert value["style"]["format"] == "detections" and "apple, red <b>ball</b>" in value["prompt"]
    text = json.dumps([{"bbox_2d": [0, 0, 500, 1000], "label": "apple"}, {"bbox_2d": [0, 0, 9, 9], "label": "pear"}])
    decode = HFEngine._decode
    monkeypatch.setattr(HFEngine, "_decode", lambda self, ids: text if ids else decode(self, ids))
    (row,) = ask(checkpoints, task="det", labels=("apple",))["answers"]
    assert [(item["id"], item["bbox"]) for item in row["graph"]["objects"]] == [("apple.1", [0, 0, 30, 40])]
    assert [issue["kind"] for issue in row["issues"]] == ["unknown_label"]


def test_a_thought_before_the_answer(base, monkeypatch):
    checkpoints = Checkpoints({"small": str(base)})
    checkpoints.output_formats["small"] = replace(checkpoints.output_formats["small"], template="think")
    boxes = '[{"bbox_2d": [0, 0, 500, 1000], "label": "apple"}]'
    decode = HFEngine._decode
    for more, inside in (
        ({}, "apple 0 0 500 1000\n\nend"),
        ({"task": "det", "labels": ("apple",)}, boxes),
    ):
        text = f"<think>A <b>ball</b>?</think><answer>{inside}</answer>"
        with monkeypatch.context() as patch:
            patch.setattr(HFEngine, "_decode", lambda self, ids, text=text: text if ids else decode(self, ids))
            value = ask(checkpoints, **more)
        assert value["style"]["envelope"] == "think" and "<think>" in value["prompt"]
        assert (value["result"]["status"], value["result"]["issues"], value["result"]["answer"]) == ("ok", [], text)
        assert [item["bbox"] for item in value["result"]["graph"]["objects"]] == [[0, 0, 30, 40]]
        held = ask(checkpoints, constrain=True, max_new_tokens=80, **more)["result"]
        assert held["status"] == "ok" and held["answer"].startswith("<think>")


@pytest.mark.parametrize("task", [{"task": "sgdet"}, {"task": "det", "labels": ("apple", "book")}])
def test_held_to_the_form_an_untrained_model_fails_never(base, task):
    checkpoints = Checkpoints({"small": str(base)})
    checkpoints.output_formats["small"] = None  # as a checkpoint of others, asked for JSON
    value = ask(checkpoints, constrain=True, num_samples=4, max_new_tokens=80, **task)
    assert {row["status"] for row in value["answers"]} == {"ok"}
    assert [row["issues"] for row in value["answers"]] == [[]] * 4
    with pytest.raises(ValueError, match="tokens"):
        ask(checkpoints, constrain=True, max_new_tokens=1, **task)


def test_an_image_that_the_model_does_not_take(checkpoints):
    with pytest.raises(DataError, match="2 x 900 is no size for the model"):
        ask(checkpoints, png(2, 900))
    assert ask(checkpoints, png(1, 1))["result"]["width"] == 1


def test_a_label_that_means_an_image_to_the_model(checkpoints):
    with pytest.raises(DataError, match=r"a label holds '<\|image_pad\|>', which means an image"):
        ask(checkpoints, task="det", labels=("apple", "a <|image_pad|>"))


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


def test_errors_at_the_start(base, capsys):
    for words in (["nothing/here/at/all"], [str(base), "--port", "70000"], [str(base), "--device", "toaster"], []):
        assert main(["app", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_stopped(base, capfd, stop):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    got = []

    def visit() -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/info", timeout=60) as response:
            got.append(json.load(response)["models"])
        os.kill(os.getpid(), stop)

    def visit_later() -> None:
        while not got:
            try:
                visit()
            except urllib.error.URLError:
                time.sleep(0.05)  # it does not listen yet

    visitor = threading.Thread(target=visit_later)
    visitor.start()
    assert main(["app", f"mine={base}", "--port", str(port), "--device", "cpu"]) == 0
    visitor.join()
    assert got == [[{"name": "mine", "task": "sgdet"}]]
    out, err = capfd.readouterr()
    assert out == f"Open http://127.0.0.1:{port}/ in a browser; Ctrl-C stops\n" and err == "stopping\n"
    with pytest.raises(urllib.error.URLError):
        visit()
