"""Styles, prompts, and what the writer refuses."""

from __future__ import annotations

import re

import pytest

from scenerl import __version__
from scenerl.answers import FORMATS, TEMPLATES, TRAINED, OutputFormat, build_prompt, write_answer
from scenerl.answers.compact import split_object, split_relation
from scenerl.answers.dialogue import read_output_format
from scenerl.answers.elements import label_of
from scenerl.box_formats import BOX_FORMATS
from scenerl.errors import UserError
from scenerl.types import Relation, SceneGraph, SceneObject

IMAGE_WH = (100, 100)
BOX = (0, 0, 10, 10)


def graph(label="dog", predicate="near", box=BOX):
    return SceneGraph((SceneObject(label, box), SceneObject("ball", BOX)), (Relation(0, predicate, 1),))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "xml"}, "allowed: json, compact, detections"),
        ({"template": "box"}, "allowed: plain, think"),
        ({"box_format": "norm999"}, "allowed: pixels"),
        ({"step": 0}, "at least 1"),
        ({"step": 2.5}, "at least 1"),
        ({"step": True}, "at least 1"),
        ({"objects": "dog"}, "list of strings"),
        ({"predicates": ("on", 3)}, "list of strings"),
    ],
)
def test_a_wrong_style_names_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        OutputFormat(**options)


def test_vocabularies_become_tuples():
    output_format = OutputFormat(objects=["dog"], predicates=["on"])
    assert (output_format.objects, output_format.predicates) == (("dog",), ("on",))
    assert hash(output_format) == hash(OutputFormat(objects=("dog",), predicates=("on",)))


@pytest.mark.parametrize("fmt", ["json", "compact"])
@pytest.mark.parametrize("label", ["", "  ", "a\nb", "a\rb", "a\x00", "\ud800", "a" * 300, "<think>", "x</answer>"])
def test_labels_that_cannot_survive_are_refused(fmt, label):
    with pytest.raises(ValueError, match="object label"):
        write_answer(graph(label=label), OutputFormat(fmt), IMAGE_WH)
    with pytest.raises(ValueError, match="predicate"):
        write_answer(graph(predicate=label), OutputFormat(fmt), IMAGE_WH)


def test_the_compact_writer_refuses_predicates_that_look_like_boxes():
    for predicate in ("at 1 2 3", "2 3"):
        with pytest.raises(ValueError, match="too many numbers"):
            write_answer(graph(predicate=predicate), OutputFormat("compact"), IMAGE_WH)
        write_answer(graph(predicate=predicate), OutputFormat("json"), IMAGE_WH)


def test_labels_outside_the_vocabulary_are_refused():
    with pytest.raises(ValueError, match="'dog' is not in the closed vocabulary"):
        write_answer(graph(), OutputFormat(objects=("ball",)), IMAGE_WH)
    with pytest.raises(ValueError, match="'near' is not in the closed vocabulary"):
        write_answer(graph(), OutputFormat(predicates=("on",)), IMAGE_WH)
    with pytest.raises(ValueError, match="object label"):
        write_answer(graph(), OutputFormat("detections", objects=("ball",)), IMAGE_WH)


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (5, 0, 0, 5), (0, 0, float("nan"), 5), (0, 0, float("inf"), 5)])
def test_boxes_that_are_none_are_refused(box):
    with pytest.raises(ValueError, match="cannot be written"):
        write_answer(graph(box=box), OutputFormat(), IMAGE_WH)


def test_reasoning():
    text = write_answer(SceneGraph(), OutputFormat("detections", "think"), IMAGE_WH, reasoning=" Nothing. ")
    assert text == "<think>Nothing.</think>\n<answer>\nNone\n</answer>"
    with pytest.raises(ValueError, match="must not hold"):
        write_answer(SceneGraph(), OutputFormat(template="think"), IMAGE_WH, reasoning="a </think> b")
    with pytest.raises(ValueError, match="no place for reasoning"):
        write_answer(SceneGraph(), OutputFormat(), IMAGE_WH, reasoning="hm")


def test_json_is_written_as_others_write_it():
    assert write_answer(graph(), OutputFormat(box_format="pixels"), IMAGE_WH) == (
        '{"objects": [{"id": "dog.1", "bbox": [0, 0, 10, 10]}, {"id": "ball.2", "bbox": [0, 0, 10, 10]}], '
        '"relationships": [{"subject": "dog.1", "predicate": "near", "object": "ball.2"}]}'
    )
    detections = SceneGraph((SceneObject("red ball", BOX),))
    assert write_answer(detections, OutputFormat("detections", box_format="pixels"), IMAGE_WH) == (
        '[{"bbox_2d": [0, 0, 10, 10], "label": "red ball"}]'
    )


def test_label_of():
    assert [label_of(id_) for id_ in ("dog.1", "dog", "dog.", "dog.x", "a.b.2", ".5", "dog.²")] == [
        "dog", "dog", "dog.", "dog.x", "a.b", "", "dog.²",
    ]  # fmt: skip


def test_compact_lines():
    assert split_object("red ball 1 2.5 -3 4e1") == ("red ball", [1.0, 2.5, -3.0, 40.0])
    assert split_object("1 2 3 4") == ("", [1.0, 2.0, 3.0, 4.0])
    assert split_object("1 riding 2") is None
    assert split_relation("1 in front of 2") == (1, "in front of", 2)
    assert split_relation("1 2") is None and split_relation("") is None


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("box_format", BOX_FORMATS)
@pytest.mark.parametrize("fmt", [*TRAINED, "qwen2-vl", "internvl"])
def test_prompts_state_format_box_format_and_template(fmt, box_format, template):
    prompt = build_prompt(OutputFormat(fmt, template, box_format=box_format, objects=("dog", "red ball")))
    assert ("0 to 1000" in prompt) == (box_format == "norm1000")
    assert ("decimals from 0 to 1" in prompt) == (box_format == "norm1")
    assert ("pixels" in prompt) == (box_format in ("pixels", "resized"))
    assert ("<think>" in prompt and "<answer>" in prompt) == (template == "think")
    assert "dog, red ball" in prompt
    assert "{unit}" not in prompt and "{{" not in prompt


def test_what_is_only_read_is_neither_written_nor_requested():
    assert "[ymin, xmin, ymax, xmax]" in build_prompt(OutputFormat("gemini", objects=("dog",)))
    for fmt in set(FORMATS) - set(TRAINED):
        with pytest.raises(ValueError, match=f"{fmt}.* is only read; write json, compact, detections, toon"):
            write_answer(graph(), OutputFormat(fmt), IMAGE_WH)
    with pytest.raises(ValueError, match="no prompt requests the format 'paligemma'"):
        build_prompt(OutputFormat("paligemma", objects=("dog",)))


def test_prompts_open_and_closed():
    opened = build_prompt(OutputFormat("compact"))
    closed = build_prompt(OutputFormat("compact", objects=("dog", "cat"), predicates=("on", "near"), step=20))
    assert len(opened.split()) <= 80
    assert "Use only" not in opened and "steps" not in opened
    assert "dog, cat" in closed and "on, near" in closed and "steps of 20" in closed
    assert "steps of 0.002" in build_prompt(OutputFormat("compact", box_format="norm1", step=20))


def test_detection_prompts_list_the_query():
    output_format = OutputFormat("detections", objects=("dog",))
    assert "cat, {red} ball" in build_prompt(output_format, ("cat", "{red} ball"))
    assert "None" in build_prompt(output_format) and "absent" in build_prompt(output_format)
    with pytest.raises(ValueError, match="labels to look for"):
        build_prompt(OutputFormat("detections"))
    with pytest.raises(ValueError, match="takes no query"):
        build_prompt(OutputFormat("json"), ("dog",))


@pytest.mark.parametrize(
    ("changes", "task"),
    [
        ({}, "sgdet"),
        ({"provided": "boxes"}, "sgcls"),
        ({"provided": "objects"}, "predcls"),
        ({"format": "detections"}, "det"),
    ],
)
def test_the_task_follows(changes, task):
    assert OutputFormat(**changes).task == task


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", '{"output_format": 1}', '{"output_format": {"format": ["json"]}}']
)
def test_a_saved_format_that_cannot_be_used(tmp_path, text):
    path = tmp_path / "scenerl.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"scenerl\.json"):
        read_output_format(path)


def test_a_saved_format_of_a_later_version(tmp_path):
    """The message names both versions, the key, and those that are known."""
    path = tmp_path / "scenerl.json"
    path.write_text('{"scenerl": "9.1", "output_format": {"format": "json", "layers": 3}, "colours": 2}')
    said = f"unknown keys layers, colours; written by scenerl 9.1, read by {__version__}; allowed: scenerl, "
    with pytest.raises(UserError, match=re.escape(f"{said}output_format, and in it format, template")):
        read_output_format(path)


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"scenerl": "0.2.0"}', '{"output_format": 1}', '{"output_format": null}']
)
def test_a_saved_format_that_is_none_says_what_is_expected(tmp_path, text):
    path = tmp_path / "scenerl.json"
    path.write_text(text)
    with pytest.raises(UserError, match="must be a JSON object with 'output_format'") as error:
        read_output_format(path)
    assert "Error(" not in str(error.value)
