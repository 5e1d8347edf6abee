"""Questions of the page: checked, and turned into a style."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scenerl.answers import OutputFormat
from scenerl.app.asks import Ask, Limits, output_format_of, read_ask

LIMITS = Limits(100, 8)


def read(**value):
    return read_ask({"image": "i", "model": "m", **value}, ["m"], LIMITS)


def test_a_whole_question():
    ask = read(task="det", labels=[" red  ball", "dog", "dog", ""], num_samples=8, temperature=1, max_new_tokens=9)
    expected = {"task": "det", "labels": ("red ball", "dog"), "num_samples": 8, "temperature": 1.0, "max_new_tokens": 9}
    assert ask == Ask("i", "m", **expected)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "JSON object"),
        (None, "JSON object"),
        ({"model": "m"}, "image is missing"),
        ({"image": "i"}, "model is missing"),
        ({"image": "i", "model": "../../etc"}, "allowed: m"),
        ({"image": "i", "model": ["m"]}, "model must be a text"),
        ({"image": "i", "model": "m", "task": "video"}, "allowed: sgdet, det"),
        ({"image": "i", "model": "m", "task": "det"}, "needs the labels"),
        ({"image": "i", "model": "m", "task": "det", "labels": [" "]}, "needs the labels"),
        ({"image": "i", "model": "m", "labels": "dog"}, "labels must be a list"),
        ({"image": "i", "model": "m", "labels": ["x" * 101]}, "at most 100"),
        ({"image": "i", "model": "m", "labels": ["x"] * 1001}, "at most 1000"),
        ({"image": "i", "model": "m", "vocabulary": "/etc/passwd"}, "vocabulary"),
        ({"image": "i", "model": "m", "num_samples": 9}, "num_samples must be 1 to 8"),
        ({"image": "i", "model": "m", "num_samples": True}, "whole number"),
        ({"image": "i", "model": "m", "max_new_tokens": 101}, "1 to 100"),
        ({"image": "i", "model": "m", "temperature": float("nan")}, "temperature must be"),
        ({"image": "i", "model": "m", "temperature": 0}, "temperature must be"),
        ({"image": "i", "model": "m", "temperature": 10**400}, "temperature must be"),
        ({"image": "i", "model": "m", "seed": 2**40}, "seed must be"),
        ({"image": "i", "model": "m", "constrain": "yes"}, "true or false"),
        ({"image": "i", "model": "m", "checkpoint": "m"}, "unknown key 'checkpoint'"),
    ],
)
def test_wrong_questions_are_named(value, says):
    with pytest.raises(ValueError, match=says):
        read_ask(value, ["m"], LIMITS)


TRAINED = OutputFormat("compact", "think", ("dog",), ("on",), step=20)


def test_as_it_was_trained():
    assert output_format_of(read(), TRAINED, "norm1000") == TRAINED
    assert output_format_of(read(), None, "resized") == OutputFormat(box_format="resized")
    assert output_format_of(read(), replace(TRAINED, provided="boxes"), "norm1000") == TRAINED


def test_vocabularies():
    output_format = output_format_of(read(vocabulary="open"), TRAINED, "norm1000")
    assert (output_format.format, output_format.objects, output_format.predicates) == ("compact", None, None)
    output_format = output_format_of(read(vocabulary="own", objects=["cat", "hat"]), TRAINED, "norm1000")
    assert (output_format.objects, output_format.predicates) == (("cat", "hat"), None)
    output_format = output_format_of(read(vocabulary="vg150"), TRAINED, "norm1000")
    assert len(output_format.objects) == 150 and len(output_format.predicates) == 50


def test_the_task_decides_on_the_format():
    assert output_format_of(read(task="det", labels=["dog"]), TRAINED, "norm1000").format == "detections"
    detector = OutputFormat("detections")
    assert output_format_of(read(task="det", labels=["dog"]), detector, "norm1000").format == "detections"
    assert output_format_of(read(), detector, "norm1000").format == "json"
