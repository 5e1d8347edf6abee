"""The grounding warm-up of small models: what a row says, what is to be told, what moves and what does not."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch

from scenerl import tiny
from scenerl.answers import OutputFormat
from scenerl.models.loading import load
from scenerl.models.output_formats import saved_output_format
from scenerl.models.qwen2_vl import FAMILY
from scenerl.tiny.grounding import named_boxes, warm_up_grounding
from scenerl.types import Example, SceneGraph, SceneObject
from training.small_run import SHAPE, STYLE

PAIR = Example(
    "a", 200, 100, SceneGraph((SceneObject("red cup", (0, 0, 20, 50)), SceneObject("dog", (100, 50, 200, 100))))
)


def warm_up(examples, steps: int, seed: int = 0):
    model, processor = tiny.build(examples, STYLE, SHAPE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = []
    told = warm_up_grounding(
        model,
        processor,
        examples,
        STYLE,
        partial(FAMILY.input_wh, processor),
        steps,
        4,
        seed,
        lambda *s: seen.append(s),
    )
    return model, before, seen, told


def test_a_row_names_every_object_once_in_an_order_that_is_drawn():
    output_format = OutputFormat("detections", step=100)
    texts = {named_boxes(PAIR, output_format, (196, 112), random.Random(seed)) for seed in range(20)}
    cup, dog = "red cup 0, 0, 100, 500", "dog 500, 500, 1000, 1000"
    assert texts == {f"{cup}\n{dog}", f"{dog}\n{cup}"}


def test_boxes_are_in_the_box_format_of_the_output_format():
    output_format = OutputFormat("detections", box_format="resized", step=2)
    assert "dog 98, 56, 196, 112" in named_boxes(PAIR, output_format, (196, 112), random.Random(0))
    assert "dog 0.5, 0.5, 1.0, 1.0" in named_boxes(PAIR, OutputFormat(box_format="norm1"), (196, 112), random.Random(0))


def test_the_text_half_learns_and_the_tower_stays(examples):
    model, before, seen, told = warm_up(examples, 40)
    assert [step for step, _ in seen] == list(range(1, 41))
    assert told == seen[-1][1] and 0 <= told["accuracy"] <= 1
    assert told["loss"] < 0.7 * seen[0][1]["loss"]
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and not any(".visual." in name for name in moved)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_seed_decides(examples):
    def losses(seed):
        return [metrics["loss"] for _, metrics in warm_up(examples, 2, seed)[2]]

    assert losses(0) == losses(0) != losses(1)


def test_only_the_numbers_are_to_be_told(examples, monkeypatch):
    told = []
    entropy = torch.nn.functional.cross_entropy
    monkeypatch.setattr(
        "scenerl.tiny.grounding.F.cross_entropy", lambda logits, ids: told.append(ids) or entropy(logits, ids)
    )
    warm_up(examples, 1)
    _, processor = tiny.build(examples, STYLE, SHAPE)
    assert len(told[0]) == 4 * 2 * 4  # four images, two objects in each, four numbers
    assert all(processor.tokenizer.decode([token]).strip(", ").isdecimal() for token in told[0])


def test_no_object_is_an_error():
    with pytest.raises(ValueError, match="needs examples with objects; there are none"):
        warm_up_grounding(None, None, [Example("a", 8, 8, SceneGraph(()))], STYLE, None)


def test_a_checkpoint_from_scratch_is_warmed_up_both_ways(examples, tmp_path):
    steps = []
    metrics = tiny.create(
        tmp_path / "base",
        examples,
        STYLE,
        SHAPE,
        warmup_steps=2,
        batch_size=2,
        grounding_steps=3,
        progress=lambda step, _: steps.append(step),
    )
    assert steps == [1, 2, 1, 2, 3]
    assert {"box_l1", "accuracy", "grounding_accuracy"} <= metrics.keys()
    assert saved_output_format(tmp_path / "base") == STYLE
    assert load(tmp_path / "base").model is not None
