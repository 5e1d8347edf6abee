"""Prompts, target answers and parsing by one object: boxes survive the way through an answer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import Conversation
from scenerl.box_formats import BOX_FORMATS, extent_wh
from scenerl.errors import DataError
from scenerl.types import Example, Relation, SceneGraph, SceneObject
from training.small_run import STYLE

pytest.importorskip("transformers")

from scenerl.models.qwen2_vl import FAMILY


def without_weights(output_format: OutputFormat, patch: int = 14) -> Conversation:
    """A conversation for everything that needs sizes only."""
    images = SimpleNamespace(patch_size=patch, merge_size=2, size={"shortest_edge": 56 * 56, "longest_edge": 448 * 448})
    processor = SimpleNamespace(image_processor=images)
    return Conversation(output_format, partial(FAMILY.input_wh, processor), FAMILY.banned_tokens)


@st.composite
def scenes(draw):
    """An image of any size with objects that are at least a pixel wide."""
    width, height = draw(st.integers(20, 2000)), draw(st.integers(20, 2000))
    objects = []
    for _ in range(draw(st.integers(1, 4))):
        x1, y1 = draw(st.floats(0, width - 8)), draw(st.floats(0, height - 8))
        box = (x1, y1, draw(st.floats(x1 + 8, width)), draw(st.floats(y1 + 8, height)))
        objects.append(SceneObject(draw(st.sampled_from(["dog", "red ball", "tree 2"])), box))
    relations = (Relation(0, "left of", 1),) if len(objects) > 1 else ()
    return Example("a", width, height, SceneGraph(tuple(objects), relations))


@settings(max_examples=25)
@given(
    scenes(),
    st.sampled_from(["json", "compact"]),
    st.sampled_from(["plain", "think"]),
    st.sampled_from(list(BOX_FORMATS)),
)
def test_boxes_survive_the_way_through_the_answer(example, name, template, box_format):
    conversation = without_weights(OutputFormat(name, template, box_format=box_format))
    text = conversation.completion(example)[0]["content"][0]["text"]
    result = conversation.parse(text, example)
    assert result.ok and not result.issues and result.in_template
    assert [obj.label for obj in result.graph.objects] == [obj.label for obj in example.graph.objects]
    assert result.graph.relations == example.graph.relations
    unit = 1e-4 if box_format == "norm1" else 1
    across, down = extent_wh(box_format, example.image_wh, conversation.input_wh(example))
    # half a unit of the frame, in pixels of the original
    half = np.array([example.width / across, example.height / down] * 2) * unit / 2
    for found, wanted in zip(result.graph.objects, example.graph.objects, strict=True):
        assert (np.abs(np.subtract(found.box, wanted.box)) <= half * (1 + 1e-9) + 1e-9).all()


@pytest.mark.parametrize("size", [(641, 427), (333, 999), (29, 31), (1, 57)])
def test_the_size_of_the_resized_input_is_that_of_the_processor(size):
    """A box over the whole image has the resized input's own size in that frame."""
    conversation = without_weights(OutputFormat("compact", box_format="resized"))
    example = Example("a", *size, SceneGraph((SceneObject("dog", (0, 0, *size)),)))
    width, height = conversation.input_wh(example)
    assert conversation.completion(example)[0]["content"][0]["text"] == f"dog 0 0 {width} {height}\nend"


def test_an_image_the_model_cannot_take_is_named():
    conversation = without_weights(STYLE)
    with pytest.raises(DataError, match=r"image 'thin': 3000 x 10 is no size for the model \(.*200"):
        conversation.completion(Example("thin", 3000, 10, SceneGraph()))


def test_a_query_closes_the_vocabulary_of_its_answer():
    conversation = without_weights(OutputFormat("detections", objects=("cat",)))
    example = Example("a", 100, 100, SceneGraph((SceneObject("dog", (0, 0, 50, 50)),)), query=("dog", "bird"))
    assert "dog, bird" in conversation.prompt(example, None)[0]["content"][1]["text"]
    text = conversation.completion(example)[0]["content"][0]["text"]
    assert conversation.parse(text, example).graph == example.graph
    other = conversation.parse(text, replace(example, query=("bird",)))
    assert [issue.kind for issue in other.issues] == ["unknown_label"]


# --- tasks whose prompt gives objects ---

SCENE = Example(
    "7",
    448,
    224,
    SceneGraph(
        (SceneObject("dog", (0, 0, 224, 112)), SceneObject("red ball", (224, 112, 448, 224))), (Relation(0, "on", 1),)
    ),
)


def prompt_text(output_format: OutputFormat, example: Example) -> str:
    return without_weights(output_format).prompt(example, None)[0]["content"][1]["text"]


@pytest.mark.parametrize("fmt", ["json", "compact"])
@pytest.mark.parametrize("template", ["plain", "think"])
def test_provided_objects_stand_in_the_prompt_in_the_models_box_format(fmt, template):
    nothing = prompt_text(OutputFormat(fmt, template), SCENE)
    boxes = prompt_text(OutputFormat(fmt, template, provided="boxes"), SCENE)
    objects = prompt_text(OutputFormat(fmt, template, provided="objects"), SCENE)
    assert "\n1 0 0 500 500\n2 500 500 1000 1000\n" in boxes and "red ball" not in boxes.replace(nothing, "")
    assert "\n1 dog 0 0 500 500\n2 red ball 500 500 1000 1000\n" in objects
    assert "given" not in nothing
    in_pixels = prompt_text(OutputFormat(fmt, template, box_format="pixels", provided="boxes"), SCENE)
    assert "\n2 224 112 448 224\n" in in_pixels
    coarse = prompt_text(OutputFormat(fmt, template, step=100, provided="boxes"), replace(SCENE, width=450))
    assert "\n1 0 0 500 500\n" in coarse


@pytest.mark.parametrize("fmt", ["json", "compact"])
def test_the_ideal_answer_repeats_what_was_provided(fmt):
    """Its boxes are the prompt's numbers, so that a model can copy them, and it reads back as the ground truth."""
    for example in (SCENE, replace(SCENE, provided=SCENE.graph.objects[::-1])):
        conversation = without_weights(OutputFormat(fmt, provided="objects"))
        answer = conversation.completion(example)[0]["content"][0]["text"]
        parsed = conversation.parse(answer, example).graph
        order = [item.label for item in example.provided or SCENE.graph.objects]
        assert [item.label for item in parsed.objects] == order
        assert [parsed.triplet(edge) for edge in parsed.relations] == [("dog", "on", "red ball")]
        for number, item in enumerate(parsed.objects, start=1):
            box = " ".join(str(round(n * 1000 / side)) for n, side in zip(item.box, SCENE.image_wh * 2, strict=True))
            assert f"\n{number} {item.label} {box}\n" in prompt_text(conversation.output_format, example)


def test_a_detectors_objects_take_the_place_of_the_ground_truths():
    found = replace(SCENE, provided=(SceneObject("cat", (0, 0, 44.8, 22.4), 0.9),))
    text = prompt_text(OutputFormat("compact", provided="objects"), found)
    assert "\n1 cat 0 0 100 100\n" in text and "dog 0" not in text
    assert "red ball" not in prompt_text(OutputFormat("compact", provided="objects"), replace(SCENE, provided=()))
